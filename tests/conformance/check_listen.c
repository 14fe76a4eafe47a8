/* Listeners: what each kind accepts, queues, sharing of ports, and accept's own ways. */
#include "conform.h"

#include <sys/epoll.h>

/* What connects to one kind of listener, in both families. */
static void reached(const char *kind)
{
    struct far far;
    far_open(&far);
    long fd = far_call(&far, "listen %s 0 8", kind);
    if (fd < 0) {
        say("listen", "%s", far_outcome(&far, fd));
        return;
    }
    uint16_t port = (uint16_t)atoi(far.text);
    say("ipv6", "%s", outcome(dial6(stream6(0), port)));
    say("ipv4", "%s", outcome(dial4(stream4(0), port)));
}

static void any6(void) { reached("any6"); }
static void any4(void) { reached("any4"); }
static void only6(void) { reached("only6"); }
static void own6(void) { reached("own6"); }
static void own4(void) { reached("own4"); }
static void loop6(void) { reached("loop6"); }
static void loop4(void) { reached("loop4"); }

static void low_port(void)
{
    struct far far;
    far_open(&far);
    long fd = far_call(&far, "listen any6 97 8");
    say("listen", "%s", yes(fd >= 0));
    int near = stream6(0);
    say("connect", "%s", outcome(dial6(near, 97)));
    fd = far_call(&far, "listen any6 97 8");
    say("in_use", "%s", far_outcome(&far, fd));
}

static void shared(void)
{
    struct far far;
    far_open(&far);
    long first = far_call(&far, "listen share6 0 128");
    uint16_t port = (uint16_t)atoi(far.text);
    long second = far_call(&far, "listen share6 %d 128", port);
    say("second", "%s", yes(second >= 0));
    long third = far_call(&far, "listen any6 %d 128", port);
    say("unshared", "%s", far_outcome(&far, third));
    enum { COUNT = 32 };
    far_ask(&far, "spread %ld %ld %d", first, second, COUNT);
    int connected = 0;
    for (int i = 0; i < COUNT; i++)
        connected += dial6(stream6(0), port) == 0;
    say("connected", "%d", connected);
    long got = far_answer(&far);
    say("spread", "%ld %s", got, far.text);
}

/* A port is free again after its connections, for who says SO_REUSEADDR. */
static void again(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    far_call(&pair.far, "close %d", pair.there);
    far_call(&pair.far, "close %d", pair.listener);
    say("end", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    close(pair.fd);
    long fd = far_call(&pair.far, "listen any6 %d 8", pair.port);
    say("listen", "%s", yes(fd >= 0));
    say("connect", "%s", outcome(dial6(stream6(0), pair.port)));
}

static void accepting(void)
{
    struct pair pair;
    pair_open(&pair);
    long got = far_call(&pair.far, "accept %d 0", pair.listener);
    say("nobody", "%s", far_outcome(&pair.far, got));
    far_call(&pair.far, "poll %d %d 0", pair.listener, POLLIN | POLLOUT | POLLRDHUP);
    say("events_empty", "%s", pair.far.text);
    dial6(stream6(0), pair.port);
    far_call(&pair.far, "poll %d %d 30000", pair.listener, POLLIN | POLLOUT | POLLRDHUP);
    say("events", "%s", pair.far.text);
    got = far_call(&pair.far, "accept %d 30000 %d", pair.listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
    say("accept4", "%s", yes(got >= 0));
    got = far_call(&pair.far, "read %ld 1", got);
    say("nonblocking", "%s", far_outcome(&pair.far, got));
    dial6(stream6(0), pair.port);
    far_call(&pair.far, "poll %d %d 30000", pair.listener, POLLIN);
    got = far_call(&pair.far, "accept %d 30000 12345", pair.listener);
    say("strange_flags", "%s", far_outcome(&pair.far, got));
    got = far_call(&pair.far, "accept %d 0", pair.there);
    say("not_listening", "%s", far_outcome(&pair.far, got));
    got = far_call(&pair.far, "read %d 1", pair.listener);
    say("read_listener", "%s", far_outcome(&pair.far, got));
    got = far_call(&pair.far, "write %d x", pair.listener);
    say("write_listener", "%s", far_outcome(&pair.far, got));
}

/* Who is reset before accept() is still accepted, and then reads the reset. */
static void reset_in_queue(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    far_call(&pair.far, "poll %d %d 30000", pair.listener, POLLIN);
    set_linger_zero(fd);
    close(fd);
    far_call(&pair.far, "wait 500");
    long there = far_call(&pair.far, "accept %d 30000", pair.listener);
    say("accept", "%s", yes(there >= 0));
    long got = far_call(&pair.far, "read %ld 1", there);
    say("read", "%s", far_outcome(&pair.far, got));
}

/* Bytes and end that came before accept() wait. */
static void gone_in_queue(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    send(fd, "bye", 3, MSG_NOSIGNAL);
    close(fd);
    far_call(&pair.far, "wait 300");
    long there = far_call(&pair.far, "accept %d 30000", pair.listener);
    long got = far_call(&pair.far, "read %ld 10", there);
    say("read", "%ld %s", got, pair.far.text);
}

/* This side listens, too: options and states of a listener without a far end. */
static void local(void)
{
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
    int fd = stream6(SOCK_NONBLOCK), value = -1, set = epoll_create1(0);
    socklen_t length = sizeof value;
    say("listen_unbound", "%s", outcome(listen(fd, 1)));
    struct sockaddr_in6 name;
    length = sizeof name;
    getsockname(fd, (struct sockaddr *)&name, &length);
    say("port_given", "%s", yes(ntohs(name.sin6_port) >= 1024));
    length = sizeof value;
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length);
    say("accepts", "%d", value);
    say("accept", "%s", outcome(accept(fd, NULL, NULL)));
    say("connect", "%s", outcome(connect(fd, (struct sockaddr *)&any, sizeof any)));
    say("listen_again", "%s", outcome(listen(fd, 5)));
    struct epoll_event event = { .events = EPOLLIN | EPOLLET };
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    name.sin6_addr = in6addr_loopback;
    int near = stream6(0);
    say("near", "%s", outcome(connect(near, (struct sockaddr *)&name, sizeof name)));
    say("event", "%s", epoll_wait(set, &event, 1, 30000) == 1 ? events(event.events) : "none");
    say("event_again", "%d", epoll_wait(set, &event, 1, 50));
    int there = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    say("close_on_exec", "%d", fcntl(there, F_GETFD));
    say("blocking", "%s", yes(!(fcntl(there, F_GETFL) & O_NONBLOCK)));
    there = accept(fd, (struct sockaddr *)&name, &length);
    say("no_more", "%s", outcome(there));
}

/* A port is free as soon as its socket is closed, and nobody holds it for a moment longer: how often it was not. */
static void given_up(void)
{
    struct sockaddr_in6 name = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
    name.sin6_port = htons(28100);
    int taken = 0, reached = 0;
    for (int turn = 0; turn < 500; turn++) {
        int fd = stream6(0);
        taken += bind(fd, (struct sockaddr *)&name, sizeof name) < 0;
        listen(fd, 1);
        close(fd);
        fd = stream6(0);
        reached += connect(fd, (struct sockaddr *)&name, sizeof name) == 0;
        close(fd);
    }
    say("taken", "%d", taken);
    say("reached", "%d", reached);
}

const struct check listen_checks[] = {
    { "listen.any6", any6 },
    { "listen.any4", any4 },
    { "listen.only6", only6 },
    { "listen.own6", own6 },
    { "listen.own4", own4 },
    { "listen.loop6", loop6 },
    { "listen.loop4", loop4 },
    { "listen.low_port", low_port },
    { "listen.shared", shared },
    { "listen.again", again },
    { "listen.given_up", given_up },
    { "listen.accepting", accepting },
    { "listen.reset_in_queue", reset_in_queue },
    { "listen.gone_in_queue", gone_in_queue },
    { "listen.local", local },
    { NULL, NULL },
};
