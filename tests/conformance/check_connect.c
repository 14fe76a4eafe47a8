/* Connections that come about: blocking and not, and how poll, select and epoll tell. */
#include "conform.h"

#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

/* What connect() says now, and once more. */
static void again(const char *name, int fd, uint16_t port)
{
    const char *first = outcome(dial6(fd, port));
    say(name, "%s then %s", first, outcome(dial6(fd, port)));
}

static void blocking(void)
{
    struct pair pair;
    pair_open(&pair);
    say("events", "%s", events(wait_for(pair.fd, POLLIN | POLLOUT | POLLRDHUP, 0)));
    say("error", "%s", errno_name(so_error(pair.fd)));
    say("again", "%s", outcome(dial6(pair.fd, pair.port)));
}

static void nonblocking(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(SOCK_NONBLOCK), there;
    say("first", "%s", outcome(dial6(fd, pair.port)));
    say("events", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 30000)));
    say("error", "%s", errno_name(so_error(fd)));
    again("again", fd, pair.port);
    there = (int)far_call(&pair.far, "accept %d", pair.listener);
    say("accepted", "%s", yes(there >= 0));
    say("read", "%s", outcome(read(fd, &there, 1)));
}

static void old_family(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream4(SOCK_NONBLOCK);
    say("first", "%s", outcome(dial4(fd, pair.port)));
    say("events", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 30000)));
    say("error", "%s", errno_name(so_error(fd)));
    say("accepted", "%s", yes(far_call(&pair.far, "accept %d", pair.listener) >= 0));
}

static void by_select(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(SOCK_NONBLOCK);
    dial6(fd, pair.port);
    fd_set in, out, other;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&other);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(fd, &other);
    struct timeval limit = { .tv_sec = 30 };
    int count = select(fd + 1, &in, &out, &other, &limit);
    say("ready", "%d: read %d write %d except %d", count, FD_ISSET(fd, &in), FD_ISSET(fd, &out), FD_ISSET(fd, &other));
}

static int watch(int fd, unsigned mode)
{
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode, .data.fd = fd };
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    return set;
}

static const char *next_event(int set, int limit)
{
    struct epoll_event event = { 0 };
    return epoll_wait(set, &event, 1, limit) > 0 ? events(event.events) : "none";
}

/* A listener whose queue is full: its next connection waits for our word. */
static void full_listener(struct far *far, int *listener, uint16_t *port)
{
    far_open(far);
    *listener = (int)far_call(far, "listen any6 0 0");
    *port = (uint16_t)atoi(far->text);
    int first = stream6(0);
    if (dial6(first, *port) < 0)
        broken("filling a listener's queue");
    // Until the far end's kernel has it.
    if (far_call(far, "poll %d %d 30000", *listener, POLLIN) <= 0)
        broken("the queue stays empty");
}

static void pending(void)
{
    struct far far;
    int listener;
    uint16_t port;
    full_listener(&far, &listener, &port);
    int fd = stream6(SOCK_NONBLOCK);
    say("first", "%s", outcome(dial6(fd, port)));
    say("early", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 300)));
    again("again", fd, port);
    say("error", "%s", errno_name(so_error(fd)));
    say("write", "%s", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    say("read", "%s", outcome(recv(fd, &port, 1, 0)));
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    say("peer", "%s", outcome(getpeername(fd, (struct sockaddr *)&name, &length)));
    say("accept", "%s", yes(far_call(&far, "accept %d", listener) >= 0));
    say("late", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 30000)));
    say("accept2", "%s", yes(far_call(&far, "accept %d", listener) >= 0));
    say("end", "%s", errno_name(so_error(fd)));
    again("over", fd, port);
}

static void epoll_both(unsigned mode, bool before)
{
    char line[64];
    struct far far;
    int listener, set = -1;
    uint16_t port;
    full_listener(&far, &listener, &port);
    int fd = stream6(SOCK_NONBLOCK);
    if (before) {
        set = watch(fd, mode);
        say("unconnected", "%s", next_event(set, 0));
    }
    dial6(fd, port);
    if (!before)
        set = watch(fd, mode);
    say("pending", "%s", next_event(set, 300));
    far_call(&far, "accept %d", listener);
    say("connected", "%s", next_event(set, 30000));
    say("again", "%s", next_event(set, 100));
    int there = (int)far_call(&far, "accept %d", listener);
    for (int i = 0; i < 2; i++) {
        far_call(&far, "write %d abc", there);
        wait_for(fd, POLLIN, 30000);
        snprintf(line, sizeof line, "bytes%d", i);
        say(line, "%s", next_event(set, 100));
        snprintf(line, sizeof line, "quiet%d", i);
        say(line, "%s", next_event(set, 100));
    }
    far_call(&far, "close %d", there);
    wait_for(fd, POLLRDHUP, 30000);
    say("end", "%s", next_event(set, 100));
}

static void epoll_level_before(void) { epoll_both(0, true); }
static void epoll_level_after(void) { epoll_both(0, false); }
static void epoll_edge_before(void) { epoll_both(EPOLLET, true); }
static void epoll_edge_after(void) { epoll_both(EPOLLET, false); }
static void epoll_once(void) { epoll_both(EPOLLONESHOT, false); }

static void time_limit(void)
{
    struct far far;
    int listener;
    uint16_t port;
    full_listener(&far, &listener, &port);
    int fd = stream6(0);
    struct timeval limit = { .tv_usec = 300000 };
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    say("first", "%s", outcome(dial6(fd, port)));
    say("second", "%s", outcome(dial6(fd, port)));
}

static void timed_out(void)
{
    struct far far;
    int listener, tries = 1;
    uint16_t port;
    full_listener(&far, &listener, &port);
    int fd = stream6(0);
    setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &tries, sizeof tries);
    say("connect", "%s", outcome(dial6(fd, port)));
    say("error", "%s", errno_name(so_error(fd)));
}

static void on_alarm(int number) { (void)number; }

static void alarmed(const char *name, int flags)
{
    struct far far;
    int listener;
    uint16_t port;
    full_listener(&far, &listener, &port);
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
    sigaction(SIGALRM, &action, NULL);
    int fd = stream6(0);
    struct itimerval soon = { .it_value.tv_usec = 300000 };
    // Room comes while connect() waits, after the alarm.
    far_ask(&far, "wait 600");
    far_ask(&far, "accept %d", listener);
    setitimer(ITIMER_REAL, &soon, NULL);
    say(name, "%s", outcome(dial6(fd, port)));
    far_answer(&far);
    far_answer(&far);
    say("after", "%s", events(wait_for(fd, POLLOUT, 30000)));
    say("error", "%s", errno_name(so_error(fd)));
}

static void interrupted(void) { alarmed("without_restart", 0); }
static void restarted(void) { alarmed("with_restart", SA_RESTART); }

static void dissolved(void)
{
    struct pair pair;
    pair_open(&pair);
    struct sockaddr nothing = { .sa_family = AF_UNSPEC };
    say("dissolve", "%s", outcome(connect(pair.fd, &nothing, sizeof nothing)));
    say("peer", "%ld %s", far_call(&pair.far, "read %d 1", pair.there), errno_name(pair.far.error));
    say("reuse", "%s", outcome(dial6(pair.fd, pair.port)));
    say("accept", "%s", yes(far_call(&pair.far, "accept %d", pair.listener) >= 0));
}

static void fast_open(void)
{
    struct pair pair;
    pair_open(&pair);
    struct sockaddr_in6 address = at6(pair.port);
    for (int i = 0; i < 2; i++) {
        int fd = stream6(0);
        say(i ? "second" : "first", "%s",
            outcome(sendto(fd, "early", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address)));
        int there = (int)far_call(&pair.far, "accept %d", pair.listener);
        far_call(&pair.far, "read %d 5", there);
        say(i ? "second_bytes" : "first_bytes", "%s", pair.far.text);
    }
    int fd = stream6(SOCK_NONBLOCK);
    say("nonblocking", "%s",
        outcome(sendto(fd, "early", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address)));
}

static void fast_open_connect(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0), on = 1;
    say("option", "%s", outcome(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on)));
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    say("write", "%s", outcome(send(fd, "early", 5, MSG_NOSIGNAL)));
    int there = (int)far_call(&pair.far, "accept %d", pair.listener);
    far_call(&pair.far, "read %d 5", there);
    say("bytes", "%s", pair.far.text);
}

const struct check connect_checks[] = {
    { "connect.blocking", blocking },
    { "connect.nonblocking", nonblocking },
    { "connect.ipv4", old_family },
    { "connect.select", by_select },
    { "connect.pending", pending },
    { "connect.epoll_level_before", epoll_level_before },
    { "connect.epoll_level_after", epoll_level_after },
    { "connect.epoll_edge_before", epoll_edge_before },
    { "connect.epoll_edge_after", epoll_edge_after },
    { "connect.epoll_once", epoll_once },
    { "connect.time_limit", time_limit },
    { "connect.timed_out", timed_out },
    { "connect.interrupted", interrupted },
    { "connect.restarted", restarted },
    { "connect.dissolved", dissolved },
    { "connect.fast_open", fast_open },
    { "connect.fast_open_connect", fast_open_connect },
    { NULL, NULL },
};
