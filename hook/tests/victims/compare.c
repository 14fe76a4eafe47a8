/* Prints what the resolver functions say to odd and to ordinary questions, one line each: the same with and without the hook. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static char long_name[400];

static const char *shown(const char *text) {
    return text ? text : "NULL";
}

static void look_up(const char *node, const char *service, int family, int type, int protocol, int flags) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = type, .ai_protocol = protocol, .ai_flags = flags};
    struct addrinfo *list = (void *)1;
    int code = getaddrinfo(node, service, &hints, &list);
    printf("getaddrinfo %.40s %s family %d type %d protocol %d flags %#x: %s", shown(node), shown(service), family, type,
           protocol, flags, code ? gai_strerror(code) : "");
    if (code) {
        printf("%s\n", list == (void *)1 ? "" : " list changed");
        return;
    }
    for (struct addrinfo *at = list; at; at = at->ai_next) {
        char text[INET6_ADDRSTRLEN] = "?";
        int port = 0, scope = 0;
        if (at->ai_family == AF_INET) {
            struct sockaddr_in *in = (void *)at->ai_addr;
            inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
            port = ntohs(in->sin_port);
        } else {
            struct sockaddr_in6 *in = (void *)at->ai_addr;
            inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
            port = ntohs(in->sin6_port);
            scope = in->sin6_scope_id;
        }
        printf(" [%s]:%d%%%d %d %d/%d #%d,%x %s", text, port, scope, at->ai_addr->sa_family, at->ai_socktype, at->ai_protocol,
               at->ai_addrlen, at->ai_flags, shown(at->ai_canonname));
    }
    printf("\n");
    freeaddrinfo(list);
}

static void look_up_all(void) {
    const char *nodes[] = {NULL, "", "*", "127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "256.1.1.1",
        "1.2.3.4.5", "08.1.1.1", "1.2.3.", "::1", "::", "::ffff:1.2.3.4", "fd70::1", "fe80::1%lo", "fe80::1%1",
        "fe80::1%7", ":::", "web.phantom", "no.phantom",
        "with space", "-", long_name, "\303\274.phantom"};
    int families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX, 99};
    int flags[] = {0, AI_PASSIVE, AI_CANONNAME, AI_NUMERICHOST, AI_NUMERICHOST | AI_CANONNAME, AI_V4MAPPED,
        AI_V4MAPPED | AI_ALL, AI_ALL, AI_PASSIVE | AI_NUMERICHOST, 0x4000};
    for (size_t n = 0; n < COUNT(nodes); n++)
        for (size_t f = 0; f < COUNT(families); f++)
            for (size_t g = 0; g < COUNT(flags); g++)
                look_up(nodes[n], "80", families[f], SOCK_STREAM, 0, flags[g]);
    look_up(NULL, NULL, AF_UNSPEC, 0, 0, 0);
    look_up("127.0.0.1", NULL, AF_UNSPEC, 0, 0, 0);
}

static void services(void) {
    const char *names[] = {NULL, "", "*", "80", "http", "nosuch", "65535", "080", "domain", "www", "ntp", "80x"};
    int types[] = {0, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, 77};
    int protocols[] = {0, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, 77};
    int flags[] = {0, AI_NUMERICSERV, AI_PASSIVE};
    for (size_t n = 0; n < COUNT(names); n++)
        for (size_t t = 0; t < COUNT(types); t++)
            for (size_t p = 0; p < COUNT(protocols); p++)
                for (size_t f = 0; f < COUNT(flags); f++) {
                    look_up("127.0.0.1", names[n], AF_UNSPEC, types[t], protocols[p], flags[f]);
                    look_up(NULL, names[n], AF_INET6, types[t], protocols[p], flags[f]);
                }
}

static void print_name(struct sockaddr *at, socklen_t length, socklen_t host_size, socklen_t service_size, int flags) {
    char host[300] = "unset", service[300] = "unset";
    int code = getnameinfo(at, length, host_size ? host : NULL, host_size, service_size ? service : NULL, service_size, flags);
    printf("getnameinfo family %d length %d sizes %d %d flags %#x: %s %s %s\n", at->sa_family, length, host_size, service_size,
           flags, code ? gai_strerror(code) : "", code ? "" : host, code ? "" : service);
}

static void names(void) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(123)};
    const char *fours[] = {"127.0.0.1", "198.18.0.1"}, *sixes[] = {"::1", "fd70::1"};
    int flags[] = {0, NI_NUMERICHOST, NI_NUMERICSERV, NI_NUMERICHOST | NI_NUMERICSERV, NI_NAMEREQD, NI_DGRAM, 0x10000};
    socklen_t sizes[] = {300, 12, 5, 0};
    for (size_t f = 0; f < COUNT(flags); f++)
        for (size_t a = 0; a < 2; a++)
            for (size_t h = 0; h < COUNT(sizes); h++)
                for (size_t s = 0; s < COUNT(sizes); s++) {
                    inet_pton(AF_INET, fours[a], &four.sin_addr);
                    inet_pton(AF_INET6, sixes[a], &six.sin6_addr);
                    print_name((void *)&four, sizeof four, sizes[h], sizes[s], flags[f]);
                    print_name((void *)&six, sizeof six, sizes[h], sizes[s], flags[f]);
                }
    /* Addresses of one link name the interface, if there is such a one; all others number it. */
    const char *links[] = {"fe80::1", "ff02::1:2", "fec0::1", "fd70::1", "::1"};
    unsigned scopes[] = {1, 2, 77};
    for (size_t a = 0; a < COUNT(links); a++)
        for (size_t s = 0; s < COUNT(scopes); s++) {
            inet_pton(AF_INET6, links[a], &six.sin6_addr);
            six.sin6_scope_id = scopes[s];
            print_name((void *)&six, sizeof six, 300, 300, NI_NUMERICHOST);
        }
    six.sin6_scope_id = 0;
    print_name((void *)&four, 3, 300, 300, 0);
    print_name((void *)&six, 12, 300, 300, 0);
    struct sockaddr_storage odd = {.ss_family = 99};
    print_name((void *)&odd, sizeof odd, 300, 300, 0);
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/tmp/some.sock"};
    print_name((void *)&local, sizeof local, 300, 300, NI_NUMERICHOST);
}

static void print_host(const char *what, const char *name, struct hostent *host, const int *error) {
    printf("%s %.40s: ", what, name);
    if (!host) {
        printf("h_errno %d\n", *error);
        return;
    }
    printf("%s %d/%d aliases %d", host->h_name, host->h_addrtype, host->h_length, host->h_aliases[0] != NULL);
    for (char **at = host->h_addr_list; *at; at++) {
        char text[INET6_ADDRSTRLEN];
        printf(" %s", inet_ntop(host->h_addrtype, *at, text, sizeof text));
    }
    printf("\n");
}

static void hosts(void) {
    const char *list[] = {"127.0.0.1", "1.2.3.4", "127.1", "::1", "web.phantom", "no.phantom", "with space", "1.2.3.4.5"};
    for (size_t n = 0; n < COUNT(list); n++) {
        print_host("gethostbyname", list[n], gethostbyname(list[n]), &h_errno);
        print_host("gethostbyname2 6", list[n], gethostbyname2(list[n], AF_INET6), &h_errno);
        for (size_t size = 0; size < 1024; size += 16) {
            struct hostent own, *found = (void *)1;
            char *buffer = malloc(size ? size : 1);
            int code = 0, result = gethostbyname2_r(list[n], AF_INET, &own, buffer, size, &found, &code);
            if (result != ERANGE || found) {
                printf("gethostbyname2_r returns %d ", result);
                print_host("", list[n], found, &code);
                size = 1024;
            }
            free(buffer);
        }
    }
    unsigned char four[4] = {198, 18, 0, 1}, six[16] = {0xfd, 0x70, [15] = 1}, local[4] = {127, 0, 0, 1};
    print_host("gethostbyaddr", "4", gethostbyaddr(four, 4, AF_INET), &h_errno);
    print_host("gethostbyaddr", "6", gethostbyaddr(six, 16, AF_INET6), &h_errno);
    print_host("gethostbyaddr", "local", gethostbyaddr(local, 4, AF_INET), &h_errno);
}

int main(void) {
    memset(long_name, 'a', sizeof long_name - 1);
    look_up_all();
    services();
    names();
    hosts();
    return 0;
}
