/* Names: every function of libc that asks for them, and resolvers of our own. */
#include "hostile.h"
#include <dlfcn.h>
#include <netdb.h>
#include <resolv.h>

/* What the resolver said, as an errno: found is a leak of its own, for nobody is to know these names. */
static int told(int error) {
    if (error == 0)
        return ANSWERED;
    errno = error == EAI_AGAIN ? EAGAIN : ENOENT;
    return -1;
}

static int told_h(const void *found) {
    if (found)
        return ANSWERED;
    errno = h_errno == TRY_AGAIN ? EAGAIN : ENOENT;
    return -1;
}

static int by_getaddrinfo(const struct aim *aim) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    return told(getaddrinfo(aim->name, "80", &hints, &found));
}

static int no_hints(const struct aim *aim) {
    struct addrinfo *found;
    return told(getaddrinfo(aim->name, NULL, NULL, &found));
}

static int canonical(const struct aim *aim) {
    struct addrinfo hints = {.ai_flags = AI_CANONNAME | AI_ADDRCONFIG, .ai_family = AF_INET6}, *found;
    return told(getaddrinfo(aim->name, NULL, &hints, &found));
}

static int mdns_name(const struct aim *aim) {
    struct addrinfo *found;
    char name[64];
    snprintf(name, sizeof name, "a%d.local", aim->number);
    return told(getaddrinfo(name, NULL, NULL, &found));
}

static int reverse(const struct aim *aim) {
    char name[256];
    return told(getnameinfo((const struct sockaddr *)&aim->v4, sizeof aim->v4, name, sizeof name, NULL, 0, NI_NAMEREQD));
}

static int reverse6(const struct aim *aim) {
    char name[256];
    return told(getnameinfo((const struct sockaddr *)&aim->v6, sizeof aim->v6, name, sizeof name, NULL, 0, NI_NAMEREQD));
}

static int by_gethostbyname(const struct aim *aim) {
    return told_h(gethostbyname(aim->name));
}

static int by_gethostbyname2(const struct aim *aim) {
    return told_h(gethostbyname2(aim->name, AF_INET6));
}

static int by_gethostbyname_r(const struct aim *aim) {
    struct hostent entry, *found = NULL;
    char buffer[2048];
    int error = 0;
    gethostbyname_r(aim->name, &entry, buffer, sizeof buffer, &found, &error);
    h_errno = error;
    return told_h(found);
}

static int by_gethostbyaddr(const struct aim *aim) {
    const struct hostent *found = gethostbyaddr(&aim->v4.sin_addr, 4, AF_INET);
    struct in_addr number;
    /* Where there is no name, musl gives the number. */
    return told_h(found && inet_pton(AF_INET, found->h_name, &number) ? NULL : found);
}

static int by_getaddrinfo_a(const struct aim *aim) {
#ifdef __GLIBC__
    struct gaicb request = {.ar_name = aim->name}, *list[] = {&request};
    int error = getaddrinfo_a(GAI_WAIT, list, 1, NULL);
    return told(error ? error : gai_error(&request));
#else
    (void)aim;
    return ABSENT;
#endif
}

static int by_res_query(const struct aim *aim) {
    unsigned char answer[512];
    return told_h(res_query(aim->name, 1, 1, answer, sizeof answer) < 0 ? NULL : answer);
}

static int by_res_search(const struct aim *aim) {
    unsigned char answer[512];
    return told_h(res_search(aim->name, 1, 1, answer, sizeof answer) < 0 ? NULL : answer);
}

static int by_res_send(const struct aim *aim) {
    unsigned char asked[128], answer[512];
    size_t length = question(aim, asked);
    res_init();
    if (res_send(asked, (int)length, answer, sizeof answer) < 0) {
        errno = EAGAIN;
        return -1;
    }
    errno = ENOENT;
    return (answer[3] & 15) == 3 ? -1 : ANSWERED;
}

/* With a server that the program chose itself. */
static int by_res_nquery(const struct aim *aim) {
#ifdef __GLIBC__
    unsigned char answer[512];
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) < 0)
        return -1;
    state.nsaddr_list[0] = aim->v4;
    state.nsaddr_list[0].sin_port = htons(53);
    state.nscount = 1;
    state.retrans = 1;
    state.retry = 1;
    int length = res_nquery(&state, aim->name, 1, 1, answer, sizeof answer);
    h_errno = state.res_h_errno;
    return told_h(length < 0 ? NULL : answer);
#else
    (void)aim;
    return ABSENT;
#endif
}

static int by_getnetbyname(const struct aim *aim) {
#ifdef __GLIBC__
    return told_h(getnetbyname(aim->name));
#else
    (void)aim;
    return ABSENT;
#endif
}

static int ask(const struct aim *aim, int family, const char *server, uint16_t port) {
    struct sockaddr_in v4 = aim->v4;
    struct sockaddr_in6 v6 = aim->v6;
    unsigned char asked[128];
    size_t length = question(aim, asked);
    int fd = socket(family, SOCK_DGRAM, 0), index = outer_interface();
    if (fd < 0)
        return -1;
    if (server)
        inet_pton(family, server, family == AF_INET ? (void *)&v4.sin_addr : (void *)&v6.sin6_addr);
    /* Where the question is to a group, the port tells whose it is. */
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(aim->port)};
    if (family == AF_INET)
        bind(fd, (struct sockaddr *)&own, sizeof own);
    v4.sin_port = v6.sin6_port = htons(port);
    v6.sin6_scope_id = server && family == AF_INET6 ? (uint32_t)index : 0;
    const struct sockaddr *to = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    if (connect(fd, to, family == AF_INET ? sizeof v4 : sizeof v6) < 0 || send(fd, asked, length, 0) < 0)
        return closing(fd, -1);
    /* As every resolver does: questions may be lost. */
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    if (poll(&polled, 1, 2000) == 0)
        send(fd, asked, length, 0);
    return closing(fd, answer_fate(fd));
}

static int own_resolver(const struct aim *aim) {
    return ask(aim, AF_INET, NULL, 53);
}

static int own_resolver6(const struct aim *aim) {
    return ask(aim, AF_INET6, NULL, 53);
}

/* As musl, Go and c-ares do: the servers that the file names. */
static int servers_of_file(const struct aim *aim) {
    char line[256], server[64];
    FILE *file = fopen("/etc/resolv.conf", "r");
    int result = -1;
    errno = ENOENT;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "nameserver %63s", server) == 1) {
            result = ask(aim, strchr(server, ':') ? AF_INET6 : AF_INET, server, 53);
            break;
        }
    return result;
}

static int mdns(const struct aim *aim) {
    return ask(aim, AF_INET, "224.0.0.251", 5353);
}

static int mdns6(const struct aim *aim) {
    return ask(aim, AF_INET6, "ff02::fb", 5353);
}

static int llmnr(const struct aim *aim) {
    return ask(aim, AF_INET, "224.0.0.252", 5355);
}

static int dns_over_tcp(const struct aim *aim) {
    struct sockaddr_in to = aim->v4;
    to.sin_port = htons(53);
    return connect_fate(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
}

/* The kernel asks for names on behalf of its own file systems: /sbin/request-key does it, outside. */
static int by_kernel_key(const struct aim *aim) {
    long key = syscall(SYS_request_key, "dns_resolver", aim->name, "", 0);
    return key < 0 ? -1 : ANSWERED;
}

/* libc's own function, not what a preloaded library put in its place. */
static int by_dlopen(const struct aim *aim) {
#ifdef STATIC
    (void)aim;
    return ABSENT;
#else
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_LOCAL);
    int (*real)(int, int, int) = libc ? (int (*)(int, int, int))dlsym(libc, "socket") : NULL;
    if (!real)
        return ABSENT;
    return udp_fate(real(AF_INET, SOCK_DGRAM, 0), (const struct sockaddr *)&aim->v4, sizeof aim->v4);
#endif
}

/* A word: the settings of this computer add its domain. */
static int searched(const struct aim *aim) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char name[64];
    snprintf(name, sizeof name, "a%d", aim->number);
    return told(getaddrinfo(name, "80", &hints, &found));
}

#ifndef STATIC
/* A library that is not to get its functions from a preloaded one. */
static void *plugged(const char *name, int apart) {
    char path[512];
    snprintf(path, sizeof path, "%s.plug", world.self);
    void *plug = apart ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW) : dlopen(path, RTLD_NOW | RTLD_DEEPBIND);
    return plug ? dlsym(plug, name) : NULL;
}
#endif

static int by_plug(const struct aim *aim, int apart) {
#ifdef STATIC
    (void)aim, (void)apart;
    return ABSENT;
#else
    int (*datagrams)(void) = (int (*)(void))plugged("datagrams", apart);
    return datagrams ? udp_fate(datagrams(), (const struct sockaddr *)&aim->v4, sizeof aim->v4) : ABSENT;
#endif
}

static int deeply(const struct aim *aim) {
    return by_plug(aim, 0);
}

static int with_libc_of_its_own(const struct aim *aim) {
    return by_plug(aim, 1);
}

static int name_deeply(const struct aim *aim) {
#ifdef STATIC
    (void)aim;
    return ABSENT;
#else
    int (*look)(const char *) = (int (*)(const char *))plugged("look", 0);
    return look ? told(look(aim->name)) : ABSENT;
#endif
}

const struct attack names[] = {
    {"getaddrinfo", by_getaddrinfo}, {"getaddrinfo-no-hints", no_hints}, {"getaddrinfo-canonical", canonical},
    {"mdns-name", mdns_name}, {"getnameinfo", reverse}, {"getnameinfo6", reverse6},
    {"gethostbyname", by_gethostbyname}, {"gethostbyname2", by_gethostbyname2},
    {"gethostbyname_r", by_gethostbyname_r}, {"gethostbyaddr", by_gethostbyaddr}, {"getaddrinfo_a", by_getaddrinfo_a},
    {"res_query", by_res_query}, {"res_search", by_res_search}, {"res_send", by_res_send},
    {"res_nquery-own-server", by_res_nquery}, {"getnetbyname", by_getnetbyname}, {"own-resolver", own_resolver},
    {"own-resolver6", own_resolver6}, {"servers-of-resolv.conf", servers_of_file}, {"mdns", mdns}, {"mdns6", mdns6},
    {"llmnr", llmnr}, {"dns-over-tcp", dns_over_tcp}, {"request-key", by_kernel_key}, {"socket-by-dlsym", by_dlopen},
    {"searched-name", searched}, {"name-deepbind", name_deeply}, {"socket-deepbind", deeply},
    {"socket-other-libc", with_libc_of_its_own},
    {NULL, NULL},
};
