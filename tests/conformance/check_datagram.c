/* Datagrams that are no questions for DNS: refused at once, with the error of a machine that has no way. */
#include "conform.h"

enum { PORT = 4433 };

static void to(const char *name, const char *address, int port)
{
    char line[64];
    bool v4 = !strchr(address, ':');
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    struct sockaddr_in in4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    inet_pton(AF_INET6, address, &v6.sin6_addr);
    inet_pton(AF_INET, address, &in4.sin_addr);
    struct sockaddr *to = v4 ? (struct sockaddr *)&in4 : (struct sockaddr *)&v6;
    socklen_t length = v4 ? sizeof in4 : sizeof v6;
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
    snprintf(line, sizeof line, "%s.sendto", name);
    say(line, "%s", outcome(sendto(fd, "x", 1, 0, to, length)));
    // Programs choose among addresses by this, and send nothing.
    snprintf(line, sizeof line, "%s.connect", name);
    say(line, "%s", outcome(connect(fd, to, length)));
    snprintf(line, sizeof line, "%s.send", name);
    say(line, "%s", outcome(send(fd, "x", 1, 0)));
}

static void others(void)
{
    to("nobody", "fd70:beef::1", PORT);
    to("outside", "3fff::1", PORT);
    to("outside4", "203.0.113.1", PORT);
    to("web", "3fff::1", 443);
}

/* Loopback is the program's own, as for TCP. */
static void loopback(void)
{
    struct sockaddr_in6 name = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
    socklen_t length = sizeof name;
    int there = socket(AF_INET6, SOCK_DGRAM, 0), fd = socket(AF_INET6, SOCK_DGRAM, 0);
    say("bind", "%s", outcome(bind(there, (struct sockaddr *)&name, sizeof name)));
    getsockname(there, (struct sockaddr *)&name, &length);
    say("send", "%s", outcome(sendto(fd, "hello", 5, 0, (struct sockaddr *)&name, sizeof name)));
    char bytes[8] = "";
    set_time_limit(there, PATIENCE);
    say("read", "%zd %s", recv(there, bytes, sizeof bytes, 0), bytes);
}

const struct check datagram_checks[] = {
    { "datagram.others", others },
    { "datagram.loopback", loopback },
    { NULL, NULL },
};
