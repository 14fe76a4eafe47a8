/* A library that is loaded later; what it does it does by whatever functions the loader found for it. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int go(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[256] = "nothing";
    if (getaddrinfo("web.phantom", "80", &hints, &found))
        return puts("no such name") > 0;
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen) == 0 && write(fd, "GET / HTTP/1.0\r\n\r\n", 18) == 18)
        for (ssize_t at = 0, got; (got = read(fd, text + at, sizeof text - 1 - at)) > 0; at += got)
            text[at + got] = 0;
    const char *body = strstr(text, "\r\n\r\n");
    puts(body ? body + 4 : text);
    close(fd);
    freeaddrinfo(found);
    return 0;
}
