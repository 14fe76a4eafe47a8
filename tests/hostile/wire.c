/* What attacks share: sending, waiting for what becomes of it, and packets made by hand. */
#include "hostile.h"
#include <net/if.h>

/* Whoever refuses does so at once; nobody else answers in this world. */
enum { MOMENT = 4000 };

int closing(int fd, int result) {
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return result;
}

static int failed(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -1;
    errno = error;
    return error ? -1 : 0;
}

int answer_fate(int fd) {
    unsigned char answer[512];
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    if (poll(&polled, 1, MOMENT) <= 0)
        return SILENT;
    ssize_t length = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
    if (length < 0)
        return -1;
    /* The gate answers questions itself: "no such name", without anything in it. */
    if (length >= 12 && (answer[3] & 15) == 3 && !answer[6] && !answer[7]) {
        errno = ENOENT;
        return -1;
    }
    return ANSWERED;
}

int udp_fate(int fd, const struct sockaddr *to, socklen_t length) {
    int on = 1;
    if (fd < 0)
        return -1;
    /* Refusals come back to sockets that are not connected only if they ask for it. */
    setsockopt(fd, SOL_IP, IP_RECVERR, &on, sizeof on);
    setsockopt(fd, SOL_IPV6, IPV6_RECVERR, &on, sizeof on);
    if (sendto(fd, "out", 3, 0, to, length) < 0)
        return closing(fd, -1);
    return closing(fd, answer_fate(fd));
}

int connect_fate(int fd, const struct sockaddr *to, socklen_t length) {
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    if (fd < 0)
        return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (connect(fd, to, length) == 0)
        return closing(fd, DONE);
    if (errno != EINPROGRESS)
        return closing(fd, -1);
    if (poll(&polled, 1, MOMENT) <= 0)
        return closing(fd, SILENT);
    return closing(fd, failed(fd));
}

size_t question(const struct aim *aim, unsigned char *to) {
    static const unsigned char header[12] = {0x12, 0x34, 1, 0, 0, 1};
    unsigned char *at = to + sizeof header;
    const char *name = aim->name;
    memcpy(to, header, sizeof header);
    while (*name) {
        size_t length = strcspn(name, ".");
        *at++ = (unsigned char)length;
        memcpy(at, name, length);
        at += length;
        name += length + (name[length] == '.');
    }
    memcpy(at, "\0\0\1\0\1", 5);
    return (size_t)(at + 5 - to);
}

size_t datagram(const struct aim *aim, unsigned char *to) {
    unsigned char packet[36] = {0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 203, 0, 113, 5};
    uint16_t port = htons(aim->port), length = htons(16);
    uint32_t sum = 0;
    memcpy(packet + 16, &aim->v4.sin_addr, 4);
    memcpy(packet + 20, &port, 2);
    memcpy(packet + 22, &port, 2);
    memcpy(packet + 24, &length, 2);
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)(packet[i] << 8 | packet[i + 1]);
    sum = ~((sum >> 16) + (sum & 0xffff));
    packet[10] = (unsigned char)(sum >> 8);
    packet[11] = (unsigned char)sum;
    memcpy(to, packet, sizeof packet);
    return sizeof packet;
}

int outer_interface(void) {
    int index = (int)if_nametoindex("wan");
    if (!index)
        index = (int)if_nametoindex("phantom0");
    for (int other = 2; !index && other < 16; other++) {
        char name[IF_NAMESIZE];
        if (if_indextoname((unsigned)other, name) && strcmp(name, "lo"))
            index = other;
    }
    return index ? index : 1;
}

int plain(const struct aim *aim) {
    /* Children of children too come to an end. */
    alarm(PATIENCE);
    return udp_fate(socket(AF_INET, SOCK_DGRAM, 0), (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}
