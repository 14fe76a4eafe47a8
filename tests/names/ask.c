/* Looks each name up and says what came of it: whether there is a name at all, and whether it is this computer. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char *kind(const struct addrinfo *found) {
    char text[INET6_ADDRSTRLEN];
    if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST)) return "odd";
    return !strcmp(text, "::1") || !strncmp(text, "127.", 4) ? "loopback" : text[0] ? "elsewhere" : "odd";
}

int main(int count, char **names) {
    for (int at = 1; at < count; at++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
        int code = getaddrinfo(names[at], "80", &hints, &found);
        int missing = code == EAI_NONAME || code == -5; /* EAI_NODATA, which glibc hides */
        printf("%s: %s\n", names[at], !code ? kind(found) : missing ? "not found" : gai_strerror(code));
    }
    return 0;
}
