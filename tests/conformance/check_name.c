/* Addresses and ports as both ends see them, in IPv6, in the IPv4 view, and mapped. */
#include "conform.h"

static uint16_t port_of(const struct sockaddr_storage *name)
{
    return ntohs(((const struct sockaddr_in *)name)->sin_port);
}

/* Family, and what kind of address: any, loopback, target's, other. */
static const char *kind(const struct sockaddr_storage *name)
{
    static char text[4][32];
    static unsigned next;
    char *out = text[next++ % 4];
    if (name->ss_family == AF_INET6) {
        struct in6_addr ip = ((const struct sockaddr_in6 *)name)->sin6_addr;
        snprintf(out, 32, "ipv6 %s%s", IN6_IS_ADDR_V4MAPPED(&ip) ? "mapped " : "",
                 IN6_IS_ADDR_UNSPECIFIED(&ip) ? "any"
                 : !memcmp(&ip, &target.v6.sin6_addr, sizeof ip) ? "target" : "other");
    } else {
        in_addr_t ip = ((const struct sockaddr_in *)name)->sin_addr.s_addr;
        snprintf(out, 32, "ipv4 %s", !ip ? "any" : ip == target.v4.sin_addr.s_addr ? "target" : "other");
    }
    return out;
}

static struct sockaddr_storage own(int fd)
{
    struct sockaddr_storage name = { 0 };
    socklen_t length = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &length) < 0)
        broken("getsockname");
    return name;
}

static struct sockaddr_storage peer(int fd)
{
    struct sockaddr_storage name = { 0 };
    socklen_t length = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &length) < 0)
        broken("getpeername");
    return name;
}

static void unbound(void)
{
    int fd = stream6(0);
    struct sockaddr_storage name = own(fd);
    socklen_t length = sizeof name;
    say("own", "%s port %d", kind(&name), port_of(&name));
    say("peer", "%s", outcome(getpeername(fd, (struct sockaddr *)&name, &length)));
    fd = stream4(0);
    name = own(fd);
    say("own4", "%s port %d", kind(&name), port_of(&name));
    length = 4;
    say("short", "%s length %d", outcome(getsockname(fd, (struct sockaddr *)&name, &length)), (int)length);
}

static void text_of(const struct sockaddr_storage *name, char *out, size_t room)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    if (name->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)name)->sin6_addr, ip, sizeof ip);
    else
        inet_ntop(AF_INET, &((const struct sockaddr_in *)name)->sin_addr, ip, sizeof ip);
    snprintf(out, room, "%s %d", ip, port_of(name));
}

/* Both ends agree on both names. */
static void connected(void)
{
    struct pair pair;
    char here[128], mine[64], theirs[64];
    pair_open(&pair);
    struct sockaddr_storage name = own(pair.fd), other = peer(pair.fd);
    say("peer", "%s port right %s", kind(&other), yes(port_of(&other) == pair.port));
    text_of(&name, mine, sizeof mine);
    text_of(&other, theirs, sizeof theirs);
    // As the far end says it: its own first.
    snprintf(here, sizeof here, "%s %s", theirs, mine);
    far_call(&pair.far, "names %d", pair.there);
    say("agree", "%s", yes(!strcmp(here, pair.far.text)));
    say("kept_after_connect", "%s", yes(port_of(&name) != 0));
}

static void connected_ipv4(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream4(0);
    say("connect", "%s", outcome(dial4(fd, pair.port)));
    struct sockaddr_storage name = own(fd), other = peer(fd);
    say("peer", "%s port right %s", kind(&other), yes(port_of(&other) == pair.port));
    int there = (int)far_call(&pair.far, "accept %d", pair.listener);
    char ip[64];
    int seen = 0;
    sscanf(pair.far.text, "%63s %d", ip, &seen);
    say("port_there", "%s", yes(seen == port_of(&name)));
    say("family_there", "%s", strchr(ip, '.') ? "mapped" : "ipv6");
    far_call(&pair.far, "write %d hello", there);
    char bytes[8] = "";
    say("read", "%zd %s", recv(fd, bytes, 5, MSG_WAITALL), bytes);
}

static void connected_mapped(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    struct sockaddr_in6 mapped = { .sin6_family = AF_INET6, .sin6_port = htons(pair.port) };
    mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&mapped.sin6_addr.s6_addr[12], &target.v4.sin_addr, 4);
    say("connect", "%s", outcome(connect(fd, (struct sockaddr *)&mapped, sizeof mapped)));
    struct sockaddr_storage name = own(fd), other = peer(fd);
    say("own", "%.12s", kind(&name));
    say("peer_same", "%s", yes(!memcmp(&((struct sockaddr_in6 *)&other)->sin6_addr, &mapped.sin6_addr, 16)));
    far_call(&pair.far, "accept %d", pair.listener);
    int only = stream6(0), on = 1;
    setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    say("only_v6", "%s", outcome(connect(only, (struct sockaddr *)&mapped, sizeof mapped)));
}

/* A port chosen by bind is the port that the far end sees. */
static void bound(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
    say("bind", "%s", outcome(bind(fd, (struct sockaddr *)&any, sizeof any)));
    struct sockaddr_storage before = own(fd);
    say("before", "%s has port %s", kind(&before), yes(port_of(&before) >= 1024));
    say("bind_again", "%s", outcome(bind(fd, (struct sockaddr *)&any, sizeof any)));
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    struct sockaddr_storage after = own(fd);
    say("same_port", "%s", yes(port_of(&before) == port_of(&after)));
    far_call(&pair.far, "accept %d", pair.listener);
    int seen = 0;
    sscanf(pair.far.text, "%*s %d", &seen);
    say("port_there", "%s", yes(seen == port_of(&after)));
}

static void bound_to_own(void)
{
    struct pair pair;
    pair_open(&pair);
    struct sockaddr_storage mine = own(pair.fd);
    ((struct sockaddr_in6 *)&mine)->sin6_port = 0;
    int fd = stream6(0);
    say("bind", "%s", outcome(bind(fd, (struct sockaddr *)&mine, sizeof(struct sockaddr_in6))));
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    fd = stream6(0);
    struct sockaddr_in6 loop = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
    say("bind_loopback", "%s", outcome(bind(fd, (struct sockaddr *)&loop, sizeof loop)));
}

static void bind_errors(void)
{
    struct sockaddr_in6 foreign = { .sin6_family = AF_INET6 };
    inet_pton(AF_INET6, "2001:db8::77", &foreign.sin6_addr);
    say("foreign", "%s", outcome(bind(stream6(0), (struct sockaddr *)&foreign, sizeof foreign)));
    struct sockaddr_in foreign4 = { .sin_family = AF_INET };
    inet_pton(AF_INET, "192.0.2.77", &foreign4.sin_addr);
    say("foreign4", "%s", outcome(bind(stream4(0), (struct sockaddr *)&foreign4, sizeof foreign4)));
    say("short", "%s", outcome(bind(stream6(0), (struct sockaddr *)&foreign, 8)));
    foreign4.sin_addr.s_addr = 0;
    say("family", "%s", outcome(bind(stream6(0), (struct sockaddr *)&foreign4, sizeof foreign4)));
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
    int fd = stream6(0), fd4 = stream4(0), off = 0;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    bind(fd, (struct sockaddr *)&any, sizeof any);
    struct sockaddr_storage name = own(fd);
    any.sin6_port = htons(port_of(&name));
    foreign4.sin_port = htons(port_of(&name));
    say("in_use", "%s", outcome(bind(stream6(0), (struct sockaddr *)&any, sizeof any)));
    say("in_use4", "%s", outcome(bind(fd4, (struct sockaddr *)&foreign4, sizeof foreign4)));
    any.sin6_port = htons(81);
    say("low_port", "%s", outcome(bind(stream6(0), (struct sockaddr *)&any, sizeof any)));
}

/* Connections of this machine to itself, by its own address and by loopback. */
static void to_itself(void)
{
    struct pair pair;
    pair_open(&pair);
    struct sockaddr_storage mine = own(pair.fd);
    struct sockaddr_in6 loop = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
    struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
    int listener = stream6(0);
    bind(listener, (struct sockaddr *)&any, sizeof any);
    say("listen", "%s", outcome(listen(listener, 4)));
    struct sockaddr_storage name = own(listener);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in6 to = i ? loop : *(struct sockaddr_in6 *)&mine;
        to.sin6_port = htons(port_of(&name));
        int fd = stream6(0);
        say(i ? "loopback" : "own", "%s", outcome(connect(fd, (struct sockaddr *)&to, sizeof to)));
        int there = accept(listener, NULL, NULL);
        char bytes[8] = "";
        if (send(fd, "hello", 5, MSG_NOSIGNAL) == 5)
            say(i ? "loopback_bytes" : "own_bytes", "%zd %s", recv(there, bytes, 5, MSG_WAITALL), bytes);
        struct sockaddr_storage from = peer(there), other = own(fd);
        say(i ? "loopback_peer" : "own_peer", "%s", yes(!memcmp(&from, &other, sizeof(struct sockaddr_in6))));
    }
}

const struct check name_checks[] = {
    { "name.unbound", unbound },
    { "name.connected", connected },
    { "name.connected_ipv4", connected_ipv4 },
    { "name.connected_mapped", connected_mapped },
    { "name.bound", bound },
    { "name.bound_to_own", bound_to_own },
    { "name.bind_errors", bind_errors },
    { "name.to_itself", to_itself },
    { NULL, NULL },
};
