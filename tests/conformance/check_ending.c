/* Orderly ends: shutdown of either direction at either end, half-closed connections, and close. */
#include "conform.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int number)
{
    (void)number;
    pipes++;
}

static void half_here(void)
{
    struct pair pair;
    char bytes[16] = "";
    pair_open(&pair);
    say("write", "%s", outcome(send(pair.fd, "last", 4, MSG_NOSIGNAL)));
    say("shutdown", "%s", outcome(shutdown(pair.fd, SHUT_WR)));
    long got = far_call(&pair.far, "read %d 10", pair.there);
    say("there", "%ld %s", got, pair.far.text);
    far_call(&pair.far, "poll %d %d 0", pair.there, POLLIN | POLLOUT | POLLRDHUP);
    say("events_there", "%s", pair.far.text);
    say("events_here", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    signal(SIGPIPE, on_pipe);
    say("write_after", "%s", outcome(send(pair.fd, "x", 1, MSG_NOSIGNAL)));
    say("signals", "%d", pipes);
    say("write_signal", "%s", outcome(write(pair.fd, "x", 1)));
    say("signals2", "%d", pipes);
    for (int i = 0; i < 2; i++) {
        far_call(&pair.far, "write %d still%d", pair.there, i);
        say("still", "%zd %s", recv(pair.fd, bytes, 6, MSG_WAITALL), bytes);
    }
    say("again", "%s", outcome(shutdown(pair.fd, SHUT_WR)));
    far_call(&pair.far, "close %d", pair.there);
    say("end", "%s", outcome(recv(pair.fd, bytes, 1, 0)));
    say("events_end", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    say("end2", "%s", outcome(recv(pair.fd, bytes, 1, 0)));
    say("shutdown_end", "%s", outcome(shutdown(pair.fd, SHUT_RDWR)));
}

static void half_there(void)
{
    struct pair pair;
    char bytes[16] = "";
    pair_open(&pair);
    far_call(&pair.far, "write %d last", pair.there);
    far_call(&pair.far, "shutdown %d %d", pair.there, SHUT_WR);
    ssize_t got = recv(pair.fd, bytes, 10, MSG_WAITALL);
    say("read", "%zd %s", got, bytes);
    say("events", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    for (int i = 0; i < 2; i++) {
        say("write", "%s", outcome(send(pair.fd, "still", 5, MSG_NOSIGNAL)));
        far_call(&pair.far, "read %d 5", pair.there);
        say("there", "%s", pair.far.text);
    }
    say("close", "%s", outcome(close(pair.fd)));
    say("end_there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    far_call(&pair.far, "poll %d %d 0", pair.there, POLLIN | POLLOUT | POLLRDHUP);
    say("events_there", "%s", pair.far.text);
}

static void reading_here(void)
{
    struct pair pair;
    char bytes[16] = "";
    pair_open(&pair);
    say("shutdown", "%s", outcome(shutdown(pair.fd, SHUT_RD)));
    say("events", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    say("read", "%s", outcome(recv(pair.fd, bytes, 8, 0)));
    far_call(&pair.far, "write %d abc", pair.there);
    far_call(&pair.far, "wait 300");
    say("late", "%s", outcome(recv(pair.fd, bytes, 8, MSG_DONTWAIT)));
    say("write", "%s", outcome(send(pair.fd, "still", 5, MSG_NOSIGNAL)));
    far_call(&pair.far, "read %d 5", pair.there);
    say("there", "%s", pair.far.text);
}

static void both_here(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    say("shutdown", "%s", outcome(shutdown(pair.fd, SHUT_RDWR)));
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    say("write", "%s", outcome(send(pair.fd, "x", 1, MSG_NOSIGNAL)));
    say("there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    far_call(&pair.far, "close %d", pair.there);
    say("events", "%s", events(wait_for(pair.fd, POLLHUP, 30000)));
}

static void reading_there(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_call(&pair.far, "shutdown %d %d", pair.there, SHUT_RDWR);
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    say("events", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    say("close", "%s", outcome(close(pair.fd)));
}

static void closed_here(void)
{
    struct pair pair;
    pair_open(&pair);
    send(pair.fd, "bye", 3, MSG_NOSIGNAL);
    say("close", "%s", outcome(close(pair.fd)));
    long got = far_call(&pair.far, "read %d 10", pair.there);
    say("read_there", "%ld %s", got, pair.far.text);
    // Nobody is there: the first bytes are answered by a reset.
    got = far_call(&pair.far, "writes %d", pair.there);
    say("writes_there", "%s", far_outcome(&pair.far, got));
    got = far_call(&pair.far, "read %d 1", pair.there);
    say("read_there2", "%s", far_outcome(&pair.far, got));
}

static void closed_there(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_call(&pair.far, "close %d", pair.there);
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    ssize_t sent;
    do {
        sent = send(pair.fd, "xxxx", 4, MSG_NOSIGNAL);
        poll(NULL, 0, 5);
    } while (sent > 0);
    say("writes", "%s", outcome(sent));
    signal(SIGPIPE, on_pipe);
    say("write", "%s", outcome(write(pair.fd, "x", 1)));
    say("signals", "%d", pipes);
    say("read2", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
}

/* A program that takes SIGPIPE as it is dies of it. */
static void deadly_pipe(void)
{
    struct pair pair;
    int status = 0;
    pair_open(&pair);
    shutdown(pair.fd, SHUT_WR);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGPIPE, SIG_DFL);
        if (write(pair.fd, "x", 1) < 0)
            _exit(1);
        _exit(0);
    }
    waitpid(child, &status, 0);
    say("signal", "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void unconnected(void)
{
    char byte;
    int fd = stream6(0);
    say("shutdown", "%s", outcome(shutdown(fd, SHUT_WR)));
    say("events", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    say("read", "%s", outcome(recv(fd, &byte, 1, 0)));
    say("write", "%s", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    say("accept", "%s", outcome(accept(fd, NULL, NULL)));
    say("strange_shutdown", "%s", outcome(shutdown(fd, 7)));
}

static void lingering(void)
{
    struct pair pair;
    pair_open(&pair);
    struct linger linger = { .l_onoff = 1, .l_linger = 20 };
    say("option", "%s", outcome(setsockopt(pair.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger)));
    send(pair.fd, "bye", 3, MSG_NOSIGNAL);
    say("close", "%s", outcome(close(pair.fd)));
    long got = far_call(&pair.far, "read %d 10", pair.there);
    say("there", "%ld %s", got, pair.far.text);
}

const struct check ending_checks[] = {
    { "end.half_here", half_here },
    { "end.half_there", half_there },
    { "end.reading_here", reading_here },
    { "end.both_here", both_here },
    { "end.both_there", reading_there },
    { "end.closed_here", closed_here },
    { "end.closed_there", closed_there },
    { "end.deadly_pipe", deadly_pipe },
    { "end.unconnected", unconnected },
    { "end.lingering", lingering },
    { NULL, NULL },
};
