/* What every check shares; see conform.h. */
#include "conform.h"

#include <ifaddrs.h>

struct target target;
const char *check_name = "";

void say(const char *name, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("%s%s%s\t", check_name, *name ? "." : "", name);
    vprintf(format, list);
    putchar('\n');
    fflush(stdout);
    va_end(list);
}

const char *errno_name(int error)
{
    const char *name = error ? strerrorname_np(error) : "0";
    return name ? name : "?";
}

const char *outcome(long result)
{
    static char text[8][32];
    static unsigned next;
    char *out = text[next++ % 8];
    if (result < 0)
        return errno_name(errno);
    snprintf(out, sizeof text[0], "%ld", result);
    return out;
}

const char *events(unsigned bits)
{
    static const struct { unsigned bit; const char *name; } names[] = {
        { POLLIN, "IN" }, { POLLPRI, "PRI" }, { POLLOUT, "OUT" }, { POLLERR, "ERR" }, { POLLHUP, "HUP" },
        { POLLRDHUP, "RDHUP" }, { POLLNVAL, "NVAL" },
    };
    static char text[4][64];
    static unsigned next;
    char *out = text[next++ % 4];
    *out = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (bits & names[i].bit) {
            if (*out)
                strcat(out, "+");
            strcat(out, names[i].name);
        }
    return *out ? out : "none";
}

const char *yes(bool value)
{
    return value ? "yes" : "no";
}

void broken(const char *what)
{
    int error = errno;
    say("broken", "%s: %s (process %d)", what, errno_name(error), getpid());
    exit(1);
}

struct sockaddr_in6 at6(uint16_t port)
{
    struct sockaddr_in6 address = target.v6;
    address.sin6_port = htons(port);
    return address;
}

struct sockaddr_in at4(uint16_t port)
{
    struct sockaddr_in address = target.v4;
    address.sin_port = htons(port);
    return address;
}

int stream6(int flags)
{
    int fd = socket(AF_INET6, SOCK_STREAM | flags, 0);
    if (fd < 0)
        broken("socket");
    return fd;
}

int stream4(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0)
        broken("socket");
    return fd;
}

int dial6(int fd, uint16_t port)
{
    struct sockaddr_in6 address = at6(port);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

int dial4(int fd, uint16_t port)
{
    struct sockaddr_in address = at4(port);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

void set_time_limit(int fd, int seconds)
{
    struct timeval limit = { .tv_sec = seconds };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

unsigned wait_for(int fd, short wanted, int milliseconds)
{
    struct pollfd polled = { .fd = fd, .events = wanted };
    if (poll(&polled, 1, milliseconds) <= 0)
        return 0;
    // The kernel sets an error a moment before the state that belongs to it.
    if (polled.revents & POLLERR)
        poll(NULL, 0, 20);
    poll(&polled, 1, 0);
    return (unsigned)(unsigned short)polled.revents;
}

int so_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return errno;
    return error;
}

void set_linger_zero(int fd)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

void far_open(struct far *far)
{
    far->control = stream6(SOCK_CLOEXEC);
    set_time_limit(far->control, PATIENCE);
    if (dial6(far->control, ntohs(target.v6.sin6_port)) < 0)
        broken("connecting to the far end");
}

void far_ask(struct far *far, const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    line[length++] = '\n';
    if (send(far->control, line, (size_t)length, MSG_NOSIGNAL) != length)
        broken("asking the far end");
}

long far_answer(struct far *far)
{
    char line[600];
    size_t length = 0;
    while (length < sizeof line - 1) {
        ssize_t got = recv(far->control, line + length, 1, 0);
        if (got <= 0) {
            errno = got ? errno : ENODATA;
            broken("hearing from the far end");
        }
        if (line[length] == '\n')
            break;
        length++;
    }
    line[length] = 0;
    long result = 0;
    int text = 0;
    if (sscanf(line, "%ld %d %n", &result, &far->error, &text) < 2)
        broken("understanding the far end");
    snprintf(far->text, sizeof far->text, "%s", line + text);
    return result;
}

long far_call(struct far *far, const char *format, ...)
{
    char line[512];
    va_list list;
    va_start(list, format);
    vsnprintf(line, sizeof line, format, list);
    va_end(list);
    far_ask(far, "%s", line);
    return far_answer(far);
}

const char *far_outcome(struct far *far, long result)
{
    errno = far->error;
    return outcome(result);
}

void pair_open(struct pair *pair)
{
    far_open(&pair->far);
    pair->listener = (int)far_call(&pair->far, "listen any6 0 64");
    if (pair->listener < 0)
        broken("a listener at the far end");
    pair->port = (uint16_t)atoi(pair->far.text);
    pair->fd = pair_again(pair, &pair->there);
}

int pair_again(struct pair *pair, int *there)
{
    int fd = stream6(0);
    if (dial6(fd, pair->port) < 0)
        broken("connecting");
    set_time_limit(fd, PATIENCE);
    *there = (int)far_call(&pair->far, "accept %d", pair->listener);
    if (*there < 0)
        broken("accept at the far end");
    return fd;
}

bool own_address(int family, struct sockaddr_storage *out)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) < 0)
        return false;
    bool found = false;
    for (struct ifaddrs *one = list; one && !found; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != family)
            continue;
        if (family == AF_INET6) {
            struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)one->ifa_addr;
            if (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
                continue;
            memcpy(out, v6, sizeof *v6);
        } else {
            struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)one->ifa_addr;
            if (ntohl(v4->sin_addr.s_addr) >> 24 == 127)
                continue;
            memcpy(out, v4, sizeof *v4);
        }
        found = true;
    }
    freeifaddrs(list);
    return found;
}

uint8_t pattern(uint64_t place, unsigned seed)
{
    uint64_t mixed = (place / 8 + 1 + seed) * 0x9e3779b97f4a7c15u;
    return (uint8_t)(mixed >> (8 * (place % 8)));
}

long fill(int fd, uint64_t from, uint64_t count, unsigned seed)
{
    static uint8_t bytes[65536];
    uint64_t done = 0;
    while (done < count) {
        size_t size = count - done < sizeof bytes ? (size_t)(count - done) : sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = pattern(from + done + i, seed);
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0)
            return done ? (long)done : -1;
        done += (uint64_t)sent;
    }
    return (long)done;
}

long drain(int fd, uint64_t from, uint64_t count, unsigned seed)
{
    static uint8_t bytes[65536];
    uint64_t done = 0;
    while (!count || done < count) {
        size_t size = count && count - done < sizeof bytes ? (size_t)(count - done) : sizeof bytes;
        ssize_t got = recv(fd, bytes, size, 0);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        for (ssize_t i = 0; i < got; i++)
            if (bytes[i] != pattern(from + done + (uint64_t)i, seed))
                return -2;
        done += (uint64_t)got;
    }
    return (long)done;
}
