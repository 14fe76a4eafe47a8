// In C, for any C library: a server that sends back reversed what it got until the client was done, and a client of it.
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) { perror(what); exit(1); }

static char *take(int from, size_t *length) {
    size_t room = 1 << 16;
    char *data = malloc(room);
    *length = 0;
    for (;;) {
        ssize_t got = read(from, data + *length, room - *length);
        if (got < 0) die("read");
        if (got == 0) return data;
        *length += (size_t)got;
        if (*length == room) data = realloc(data, room *= 2);
    }
}

static void give(int to, const char *data, size_t length) {
    while (length > 0) {
        ssize_t done = write(to, data, length);
        if (done < 0) die("write");
        data += done, length -= (size_t)done;
    }
}

static void reverse(char *data, size_t length) {
    for (size_t i = 0; i < length / 2; i++) {
        char byte = data[i];
        data[i] = data[length - 1 - i], data[length - 1 - i] = byte;
    }
}

static int serve(const char *port) {
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_family = AF_INET6, .ai_socktype = SOCK_STREAM}, *found;
    int one = 1, error = getaddrinfo(NULL, port, &hints, &found);
    if (error) return fprintf(stderr, "getaddrinfo: %s\n", gai_strerror(error)), 1;
    int listener = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, found->ai_addr, found->ai_addrlen) || listen(listener, 16)) die("bind, listen");
    puts("listening"), fflush(stdout);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) die("accept");
        if (fork() == 0) {
            size_t length;
            char *data = take(client, &length);
            reverse(data, length);
            give(client, data, length);
            exit(0);
        }
        close(client);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
}

static int ask(const char *name, const char *port, int family) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(name, port, &hints, &found);
    if (error) return fprintf(stderr, "getaddrinfo: %s\n", gai_strerror(error)), 1;
    int server = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    if (server < 0) die("socket");
    if (connect(server, found->ai_addr, found->ai_addrlen)) die("connect");
    size_t asked, length;
    char *data = take(0, &asked);
    if (fork() == 0) {
        give(server, data, asked);
        shutdown(server, SHUT_WR);
        _exit(0);
    }
    data = take(server, &length);
    give(1, data, length);
    return 0;
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "server")) return serve(words[2]);
    if (count == 4) return ask(words[2], words[3], !strcmp(words[1], "4") ? AF_INET : AF_INET6);
    return 2;
}
