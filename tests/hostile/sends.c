/* Packets of every kind, asked for as a program does that means no harm. */
#include "hostile.h"
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/tcp.h>

#define V4(aim) (const struct sockaddr *)&(aim)->v4, sizeof (aim)->v4
#define V6(aim) (const struct sockaddr *)&(aim)->v6, sizeof (aim)->v6

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int udp_connected(const struct aim *aim) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, V4(aim)) < 0 || send(fd, "out", 3, 0) < 0)
        return closing(fd, -1);
    return closing(fd, answer_fate(fd));
}

static int udp_sendmsg(const struct aim *aim) {
    struct sockaddr_in to = aim->v4;
    struct iovec part = {"out", 3};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on);
    if (sendmsg(fd, &message, 0) < 0)
        return closing(fd, -1);
    return closing(fd, answer_fate(fd));
}

static int udp_sendmmsg(const struct aim *aim) {
    struct sockaddr_in to = aim->v4;
    struct iovec part = {"out", 3};
    struct mmsghdr message = {{.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1}, 0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on);
    if (sendmmsg(fd, &message, 1, 0) < 0)
        return closing(fd, -1);
    return closing(fd, answer_fate(fd));
}

static int udp6(const struct aim *aim) {
    return udp_fate(socket(AF_INET6, SOCK_DGRAM, 0), V6(aim));
}

static struct sockaddr_in6 mapped(const struct aim *aim) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = aim->v4.sin_port};
    to.sin6_addr.s6_addr[10] = to.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&to.sin6_addr.s6_addr[12], &aim->v4.sin_addr, 4);
    return to;
}

static int udp_mapped(const struct aim *aim) {
    struct sockaddr_in6 to = mapped(aim);
    return udp_fate(socket(AF_INET6, SOCK_DGRAM, 0), (const struct sockaddr *)&to, sizeof to);
}

static int shout(const struct aim *aim, const char *to) {
    struct sockaddr_in everyone = aim->v4;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    inet_pton(AF_INET, to, &everyone.sin_addr);
    return udp_fate(fd, (const struct sockaddr *)&everyone, sizeof everyone);
}

static int broadcast(const struct aim *aim) {
    return shout(aim, "255.255.255.255");
}

static int broadcast_subnet(const struct aim *aim) {
    return shout(aim, "203.0.113.255");
}

static int multicast(const struct aim *aim) {
    struct sockaddr_in group = aim->v4;
    struct ip_mreqn join = {.imr_ifindex = outer_interface()};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        return -1;
    group.sin_addr.s_addr = join.imr_multiaddr.s_addr = htonl(0xef010100u + (unsigned)aim->number);
    setsockopt(fd, SOL_IP, IP_ADD_MEMBERSHIP, &join, sizeof join);
    return udp_fate(fd, (const struct sockaddr *)&group, sizeof group);
}

static int multicast6(const struct aim *aim) {
    struct sockaddr_in6 group = {.sin6_family = AF_INET6, .sin6_port = htons(aim->port)};
    struct ipv6_mreq join = {.ipv6mr_interface = (unsigned)outer_interface()};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0), index = outer_interface();
    if (fd < 0)
        return -1;
    inet_pton(AF_INET6, "ff05::1:3", &group.sin6_addr);
    join.ipv6mr_multiaddr = group.sin6_addr;
    setsockopt(fd, SOL_IPV6, IPV6_JOIN_GROUP, &join, sizeof join);
    setsockopt(fd, SOL_IPV6, IPV6_MULTICAST_IF, &index, sizeof index);
    return udp_fate(fd, (const struct sockaddr *)&group, sizeof group);
}

static int link_local(const struct aim *aim) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(aim->port)};
    inet_pton(AF_INET6, "fe80::1", &to.sin6_addr);
    to.sin6_scope_id = (uint32_t)outer_interface();
    return udp_fate(socket(AF_INET6, SOCK_DGRAM, 0), (const struct sockaddr *)&to, sizeof to);
}

static int tcp(const struct aim *aim) {
    return connect_fate(socket(AF_INET, SOCK_STREAM, 0), V4(aim));
}

static int tcp6(const struct aim *aim) {
    return connect_fate(socket(AF_INET6, SOCK_STREAM, 0), V6(aim));
}

static int tcp_mapped(const struct aim *aim) {
    struct sockaddr_in6 to = mapped(aim);
    return connect_fate(socket(AF_INET6, SOCK_STREAM, 0), (const struct sockaddr *)&to, sizeof to);
}

static int fast_open(const struct aim *aim) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (sendto(fd, "out", 3, MSG_FASTOPEN, V4(aim)) < 0 && errno != EINPROGRESS)
        return closing(fd, -1);
    return connect_fate(fd, V4(aim)) < 0 && errno == EALREADY ? closing(-1, SILENT) : SILENT;
}

static int fast_open_message(const struct aim *aim) {
    struct sockaddr_in to = aim->v4;
    struct iovec part = {"out", 3};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    struct pollfd polled = {.events = POLLOUT};
    int error = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof error;
    if (fd < 0)
        return -1;
    if (sendmsg(fd, &message, MSG_FASTOPEN) < 0 && errno != EINPROGRESS)
        return closing(fd, -1);
    polled.fd = fd;
    if (poll(&polled, 1, 4000) <= 0)
        return closing(fd, SILENT);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    errno = error;
    return closing(fd, error ? -1 : DONE);
}

/* A socket with an option that reaches for another way; without the option it is no attack. */
static int with_option(const struct aim *aim, int level, int option, const void *value, socklen_t length) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, level, option, value, length) < 0)
        return closing(fd, -1);
    return connect_fate(fd, V4(aim));
}

static int source_route(const struct aim *aim) {
    /* Loose source routing by way of 203.0.113.1. */
    unsigned char route[12] = {131, 11, 4, 203, 0, 113, 1};
    memcpy(route + 7, &aim->v4.sin_addr, 4);
    return with_option(aim, SOL_IP, IP_OPTIONS, route, sizeof route);
}

static int to_device(const struct aim *aim) {
    return with_option(aim, SOL_SOCKET, SO_BINDTODEVICE, "wan", 4);
}

static int by_interface(const struct aim *aim) {
    int index = htonl(outer_interface());
    return with_option(aim, SOL_IP, IP_UNICAST_IF, &index, sizeof index);
}

static int marked(const struct aim *aim) {
    int mark = 1;
    return with_option(aim, SOL_SOCKET, SO_MARK, &mark, sizeof mark);
}

static int from(const struct aim *aim, int option) {
    struct sockaddr_in own = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        return -1;
    inet_pton(AF_INET, "203.0.113.5", &own.sin_addr);
    if ((option && setsockopt(fd, SOL_IP, option, &on, sizeof on) < 0) ||
        bind(fd, (struct sockaddr *)&own, sizeof own) < 0)
        return closing(fd, -1);
    return connect_fate(fd, V4(aim));
}

static int from_host_address(const struct aim *aim) {
    return from(aim, 0);
}

static int transparent(const struct aim *aim) {
    return from(aim, IP_TRANSPARENT);
}

static int freebind(const struct aim *aim) {
    return from(aim, IP_FREEBIND);
}

static int multipath(const struct aim *aim) {
    return connect_fate(socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), V4(aim));
}

static int sctp(const struct aim *aim) {
    return connect_fate(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP), V4(aim));
}

static int dccp(const struct aim *aim) {
    return connect_fate(socket(AF_INET, SOCK_DCCP, IPPROTO_DCCP), V4(aim));
}

static int udplite(const struct aim *aim) {
    return udp_fate(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), V4(aim));
}

static int smc(const struct aim *aim) {
    return connect_fate(socket(43, SOCK_STREAM, 0), V4(aim));
}

static int echo(int fd, const struct aim *aim) {
    const unsigned char request[8] = {8, 0, 0xf7, 0xfd, 0, 1, 0, 1};
    if (fd < 0 || sendto(fd, request, 8, 0, V4(aim)) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int echo6(int fd, const struct aim *aim) {
    struct sockaddr_in6 to = aim->v6;
    const unsigned char request[8] = {128, 0, 0, 0, 0, 1, 0, 1};
    to.sin6_port = 0;
    if (fd < 0 || sendto(fd, request, 8, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int raw_icmp(const struct aim *aim) {
    return echo(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), aim);
}

static int raw_icmp6(const struct aim *aim) {
    return echo6(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), aim);
}

static int ping(const struct aim *aim) {
    return echo(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), aim);
}

static int ping6(const struct aim *aim) {
    return echo6(socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6), aim);
}

static int raw_ip(const struct aim *aim) {
    unsigned char packet[64];
    size_t length = datagram(aim, packet);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (fd < 0 || sendto(fd, packet, length, 0, V4(aim)) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int raw_udp(const struct aim *aim) {
    unsigned char packet[64];
    size_t length = datagram(aim, packet);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    if (fd < 0 || sendto(fd, packet + 20, length - 20, 0, V4(aim)) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int packet(int family, int kind, const struct aim *aim) {
    unsigned char frame[64] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_halen = 6};
    size_t skipped = kind == SOCK_DGRAM ? 14 : 0, length = 14 + datagram(aim, frame + 14);
    int fd = socket(family, kind, htons(ETH_P_ALL));
    to.sll_ifindex = outer_interface();
    memcpy(to.sll_addr, frame, 6);
    if (fd < 0)
        return -1;
    if (kind == SOCK_PACKET) {
        struct sockaddr old = {.sa_family = AF_INET, .sa_data = "wan"};
        return closing(fd, sendto(fd, frame, length, 0, &old, sizeof old) < 0 ? -1 : SILENT);
    }
    if (sendto(fd, frame + skipped, length - skipped, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int packet_raw(const struct aim *aim) {
    return packet(AF_PACKET, SOCK_RAW, aim);
}

static int packet_cooked(const struct aim *aim) {
    return packet(AF_PACKET, SOCK_DGRAM, aim);
}

static int packet_old(const struct aim *aim) {
    return packet(AF_INET, SOCK_PACKET, aim);
}

const struct attack sends[] = {
    {"udp", plain}, {"udp-connected", udp_connected}, {"udp-sendmsg", udp_sendmsg}, {"udp-sendmmsg", udp_sendmmsg},
    {"udp6", udp6}, {"udp-mapped", udp_mapped}, {"broadcast", broadcast}, {"broadcast-subnet", broadcast_subnet},
    {"multicast", multicast}, {"multicast6", multicast6}, {"link-local", link_local}, {"tcp", tcp}, {"tcp6", tcp6},
    {"tcp-mapped", tcp_mapped}, {"fast-open", fast_open}, {"fast-open-sendmsg", fast_open_message},
    {"source-route", source_route}, {"bind-to-device", to_device}, {"by-interface", by_interface}, {"mark", marked},
    {"from-host-address", from_host_address}, {"transparent", transparent}, {"freebind", freebind},
    {"multipath", multipath}, {"sctp", sctp}, {"dccp", dccp}, {"udplite", udplite}, {"smc", smc},
    {"raw-icmp", raw_icmp}, {"raw-icmp6", raw_icmp6}, {"ping", ping}, {"ping6", ping6}, {"raw-ip", raw_ip},
    {"raw-udp", raw_udp}, {"packet-raw", packet_raw}, {"packet-cooked", packet_cooked}, {"packet-old", packet_old},
    {NULL, NULL},
};
