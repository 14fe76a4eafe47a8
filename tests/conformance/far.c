/* The far end: one process per control connection, which does with its sockets what the lines of the other end say. */
#include "conform.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* Words of one line, and bytes that a verb reads at once. */
enum { WORDS = 8, MOST = 400 };

static int control;

static void answer(long result, const char *text)
{
    char line[600];
    int length = snprintf(line, sizeof line, "%ld %d %s\n", result, result < 0 ? errno : 0, text);
    if (send(control, line, (size_t)length, MSG_NOSIGNAL) != length)
        exit(1);
}

static int number(const char *word)
{
    return word ? atoi(word) : 0;
}

/* Kinds end in the family: any6 any4 only6 own6 own4 loop6 loop4 share6 (SO_REUSEPORT). */
static int listener(const char *kind, int port, int backlog)
{
    bool v4 = kind[strlen(kind) - 1] == '4';
    int on = 1, off = 0, family = v4 ? AF_INET : AF_INET6;
    struct sockaddr_storage address = { .ss_family = (sa_family_t)family };
    if (!strncmp(kind, "own", 3) && !own_address(family, &address))
        return -1;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    struct sockaddr_in *in4 = (struct sockaddr_in *)&address;
    if (!strncmp(kind, "loop", 4)) {
        if (v4)
            in4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        else
            v6->sin6_addr = in6addr_loopback;
    }
    v6->sin6_port = htons((uint16_t)port);
    int fd = socket(family, SOCK_STREAM, 0);
    if (!v4)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, strcmp(kind, "only6") ? &off : &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!strcmp(kind, "share6"))
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, v4 ? sizeof *in4 : sizeof *v6) < 0 || listen(fd, backlog) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static void do_listen(char **word)
{
    int fd = listener(word[1], number(word[2]), number(word[3]));
    struct sockaddr_in6 bound = { 0 };
    socklen_t length = sizeof bound;
    char text[16] = "";
    if (fd >= 0 && getsockname(fd, (struct sockaddr *)&bound, &length) == 0)
        snprintf(text, sizeof text, "%d", ntohs(bound.sin6_port));
    answer(fd, text);
}

static void put_name(char *out, size_t room, const struct sockaddr_storage *address)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    uint16_t port = ((const struct sockaddr_in *)address)->sin_port;
    if (address->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, ip, sizeof ip);
    else
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, ip, sizeof ip);
    snprintf(out, room, "%s %d", ip, ntohs(port));
}

/* accept FD [MILLISECONDS [accept4 flags]]: waits so long at most, half a minute without a number. */
static void do_accept(char **word)
{
    int fd = number(word[1]), limit = word[2] ? number(word[2]) : 30000;
    struct sockaddr_storage from = { 0 };
    socklen_t length = sizeof from;
    char text[80] = "";
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    wait_for(fd, POLLIN, limit);
    int got = word[2] && word[3] ? accept4(fd, (struct sockaddr *)&from, &length, number(word[3]))
                                 : accept(fd, (struct sockaddr *)&from, &length);
    int error = errno;
    fcntl(fd, F_SETFL, flags);
    if (got >= 0) {
        set_time_limit(got, PATIENCE);
        put_name(text, sizeof text, &from);
    }
    errno = error;
    answer(got, text);
}

/* read FD COUNT [FLAGS]: until so many bytes are there, or the end. */
static void do_read(char **word)
{
    char bytes[MOST + 1] = "";
    int wanted = number(word[2]);
    ssize_t done = 0;
    while (done < wanted && done < MOST) {
        ssize_t got = recv(number(word[1]), bytes + done, (size_t)(wanted - done), number(word[3]));
        if (got < 0 && !done)
            done = -1;
        if (got <= 0)
            break;
        done += got;
        if (word[3])
            break;
    }
    if (done >= 0)
        bytes[done] = 0;
    for (char *c = bytes; *c; c++)
        if (*c == '\n')
            *c = '/';
    answer(done, bytes);
}

static void do_drain(char **word)
{
    long got = drain(number(word[1]), (uint64_t)number(word[4]), (uint64_t)number(word[2]), (unsigned)number(word[3]));
    answer(got, "");
}

/* both FD COUNT SEED-IN SEED-OUT: reads and writes so many bytes at once. */
static void do_both(char **word)
{
    int fd = number(word[1]);
    uint64_t count = (uint64_t)number(word[2]);
    pid_t writer = fork();
    if (writer == 0)
        _exit(fill(fd, 0, count, (unsigned)number(word[4])) == (long)count ? 0 : 1);
    long got = drain(fd, 0, count, (unsigned)number(word[3]));
    int status = 1;
    waitpid(writer, &status, 0);
    answer(got, status ? "writing failed" : "written");
}

/* gather LISTENER COUNT: so many connections at once; each sends eight bytes and gets them back. */
static void do_gather(char **word)
{
    enum { MOST_AT_ONCE = 512 };
    int wanted = number(word[2]), count = 0, echoed = 0, fds[MOST_AT_ONCE];
    while (count < wanted && count < MOST_AT_ONCE) {
        if (!wait_for(number(word[1]), POLLIN, 30000))
            break;
        int fd = accept(number(word[1]), NULL, NULL);
        if (fd < 0)
            break;
        set_time_limit(fd, PATIENCE);
        fds[count++] = fd;
    }
    for (int i = 0; i < count; i++) {
        char bytes[8];
        if (recv(fds[i], bytes, 8, MSG_WAITALL) == 8 && send(fds[i], bytes, 8, MSG_NOSIGNAL) == 8)
            echoed++;
        close(fds[i]);
    }
    answer(echoed, "");
}

/* spread LISTENER LISTENER COUNT: how many connections each of two sockets of one port gets. */
static void do_spread(char **word)
{
    struct pollfd polled[2] = { { number(word[1]), POLLIN, 0 }, { number(word[2]), POLLIN, 0 } };
    int counts[2] = { 0, 0 }, left = number(word[3]);
    while (left > 0 && poll(polled, 2, 30000) > 0)
        for (int i = 0; i < 2; i++)
            if (polled[i].revents) {
                close(accept(polled[i].fd, NULL, NULL));
                counts[i]++;
                left--;
            }
    answer(counts[0] + counts[1], counts[0] && counts[1] ? "both" : "one");
}

/* writes FD: writes until that fails; the answer is why. */
static void do_writes(char **word)
{
    ssize_t sent;
    char bytes[1000] = "";
    do {
        sent = send(number(word[1]), bytes, sizeof bytes, MSG_NOSIGNAL);
        poll(NULL, 0, 5);
    } while (sent > 0);
    answer(-1, "");
}

static void do_names(char **word)
{
    struct sockaddr_storage name = { 0 };
    socklen_t length = sizeof name;
    char text[200] = "", peer[90];
    int result = getsockname(number(word[1]), (struct sockaddr *)&name, &length);
    put_name(text, sizeof text, &name);
    length = sizeof name;
    result |= getpeername(number(word[1]), (struct sockaddr *)&name, &length);
    put_name(peer, sizeof peer, &name);
    strcat(strcat(text, " "), peer);
    answer(result, text);
}

static void do_fdopt(char **word)
{
    int fd = number(word[1]), value = 0;
    if (!strcmp(word[0], "linger")) {
        set_linger_zero(fd);
    } else if (!strcmp(word[0], "unread")) {
        value = ioctl(fd, FIONREAD, &value) < 0 ? -1 : value;
    } else if (!strcmp(word[0], "atmark")) {
        value = ioctl(fd, SIOCATMARK, &value) < 0 ? -1 : value;
    } else if (!strcmp(word[0], "inline")) {
        int on = 1;
        value = setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
    } else if (!strcmp(word[0], "error")) {
        answer(0, errno_name(so_error(fd)));
        return;
    } else {
        int size = number(word[2]);
        value = setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    answer(value, "");
}

static void do_poll(char **word)
{
    unsigned got = wait_for(number(word[1]), (short)number(word[2]), number(word[3]));
    answer((long)got, events(got));
}

static void obey(char **word)
{
    const char *verb = word[0];
    if (!strcmp(verb, "listen")) do_listen(word);
    else if (!strcmp(verb, "accept")) do_accept(word);
    else if (!strcmp(verb, "read")) do_read(word);
    else if (!strcmp(verb, "write"))
        answer(send(number(word[1]), word[2], strlen(word[2]), MSG_NOSIGNAL | number(word[3])), "");
    else if (!strcmp(verb, "fill"))
        answer(fill(number(word[1]), 0, (uint64_t)number(word[2]), (unsigned)number(word[3])), "");
    else if (!strcmp(verb, "drain")) do_drain(word);
    else if (!strcmp(verb, "both")) do_both(word);
    else if (!strcmp(verb, "gather")) do_gather(word);
    else if (!strcmp(verb, "spread")) do_spread(word);
    else if (!strcmp(verb, "writes")) do_writes(word);
    else if (!strcmp(verb, "names")) do_names(word);
    else if (!strcmp(verb, "poll")) do_poll(word);
    else if (!strcmp(verb, "shutdown")) answer(shutdown(number(word[1]), number(word[2])), "");
    else if (!strcmp(verb, "close")) answer(close(number(word[1])), "");
    else if (!strcmp(verb, "wait")) answer(poll(NULL, 0, number(word[1])), "");
    else if (!strcmp(verb, "die")) raise(SIGKILL);
    else do_fdopt(word);
}

static void serve_one(int fd)
{
    control = fd;
    set_time_limit(fd, 2 * PATIENCE);
    FILE *lines = fdopen(fd, "r");
    char line[512];
    while (lines && fgets(line, sizeof line, lines)) {
        char *word[WORDS + 1] = { 0 }, *place = NULL;
        int count = 0;
        for (char *w = strtok_r(line, " \n", &place); w && count < WORDS; w = strtok_r(NULL, " \n", &place))
            word[count++] = w;
        if (count)
            obey(word);
    }
    exit(0);
}

int serve_main(uint16_t port)
{
    signal(SIGCHLD, SIG_IGN);
    int fd = listener("any6", port, 512);
    if (fd < 0) {
        perror("listening");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int one = accept(fd, NULL, NULL);
        if (one < 0)
            continue;
        if (fork() == 0) {
            signal(SIGCHLD, SIG_DFL);
            close(fd);
            serve_one(one);
        }
        close(one);
    }
}
