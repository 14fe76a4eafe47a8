/* Looks a name up with every function of the C library that can, and says what differs from the expectation.
 * Usage: look NAME AP-ADDRESS REVERSE-NAME MISSING-NAME. With -DCARES also by c-ares. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#ifdef CARES
#include <ares.h>
#include <sys/select.h>
#endif

static const char *name, *address, *reverse, *missing;
static char alias[INET_ADDRSTRLEN];
static int failures;

static void check(int good, const char *what) {
    if (!good) {
        printf("%s: %s failed (h_errno %d, errno %d)\n", name, what, h_errno, errno);
        failures++;
    }
}

static int is(int family, const void *raw, const char *text) {
    char buffer[INET6_ADDRSTRLEN];
    return inet_ntop(family, raw, buffer, sizeof buffer) && !strcmp(buffer, text);
}

static int is_sockaddr(const struct sockaddr *at) {
    if (at->sa_family == AF_INET6)
        return is(AF_INET6, &((const struct sockaddr_in6 *)at)->sin6_addr, address);
    return at->sa_family == AF_INET && is(AF_INET, &((const struct sockaddr_in *)at)->sin_addr, alias);
}

/* A resolver that says "try again" is asked again: musl gives up after five seconds, in which a fresh identity's first paths
 * may not stand yet. What the last of the attempts says counts. */
static int look(const char *what, const struct addrinfo *hints, struct addrinfo **list) {
    int code = EAI_AGAIN;
    for (int attempt = 0; code == EAI_AGAIN && attempt < 12; attempt++) code = getaddrinfo(what, "80", hints, list);
    return code;
}

static void by_getaddrinfo(int family, int kind, int flags) {
    struct addrinfo hints = {.ai_family = family, .ai_socktype = kind, .ai_flags = flags}, *list = NULL;
    char what[80];
    snprintf(what, sizeof what, "getaddrinfo family %d type %d flags %#x", family, kind, flags);
    int code = look(name, &hints, &list);
    check(code == 0, what);
    int six = 0, four = 0;
    for (struct addrinfo *at = code ? NULL : list; at; at = at->ai_next) {
        /* AI_V4MAPPED|AI_ALL shows the alias as an IPv6 address. */
        if (at->ai_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)at->ai_addr)->sin6_addr))
            check((flags & (AI_V4MAPPED | AI_ALL)) == (AI_V4MAPPED | AI_ALL), what);
        else
            check(is_sockaddr(at->ai_addr), what);
        check(!kind || at->ai_socktype == kind, what);
        six += at->ai_family == AF_INET6;
        four += at->ai_family == AF_INET;
    }
    check(family == AF_INET ? four > 0 && !six : six > 0 && (family == AF_UNSPEC) == (four > 0), what);
    if (!code && flags & AI_CANONNAME) check(list->ai_canonname != NULL, "canonical name");
    if (!code) freeaddrinfo(list);
    check(look(missing, &hints, &list) == EAI_NONAME, "getaddrinfo of nothing");
}

static void by_getnameinfo(void) {
    char host[NI_MAXHOST];
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, address, &six.sin6_addr);
    check(!getnameinfo((void *)&six, sizeof six, host, sizeof host, NULL, 0, NI_NAMEREQD) && !strcmp(host, reverse),
          "getnameinfo of the AP address");
    struct sockaddr_in four = {.sin_family = AF_INET};
    inet_pton(AF_INET, alias, &four.sin_addr);
    check(!getnameinfo((void *)&four, sizeof four, host, sizeof host, NULL, 0, NI_NAMEREQD) && !strcmp(host, reverse),
          "getnameinfo of the alias");
}

static int holds(struct hostent *entry, int family, const char *text) {
    return entry && entry->h_addrtype == family && entry->h_addr_list[0] && is(family, entry->h_addr_list[0], text);
}

static void by_hostent(void) {
    struct hostent entry, *found;
    char buffer[4096];
    int code;
    check(holds(gethostbyname(name), AF_INET, alias), "gethostbyname");
    check(holds(gethostbyname2(name, AF_INET), AF_INET, alias), "gethostbyname2 IPv4");
    check(holds(gethostbyname2(name, AF_INET6), AF_INET6, address), "gethostbyname2 IPv6");
    check(!gethostbyname_r(name, &entry, buffer, sizeof buffer, &found, &code) && holds(found, AF_INET, alias),
          "gethostbyname_r");
    check(!gethostbyname2_r(name, AF_INET6, &entry, buffer, sizeof buffer, &found, &code) &&
              holds(found, AF_INET6, address),
          "gethostbyname2_r");
    check(!gethostbyname(missing) && h_errno == HOST_NOT_FOUND, "gethostbyname of nothing");
    struct in6_addr six;
    struct in_addr four;
    inet_pton(AF_INET6, address, &six);
    inet_pton(AF_INET, alias, &four);
    found = gethostbyaddr(&six, sizeof six, AF_INET6);
    check(found && !strcmp(found->h_name, reverse), "gethostbyaddr IPv6");
    check(!gethostbyaddr_r(&four, sizeof four, AF_INET, &entry, buffer, sizeof buffer, &found, &code) && found &&
              !strcmp(found->h_name, reverse),
          "gethostbyaddr_r IPv4");
}

/* The last bytes of an answer with one record are its data. */
static void by_query(int kind, int family, const char *text) {
    unsigned char answer[1024];
    size_t size = family == AF_INET6 ? 16 : 4;
    int length = res_query(name, ns_c_in, kind, answer, sizeof answer);
    check(length > 12 && answer[7] == 1 && is(family, answer + length - size, text), "res_query");
    length = res_search(name, ns_c_in, kind, answer, sizeof answer);
    check(length > 12 && answer[7] == 1 && is(family, answer + length - size, text), "res_search");
}

static void by_queries(void) {
    unsigned char answer[1024];
    by_query(ns_t_aaaa, AF_INET6, address);
    by_query(ns_t_a, AF_INET, alias);
    /* Browsers ask for these; there are none, and the name is there all the same. 65 is HTTPS, 64 SVCB. */
    int absent[] = {65, 64, ns_t_mx, ns_t_txt, ns_t_srv};
    for (size_t at = 0; at < sizeof absent / sizeof *absent; at++)
        check(res_query(name, ns_c_in, absent[at], answer, sizeof answer) < 0 && h_errno == NO_DATA, "absent types");
    check(res_query(missing, ns_c_in, ns_t_aaaa, answer, sizeof answer) < 0 && h_errno == HOST_NOT_FOUND,
          "res_query of nothing");
}

#ifdef CARES
static int cares_found;

static void cares_told(void *what, int status, int timeouts, struct hostent *entry) {
    (void)timeouts;
    const char *text = what;
    cares_found = status == ARES_SUCCESS && holds(entry, strchr(text, ':') ? AF_INET6 : AF_INET, text);
}

static void cares_missing(void *what, int status, int timeouts, struct hostent *entry) {
    (void)what, (void)timeouts, (void)entry;
    cares_found = status == ARES_ENOTFOUND;
}

static void cares_run(ares_channel channel, const char *what) {
    for (;;) {
        fd_set readers, writers;
        struct timeval room, *limit;
        FD_ZERO(&readers);
        FD_ZERO(&writers);
        int count = ares_fds(channel, &readers, &writers);
        if (count == 0) break;
        limit = ares_timeout(channel, NULL, &room);
        select(count, &readers, &writers, NULL, limit);
        ares_process(channel, &readers, &writers);
    }
    check(cares_found, what);
    cares_found = 0;
}

static void by_cares(int flags) {
    ares_channel channel;
    struct ares_options options = {.flags = flags};
    check(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS, "c-ares");
    check(ares_init_options(&channel, &options, ARES_OPT_FLAGS) == ARES_SUCCESS, "c-ares");
    ares_gethostbyname(channel, name, AF_INET6, cares_told, (void *)address);
    cares_run(channel, "c-ares IPv6");
    ares_gethostbyname(channel, name, AF_INET, cares_told, alias);
    cares_run(channel, "c-ares IPv4");
    ares_gethostbyname(channel, missing, AF_INET6, cares_missing, NULL);
    cares_run(channel, "c-ares of nothing");
    ares_destroy(channel);
}
#endif

int main(int count, char **words) {
    if (count != 5) return 2;
    name = words[1], address = words[2], reverse = words[3], missing = words[4];
    struct hostent *first = gethostbyname(name);
    for (int attempt = 1; !first && h_errno == TRY_AGAIN && attempt < 12; attempt++) first = gethostbyname(name);
    check(first && first->h_addrtype == AF_INET, "the first look");
    if (failures) return 1;
    inet_ntop(AF_INET, first->h_addr_list[0], alias, sizeof alias);
    check(!strncmp(alias, "198.18.", 7) || !strncmp(alias, "198.19.", 7), "the alias");
    int families[] = {AF_UNSPEC, AF_INET, AF_INET6}, kinds[] = {0, SOCK_STREAM, SOCK_DGRAM};
    int flags[] = {0, AI_CANONNAME, AI_ADDRCONFIG, AI_V4MAPPED, AI_V4MAPPED | AI_ALL, AI_NUMERICSERV, AI_PASSIVE};
    for (int family = 0; family < 3; family++)
        for (int kind = 0; kind < 3; kind++)
            for (size_t flag = 0; flag < sizeof flags / sizeof *flags; flag++)
                by_getaddrinfo(families[family], kinds[kind], flags[flag]);
    by_getnameinfo();
    by_hostent();
    by_queries();
#ifdef CARES
    by_cares(0);
    by_cares(ARES_FLAG_USEVC);
#endif
    if (!failures) puts("all well");
    return failures != 0;
}
