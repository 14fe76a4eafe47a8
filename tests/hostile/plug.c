/* What the hostile program loads beside the functions that a preloaded library has put in its place. */
#include <netdb.h>
#include <sys/socket.h>

int datagrams(void) {
    return socket(AF_INET, SOCK_DGRAM, 0);
}

int look(const char *name) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    return getaddrinfo(name, "80", &hints, &found);
}
