/* Ends that are no orderly ones: resets at every state of the connection, unread bytes, and ends that are killed. */
#include "conform.h"

static const short ALL = POLLIN | POLLOUT | POLLRDHUP;

/* What this end sees of a reset: events, error, read, write. */
static void seen_here(int fd)
{
    char bytes[16];
    say("events", "%s", events(wait_for(fd, 0, 30000)));
    say("events_all", "%s", events(wait_for(fd, ALL, 0)));
    say("error", "%s", errno_name(so_error(fd)));
    say("error2", "%s", errno_name(so_error(fd)));
    say("read", "%s", outcome(recv(fd, bytes, sizeof bytes, 0)));
    say("write", "%s", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    say("peer", "%s", outcome(getpeername(fd, (struct sockaddr *)&name, &length)));
}

/* The same at the far end, but read first. */
static void seen_there(struct pair *pair)
{
    far_call(&pair->far, "poll %d 0 30000", pair->there);
    say("events_there", "%s", pair->far.text);
    long got = far_call(&pair->far, "read %d 10", pair->there);
    say("read_there", "%s", far_outcome(&pair->far, got));
    got = far_call(&pair->far, "read %d 10", pair->there);
    say("read_there2", "%s", far_outcome(&pair->far, got));
    got = far_call(&pair->far, "write %d x", pair->there);
    say("write_there", "%s", far_outcome(&pair->far, got));
}

static void reset_there(struct pair *pair)
{
    far_call(&pair->far, "linger %d", pair->there);
    far_call(&pair->far, "close %d", pair->there);
}

static void reset_here(struct pair *pair)
{
    set_linger_zero(pair->fd);
    close(pair->fd);
}

static void by_there(void)
{
    struct pair pair;
    pair_open(&pair);
    reset_there(&pair);
    seen_here(pair.fd);
}

static void by_here(void)
{
    struct pair pair;
    pair_open(&pair);
    reset_here(&pair);
    seen_there(&pair);
}

/* A reader that already waits. */
static void of_reader(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_ask(&pair.far, "wait 200");
    far_ask(&pair.far, "linger %d", pair.there);
    far_ask(&pair.far, "close %d", pair.there);
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    say("read2", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
}

/* A writer that already waits, because nobody reads. */
static void of_writer(void)
{
    struct pair pair;
    pair_open(&pair);
    fcntl(pair.fd, F_SETFL, O_NONBLOCK);
    int quiet = 0;
    for (uint64_t sent = 0; quiet < 5;) {
        long more = fill(pair.fd, sent, 1 << 20, 2);
        quiet = more > 0 ? 0 : quiet + !wait_for(pair.fd, POLLOUT, 100);
        sent += more > 0 ? (uint64_t)more : 0;
    }
    far_call(&pair.far, "close %d", pair.there);
    say("events", "%s", events(wait_for(pair.fd, POLLOUT, 30000)));
    say("write", "%s", outcome(send(pair.fd, "x", 1, MSG_NOSIGNAL)));
    say("write2", "%s", outcome(send(pair.fd, "x", 1, MSG_NOSIGNAL)));
}

/* The far end has half-closed, then resets. */
static void after_half_there(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_call(&pair.far, "shutdown %d %d", pair.there, SHUT_WR);
    say("end", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    reset_there(&pair);
    seen_here(pair.fd);
}

/* We have half-closed, then the far end resets. */
static void there_after_half_here(void)
{
    struct pair pair;
    pair_open(&pair);
    shutdown(pair.fd, SHUT_WR);
    say("end_there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    reset_there(&pair);
    seen_here(pair.fd);
}

/* We have half-closed, then reset. */
static void after_half_here(void)
{
    struct pair pair;
    pair_open(&pair);
    shutdown(pair.fd, SHUT_WR);
    say("end_there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    reset_here(&pair);
    seen_there(&pair);
}

/* The far end has half-closed, then we reset. */
static void here_after_half_there(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_call(&pair.far, "shutdown %d %d", pair.there, SHUT_WR);
    say("end", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    reset_here(&pair);
    seen_there(&pair);
}

/* Closed with bytes that were not read: a reset, not an end. */
static void unread_there(void)
{
    struct pair pair;
    pair_open(&pair);
    send(pair.fd, "unread", 6, MSG_NOSIGNAL);
    far_call(&pair.far, "poll %d %d 30000", pair.there, POLLIN);
    far_call(&pair.far, "close %d", pair.there);
    seen_here(pair.fd);
}

static void unread_here(void)
{
    struct pair pair;
    pair_open(&pair);
    far_call(&pair.far, "write %d unread", pair.there);
    wait_for(pair.fd, POLLIN, 30000);
    close(pair.fd);
    seen_there(&pair);
}

/* Half-closed, then closed with bytes that came meanwhile. */
static void unread_after_half(void)
{
    struct pair pair;
    pair_open(&pair);
    shutdown(pair.fd, SHUT_WR);
    say("end_there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    far_call(&pair.far, "write %d unread", pair.there);
    wait_for(pair.fd, POLLIN, 30000);
    close(pair.fd);
    seen_there(&pair);
}

/* Bytes that came before a reset are still there. */
static void bytes_before(void)
{
    struct pair pair;
    char bytes[8] = "";
    pair_open(&pair);
    far_call(&pair.far, "write %d before", pair.there);
    wait_for(pair.fd, POLLIN, 30000);
    reset_there(&pair);
    wait_for(pair.fd, 0, 30000);
    say("error", "%s", events(wait_for(pair.fd, ALL, 0)));
    ssize_t got = recv(pair.fd, bytes, 7, 0);
    say("read", "%s %s", outcome(got), bytes);
    say("read2", "%s", outcome(recv(pair.fd, bytes, 7, 0)));
    say("read3", "%s", outcome(recv(pair.fd, bytes, 7, 0)));
}

static void killed(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_ask(&pair.far, "die");
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    say("events", "%s", events(wait_for(pair.fd, ALL, 0)));
}

static void killed_with_unread(void)
{
    struct pair pair;
    pair_open(&pair);
    send(pair.fd, "unread", 6, MSG_NOSIGNAL);
    far_call(&pair.far, "poll %d %d 30000", pair.there, POLLIN);
    far_ask(&pair.far, "die");
    seen_here(pair.fd);
}

/* A child of ours holds the connection and is killed. */
static void killed_here(void)
{
    struct pair pair;
    pair_open(&pair);
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    close(pair.fd);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    say("end_there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
}

/* Whose listener is closed while connections wait in its queue: they are reset. */
static void listener_closed(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    set_time_limit(fd, PATIENCE);
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    far_call(&pair.far, "poll %d %d 30000", pair.listener, POLLIN);
    far_call(&pair.far, "close %d", pair.listener);
    seen_here(fd);
    far_call(&pair.far, "write %d alive", pair.there);
    char bytes[8] = "";
    say("accepted_one", "%zd %s", recv(pair.fd, bytes, 5, MSG_WAITALL), bytes);
    fd = stream6(0);
    say("afterwards", "%s", outcome(dial6(fd, pair.port)));
}

/* Shutdown of a listening socket ends it as well. */
static void listener_shut(void)
{
    struct pair pair;
    pair_open(&pair);
    say("shutdown", "%ld", far_call(&pair.far, "shutdown %d %d", pair.listener, SHUT_RDWR));
    say("afterwards", "%s", outcome(dial6(stream6(0), pair.port)));
    long got = far_call(&pair.far, "accept %d 0", pair.listener);
    say("accept", "%s", far_outcome(&pair.far, got));
}

const struct check reset_checks[] = {
    { "reset.by_there", by_there },
    { "reset.by_here", by_here },
    { "reset.of_reader", of_reader },
    { "reset.of_writer", of_writer },
    { "reset.after_half_there", after_half_there },
    { "reset.there_after_half_here", there_after_half_here },
    { "reset.after_half_here", after_half_here },
    { "reset.here_after_half_there", here_after_half_there },
    { "reset.unread_there", unread_there },
    { "reset.unread_here", unread_here },
    { "reset.unread_after_half", unread_after_half },
    { "reset.bytes_before", bytes_before },
    { "reset.killed", killed },
    { "reset.killed_with_unread", killed_with_unread },
    { "reset.killed_here", killed_here },
    { "reset.listener_closed", listener_closed },
    { "reset.listener_shut", listener_shut },
    { NULL, NULL },
};
