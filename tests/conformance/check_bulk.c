/* Bytes in large amounts, and many connections: nothing is lost, changed or reordered, and who does not read is waited for. */
#include "conform.h"

#include <sys/epoll.h>

enum { LARGE = 4 << 20, SMALL_WRITES = 2000, CONNECTIONS = 200, EACH = 8 };

static void there(void)
{
    struct pair pair;
    pair_open(&pair);
    far_ask(&pair.far, "drain %d 0 7", pair.there);
    say("sent", "%ld", fill(pair.fd, 0, LARGE, 7));
    shutdown(pair.fd, SHUT_WR);
    say("read", "%ld", far_answer(&pair.far));
}

static void here(void)
{
    struct pair pair;
    pair_open(&pair);
    far_ask(&pair.far, "fill %d %d 9", pair.there, LARGE);
    far_ask(&pair.far, "close %d", pair.there);
    say("read", "%ld", drain(pair.fd, 0, 0, 9));
    say("sent", "%ld", far_answer(&pair.far));
}

static void both(void)
{
    struct pair pair;
    pair_open(&pair);
    far_ask(&pair.far, "both %d %d 3 4", pair.there, LARGE);
    pid_t writer = fork();
    if (writer == 0)
        _exit(fill(pair.fd, 0, LARGE, 3) == LARGE ? 0 : 1);
    say("read", "%ld", drain(pair.fd, 0, LARGE, 4));
    int status = 1;
    waitpid(writer, &status, 0);
    say("sent", "%s", yes(status == 0));
    long got = far_answer(&pair.far);
    say("there", "%ld %s", got, pair.far.text);
}

static void one_by_one(void)
{
    struct pair pair;
    int on = 1;
    pair_open(&pair);
    setsockopt(pair.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    far_ask(&pair.far, "drain %d 0 5", pair.there);
    int sent = 0;
    for (; sent < SMALL_WRITES; sent++)
        if (fill(pair.fd, (uint64_t)sent, 1, 5) != 1)
            break;
    say("sent", "%d", sent);
    shutdown(pair.fd, SHUT_WR);
    say("read", "%ld", far_answer(&pair.far));
}

/* Nobody reads: the writer is held up at last, and goes on when somebody does. */
static void pressure(void)
{
    struct pair pair;
    pair_open(&pair);
    fcntl(pair.fd, F_SETFL, O_NONBLOCK);
    uint64_t sent = 0, most = (uint64_t)512 << 20;
    int quiet = 0;
    // Full for one and a half seconds is full.
    while (quiet < 15 && sent < most) {
        long more = fill(pair.fd, sent, 1 << 20, 2);
        if (more > 0) {
            sent += (uint64_t)more;
            quiet = 0;
        } else {
            quiet += !wait_for(pair.fd, POLLOUT, 100);
        }
    }
    say("held_up", "%s", yes(sent < most));
    say("write", "%s", outcome(send(pair.fd, "x", 1, MSG_NOSIGNAL)));
    say("events", "%s", events(wait_for(pair.fd, POLLOUT, 0)));
    far_ask(&pair.far, "drain %d 0 2", pair.there);
    say("goes_on", "%s", events(wait_for(pair.fd, POLLOUT, 30000)));
    shutdown(pair.fd, SHUT_WR);
    say("all_arrived", "%s", yes(far_answer(&pair.far) == (long)sent));
}

static void many(void)
{
    struct pair pair;
    pair_open(&pair);
    far_call(&pair.far, "close %d", pair.listener);
    pair.listener = (int)far_call(&pair.far, "listen any6 0 %d", CONNECTIONS);
    uint16_t port = (uint16_t)atoi(pair.far.text);
    far_ask(&pair.far, "gather %d %d", pair.listener, CONNECTIONS);
    struct pollfd fds[CONNECTIONS];
    int connected = 0, echoed = 0;
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i].fd = stream6(SOCK_NONBLOCK);
        fds[i].events = POLLOUT;
        dial6(fds[i].fd, port);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        wait_for(fds[i].fd, POLLOUT, 30000);
        char bytes[EACH + 1];
        snprintf(bytes, sizeof bytes, "%08d", i);
        connected += so_error(fds[i].fd) == 0 && send(fds[i].fd, bytes, EACH, MSG_NOSIGNAL) == EACH;
    }
    say("connected", "%d", connected);
    for (int i = 0; i < CONNECTIONS; i++) {
        char bytes[EACH + 1], got[EACH + 1] = "";
        snprintf(bytes, sizeof bytes, "%08d", i);
        wait_for(fds[i].fd, POLLIN, 30000);
        echoed += recv(fds[i].fd, got, EACH, 0) == EACH && !strcmp(bytes, got);
    }
    say("echoed", "%d", echoed);
    say("there", "%ld", far_answer(&pair.far));
}

const struct check bulk_checks[] = {
    { "bulk.there", there },
    { "bulk.here", here },
    { "bulk.both", both },
    { "bulk.one_by_one", one_by_one },
    { "bulk.pressure", pressure },
    { "bulk.many", many },
    { NULL, NULL },
};
