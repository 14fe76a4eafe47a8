/* Sockets that come by descriptor passing: those of the phantom namespace work, those of others are dead. */
#include "check.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int lane[2];

static int inline_socket(int family) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_socket), "D"(family), "S"(SOCK_DGRAM), "d"(0) : "rcx", "r11", "memory");
    return result;
#else
    register long number __asm__("x8") = SYS_socket, a __asm__("x0") = family, b __asm__("x1") = SOCK_DGRAM, c __asm__("x2") = 0;
    __asm__ volatile("svc 0" : "+r"(a) : "r"(number), "r"(b), "r"(c) : "memory");
    return a;
#endif
}

static void pass(const int *descriptors, int count) {
    char byte = 'x', space[CMSG_SPACE(8 * sizeof(int))] = "";
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(head), descriptors, count * sizeof(int));
    EXPECT(sendmsg(lane[0], &message, 0) == 1);
}

enum how { BY_RECVMSG, BY_RECVMMSG, BY_SYSCALL, HOWS };

static void take(enum how how, int *descriptors, int count) {
    char byte = 0, space[CMSG_SPACE(8 * sizeof(int))] = "";
    struct iovec part = {&byte, 1};
    struct mmsghdr many = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space}};
    struct msghdr *message = &many.msg_hdr;
    errno = 77;
    if (how == BY_RECVMSG) EXPECT(recvmsg(lane[1], message, MSG_CMSG_CLOEXEC) == 1);
    if (how == BY_RECVMMSG) EXPECT(recvmmsg(lane[1], &many, 1, MSG_CMSG_CLOEXEC, NULL) == 1);
    if (how == BY_SYSCALL) EXPECT(syscall(SYS_recvmsg, lane[1], message, MSG_CMSG_CLOEXEC) == 1);
    EXPECT(errno == 77 && byte == 'x');
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    EXPECT(head && head->cmsg_len == CMSG_LEN(count * sizeof(int)));
    if (head) memcpy(descriptors, CMSG_DATA(head), count * sizeof(int));
}

static int domain(int fd) {
    int value = -1;
    socklen_t length = sizeof value;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length);
    return value;
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, lane) == 0);
    for (enum how how = 0; how < HOWS; how++) {
        int sent[] = {inline_socket(AF_INET6), socket(AF_INET6, SOCK_STREAM, 0), 0, lane[0], inline_socket(AF_NETLINK)};
        int got[5] = {-1, -1, -1, -1, -1};
        pass(sent, 5);
        take(how, got, 5);
        EXPECT(domain(got[0]) == AF_UNIX);
        EXPECT(domain(got[1]) == AF_INET6);
        EXPECT(domain(got[2]) == -1 && fcntl(got[2], F_GETFL) != -1);
        EXPECT(domain(got[3]) == AF_UNIX && send(got[3], "y", 1, 0) == 1 && recv(lane[1], (char[1]){0}, 1, 0) == 1);
        EXPECT(domain(got[4]) == AF_UNIX);
        FAILS(send(got[0], "z", 1, MSG_NOSIGNAL), ENOTCONN);
        for (int at = 0; at < 5; at++) {
            EXPECT(fcntl(got[at], F_GETFD) == FD_CLOEXEC);
            close(got[at]);
            if (at != 2 && at != 3) close(sent[at]);
        }
    }
    /* Nothing is left behind. */
    int next = dup(0);
    EXPECT(next == lane[1] + 1 || next == lane[0] + 1);
    return failures != 0;
}
