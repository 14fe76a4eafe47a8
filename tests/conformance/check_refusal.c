/* Connections that do not come about: refused, unreachable, forbidden. */
#include "conform.h"

#include <sys/epoll.h>

/* A port of the far end on which nothing listens. Not one of those that the kernel gives to who connects: where both ends are one
   computer, a socket that is given the very port that it connects to is connected to itself. */
static uint16_t closed_port(void)
{
    struct far far;
    far_open(&far);
    long fd = -1;
    uint16_t port = 20000 + (uint16_t)(getpid() % 8000);
    while (fd < 0)
        fd = far_call(&far, "listen any6 %u 1", ++port);
    far_call(&far, "close %ld", fd);
    close(far.control);
    return port;
}

static void refused(void)
{
    uint16_t port = closed_port();
    int fd = stream6(0);
    say("connect", "%s", outcome(dial6(fd, port)));
    say("error", "%s", errno_name(so_error(fd)));
    say("events", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 1000)));
    say("again", "%s", outcome(dial6(fd, port)));
    say("read", "%s", outcome(recv(fd, &port, 1, 0)));
    say("write", "%s", outcome(send(fd, "x", 1, MSG_NOSIGNAL)));
    fd = stream4(0);
    say("ipv4", "%s", outcome(dial4(fd, port)));
}

static void refused_later(void)
{
    uint16_t port = closed_port();
    int fd = stream6(SOCK_NONBLOCK);
    say("connect", "%s", outcome(dial6(fd, port)));
    say("events", "%s", events(wait_for(fd, POLLIN | POLLOUT | POLLRDHUP, 30000)));
    say("error", "%s", errno_name(so_error(fd)));
    say("error2", "%s", errno_name(so_error(fd)));
    fd = stream6(SOCK_NONBLOCK);
    dial6(fd, port);
    wait_for(fd, POLLIN | POLLOUT, 30000);
    say("second_connect", "%s", outcome(dial6(fd, port)));
    fd = stream6(SOCK_NONBLOCK);
    dial6(fd, port);
    wait_for(fd, POLLIN | POLLOUT, 30000);
    say("read", "%s", outcome(recv(fd, &port, 1, 0)));
    say("read2", "%s", outcome(recv(fd, &port, 1, 0)));
}

static void refused_epoll(void)
{
    uint16_t port = closed_port();
    int set = epoll_create1(0), fd = stream6(SOCK_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    epoll_wait(set, &event, 1, 0);
    dial6(fd, port);
    event.events = 0;
    epoll_wait(set, &event, 1, 30000);
    say("events", "%s", events(event.events));
    say("error", "%s", errno_name(so_error(fd)));
}

/* Both families, blocking and not; the address is given as text. */
static void unreachable(const char *v6, const char *v4)
{
    struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
    struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(80) };
    inet_pton(AF_INET6, v6, &to6.sin6_addr);
    say("ipv6", "%s", outcome(connect(stream6(0), (struct sockaddr *)&to6, sizeof to6)));
    int fd = stream6(SOCK_NONBLOCK);
    int error = connect(fd, (struct sockaddr *)&to6, sizeof to6) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        wait_for(fd, POLLOUT, 60000);
        error = so_error(fd);
    }
    say("ipv6_later", "%s", errno_name(error));
    if (!v4)
        return;
    inet_pton(AF_INET, v4, &to4.sin_addr);
    say("ipv4", "%s", outcome(connect(stream4(0), (struct sockaddr *)&to4, sizeof to4)));
}

static void outside(void) { unreachable("2001:db8::1", "192.0.2.1"); }
/* An address of the network that nobody has. */
static void nobody(void) { unreachable("fd70:dead:beef::1", NULL); }
/* An IPv4 address that stands for nobody. */
static void no_alias(void) { unreachable("fd70:dead:beef::2", "198.19.255.254"); }

static void strange(void)
{
    struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
    say("short", "%s", outcome(connect(stream6(0), (struct sockaddr *)&to, 4)));
    struct sockaddr_in wrong = { .sin_family = AF_INET, .sin_port = htons(80) };
    wrong.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    say("family", "%s", outcome(connect(stream6(0), (struct sockaddr *)&wrong, sizeof wrong)));
    inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
    say("multicast", "%s", outcome(connect(stream6(SOCK_NONBLOCK), (struct sockaddr *)&to, sizeof to)));
    inet_pton(AF_INET, "255.255.255.255", &wrong.sin_addr);
    say("broadcast", "%s", outcome(connect(stream4(0), (struct sockaddr *)&wrong, sizeof wrong)));
    say("bad_descriptor", "%s", outcome(connect(-1, (struct sockaddr *)&wrong, sizeof wrong)));
    int ends[2];
    if (pipe(ends) == 0)
        say("not_a_socket", "%s", outcome(connect(ends[0], (struct sockaddr *)&wrong, sizeof wrong)));
    say("fault", "%s", outcome(connect(stream6(0), (struct sockaddr *)8, sizeof to)));
    struct sockaddr_in6 none = { .sin6_family = AF_INET6, .sin6_port = 0 };
    none.sin6_addr = in6addr_loopback;
    say("loopback_port_0", "%s", outcome(connect(stream6(0), (struct sockaddr *)&none, sizeof none)));
}

static void loopback(void)
{
    struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(1) };
    struct sockaddr_in to4 = { .sin_family = AF_INET, .sin_port = htons(1) };
    to4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    say("ipv6", "%s", outcome(connect(stream6(0), (struct sockaddr *)&to, sizeof to)));
    say("ipv4", "%s", outcome(connect(stream4(0), (struct sockaddr *)&to4, sizeof to4)));
}

const struct check refusal_checks[] = {
    { "refusal.blocking", refused },
    { "refusal.nonblocking", refused_later },
    { "refusal.epoll", refused_epoll },
    { "refusal.outside", outside },
    { "refusal.nobody", nobody },
    { "refusal.no_alias", no_alias },
    { "refusal.strange", strange },
    { "refusal.loopback", loopback },
    { NULL, NULL },
};
