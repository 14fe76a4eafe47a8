/* The hostile program's world: accomplices and victims that live outside of Phantom.
 *
 *   outside victim                        holds a UDP socket at descriptor 7 until its input ends; prints an address
 *   outside serve SOCKET...               deputies: each sends a packet for whoever connects and says a number;
 *                                         @NAME is an abstract socket, +PATH passes a UDP socket instead
 *   outside hold USER PID PROGRAM ARGUMENTS...
 *                                         as that user, leaves descriptors of all kinds open and becomes the program
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST = 64 };

static int victim(void) {
    static volatile unsigned long flag;
    if (dup2(socket(AF_INET, SOCK_DGRAM, 0), 7) < 0)
        return 1;
    printf("%lx\n", (unsigned long)&flag);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}

static int listener(const char *name) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(at.sun_path, name, length);
    if (*name == '@')
        at.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, 64) < 0) {
        perror(name);
        exit(1);
    }
    if (*name != '@')
        chmod(name, 0666);
    return fd;
}

/* What a deputy does: as told by whoever connected, in its own network. */
static void oblige(int client) {
    char said[16] = "";
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (recv(client, said, sizeof said - 1, 0) <= 0)
        return;
    /* Zero: libc itself asked, in the language of the service that we stand in for. */
    int number = atoi(said), fd = socket(AF_INET, SOCK_DGRAM, 0);
    to.sin_addr.s_addr = htonl(0xc6336400u + (unsigned)number);
    to.sin_port = htons((uint16_t)(20000 + number));
    sendto(fd, "out", 3, 0, (struct sockaddr *)&to, sizeof to);
    close(fd);
    send(client, "x", 1, MSG_NOSIGNAL);
}

static void give(int client) {
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } beside;
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    sendmsg(client, &message, MSG_NOSIGNAL);
    close(fd);
}

static int serve(int count, char **names) {
    struct pollfd polled[MOST];
    if (count > MOST)
        return 2;
    for (int i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = listener(names[i] + (*names[i] == '+')), .events = POLLIN};
    puts("ready");
    fflush(stdout);
    while (poll(polled, (nfds_t)count, -1) >= 0)
        for (int i = 0; i < count; i++) {
            int client = polled[i].revents ? accept4(polled[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
            if (client < 0)
                continue;
            (*names[i] == '+' ? give : oblige)(client);
            close(client);
        }
    return 1;
}

/* An ordinary user may not open all of them; what is missing is seen by the attack that wants it. */
static void at(int number, int fd) {
    /* dup2() leaves close-on-exec out. */
    if (fd >= 0)
        dup2(fd, number);
}

/* By ourselves: setpriv(1) asks services for the user's name, and they are not to be asked. */
static void become(int user) {
    if (setgroups(0, NULL) < 0 || setresgid((gid_t)user, (gid_t)user, (gid_t)user) < 0 ||
        setresuid((uid_t)user, (uid_t)user, (uid_t)user) < 0)
        exit(3);
}

static int hold(int user, char **arguments) {
    struct io_uring_params params;
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_port = htons(39999), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const socklen_t length = sizeof loopback;
    become(user);
    memset(&params, 0, sizeof params);
    int listening = socket(AF_INET6, SOCK_STREAM, 0), connected = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&loopback, length) < 0 || listen(listening, 8) < 0 ||
        connect(connected, (struct sockaddr *)&loopback, length) < 0)
        perror("hold: no connection");
    at(40, socket(AF_INET, SOCK_DGRAM, 0));
    at(41, listening);
    at(42, socket(AF_NETLINK, SOCK_RAW, 0));
    at(43, (int)syscall(SYS_io_uring_setup, 8, &params));
    at(44, open("/dev/net/tun", O_RDWR));
    at(45, socket(AF_PACKET, SOCK_RAW, 0));
    at(46, open("/run", O_RDONLY | O_DIRECTORY));
    at(47, open("/proc/self/ns/net", O_RDONLY));
    at(48, socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
    at(49, (int)syscall(SYS_pidfd_open, atoi(arguments[0]), 0));
    at(50, connected);
    /* What may stay: files and pipes are no network. */
    at(51, open("/dev/null", O_RDWR));
    execv(arguments[1], arguments + 1);
    perror(arguments[1]);
    return 1;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "victim"))
        return victim();
    if (argc > 2 && !strcmp(argv[1], "serve"))
        return serve(argc - 2, argv + 2);
    if (argc > 4 && !strcmp(argv[1], "hold"))
        return hold(atoi(argv[2]), argv + 3);
    return 2;
}
