/* The server of the races: echoes everything, from one thread and one epoll set, until it is killed.
 *
 * Usage: echo PORT. Prints "listening" and, on SIGTERM, nothing left to do: descriptors are counted from outside.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, ROOM = 65536, BACKLOG = 1024 };

/* What a client has sent and not got back yet. */
struct client {
    int fd;
    size_t from, to;
    unsigned char bytes[ROOM];
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listening(int port) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (fd < 0) fail("socket");
    if (bind(fd, (struct sockaddr *)&any, sizeof any) < 0) fail("bind");
    if (listen(fd, BACKLOG) < 0) fail("listen");
    return fd;
}

static void watch(int set, int operation, struct client *client, unsigned events) {
    struct epoll_event wanted = {.events = events, .data.ptr = client};
    if (epoll_ctl(set, operation, client->fd, &wanted) < 0) fail("epoll_ctl");
}

static void forget(struct client *client) {
    close(client->fd);
    free(client);
}

/* Moves bytes on; 0 when the client has gone. */
static int step(int set, struct client *client) {
    for (;;) {
        if (client->from < client->to) {
            ssize_t sent = send(client->fd, client->bytes + client->from, client->to - client->from, MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) {
                watch(set, EPOLL_CTL_MOD, client, EPOLLOUT);
                return 1;
            }
            if (sent <= 0) return 0;
            client->from += sent;
            continue;
        }
        ssize_t got = recv(client->fd, client->bytes, ROOM, 0);
        if (got < 0 && errno == EAGAIN) {
            watch(set, EPOLL_CTL_MOD, client, EPOLLIN);
            return 1;
        }
        if (got <= 0) return 0;
        client->from = 0;
        client->to = got;
    }
}

static void accept_all(int set, int door) {
    for (;;) {
        int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0) fail("accept4");
        struct client *client = malloc(sizeof *client);
        if (!client) fail("malloc");
        client->fd = fd;
        client->from = client->to = 0;
        watch(set, EPOLL_CTL_ADD, client, EPOLLIN);
    }
}

int main(int count, char **words) {
    int port = count == 2 ? atoi(words[1]) : 0;
    if (port <= 0 || port > 65535) {
        fprintf(stderr, "usage: echo PORT\n");
        return 2;
    }
    int door = listening(port), set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event at_door = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, door, &at_door) < 0) fail("epoll");
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(set, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (!client) accept_all(set, door);
            else if (!step(set, client)) forget(client);
        }
    }
}
