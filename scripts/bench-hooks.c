/* What single socket calls cost a program. One thread, so that nothing but the calls is timed.
 *
 * Usage: bench-hooks ROUNDS             calls within this program, over loopback
 *        bench-hooks ROUNDS HOST PORT   connect, and 64 bytes there and back, to an echo server elsewhere
 *
 * Prints one JSON object: the median of each call in nanoseconds.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000, BLOCK = 64 };

static long times[MOST];

static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000L + at.tv_nsec;
}

static void must(int good, const char *what) {
    if (good) return;
    perror(what);
    exit(1);
}

static int by_size(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, int rounds, int last) {
    qsort(times, rounds, sizeof *times, by_size);
    printf("\"%s\":%ld%s", name, times[rounds / 2], last ? "}\n" : ",");
}

#define TIMED(round, call)                                                                                             \
    do {                                                                                                               \
        long begun = now();                                                                                            \
        must((call), #call);                                                                                           \
        times[round] = now() - begun;                                                                                  \
    } while (0)

static int connected(const struct sockaddr_in *to) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    must(fd >= 0, "socket");
    must(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void local(int rounds) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof here;
    int door = socket(AF_INET, SOCK_STREAM, 0), near, far;
    char block[BLOCK] = {0};
    must(door >= 0 && bind(door, (struct sockaddr *)&here, sizeof here) == 0 && listen(door, 16) == 0, "listen");
    must(getsockname(door, (struct sockaddr *)&here, &length) == 0, "getsockname");

    printf("{");
    for (int i = 0; i < rounds; i++) TIMED(i, close(socket(AF_INET, SOCK_STREAM, 0)) == 0);
    report("socket and close", rounds, 0);
    static long accepts[MOST];
    for (int i = 0; i < rounds; i++) {
        must((near = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket");
        TIMED(i, connect(near, (struct sockaddr *)&here, sizeof here) == 0);
        long begun = now();
        must((far = accept(door, NULL, NULL)) >= 0, "accept");
        accepts[i] = now() - begun;
        close(near);
        close(far);
    }
    report("connect", rounds, 0);
    for (int i = 0; i < rounds; i++) times[i] = accepts[i];
    report("accept", rounds, 0);
    near = connected(&here);
    must((far = accept(door, NULL, NULL)) >= 0, "accept");
    for (int i = 0; i < rounds; i++) {
        TIMED(i, write(near, block, BLOCK) == BLOCK);
        must(recv(far, block, BLOCK, MSG_WAITALL) == BLOCK, "recv");
    }
    report("write", rounds, 0);
    for (int i = 0; i < rounds; i++) {
        struct pollfd wanted = {.fd = far, .events = POLLIN};
        must(write(near, block, BLOCK) == BLOCK && poll(&wanted, 1, 10000) == 1, "poll");
        TIMED(i, read(far, block, BLOCK) == BLOCK);
    }
    report("read", rounds, 0);
    struct pollfd both[2] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN | POLLOUT}};
    for (int i = 0; i < rounds; i++) TIMED(i, poll(both, 2, 0) == 1);
    report("poll", rounds, 1);
}

static void away(int rounds, const char *host, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    char block[BLOCK] = {0};
    must(inet_pton(AF_INET, host, &to.sin_addr) == 1, "HOST");
    printf("{");
    for (int i = 0; i < rounds; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        must(fd >= 0, "socket");
        TIMED(i, connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
        close(fd);
    }
    report("connect", rounds, 0);
    int fd = connected(&to);
    for (int i = 0; i < rounds; i++)
        TIMED(i, write(fd, block, BLOCK) == BLOCK && recv(fd, block, BLOCK, MSG_WAITALL) == BLOCK);
    report("round trip", rounds, 1);
}

int main(int count, char **words) {
    int rounds = count > 1 ? atoi(words[1]) : 0;
    if (rounds < 1 || rounds > MOST || (count != 2 && count != 4)) {
        fprintf(stderr, "usage: bench-hooks ROUNDS [HOST PORT]\n");
        return 2;
    }
    if (count == 2) local(rounds);
    else away(rounds, words[2], atoi(words[3]));
    return 0;
}
