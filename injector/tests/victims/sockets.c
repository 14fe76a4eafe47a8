// Makes sockets in every way that a program has, and says whose network each is of.
//
//   sockets COOKIE          all that one process can do
//   sockets COOKIE child    one socket; exit status 0 if it is of the network COOKIE
//   sockets COOKIE family   children of all kinds, each of them "child"
//   sockets COOKIE threads  many threads at once
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static uint64_t phantom;
static int bad;

static void check(int right, const char *what) {
    if (!right) {
        printf("WRONG: %s (errno %d)\n", what, errno);
        bad = 1;
    }
}

static int is_phantom(int fd) {
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0 && cookie == phantom;
}

static void given(int fd, const char *what) {
    check(is_phantom(fd), what);
    if (fd >= 0) close(fd);
}

static void refused(long result, int error, const char *what) {
    check(result == -1 && errno == error, what);
}

#ifdef __x86_64__
static long inline_syscall(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

// The entry of 32-bit programs, which has numbers of its own.
static long old_entry(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void entries(void) {
    given((int)inline_syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0), "an inline system call");
    given((int)inline_syscall(SYS_socket, AF_INET | (7L << 32), SOCK_DGRAM, 0), "a register with more in it");
    // socket is 359 there, socketcall 102.
    check(old_entry(359, AF_INET, SOCK_STREAM, 0) == -ENOSYS, "int 0x80");
    check(old_entry(102, 1, 0, 0) == -ENOSYS, "socketcall by int 0x80");
    check(inline_syscall(SYS_socket | 0x40000000, AF_INET, SOCK_STREAM, 0) == -ENOSYS, "x32");
}
#else
static void entries(void) {}
#endif

static void one_process(void) {
    given(socket(AF_INET, SOCK_STREAM, 0), "IPv4 TCP");
    given(socket(AF_INET6, SOCK_STREAM, 6), "IPv6 TCP");
    given(socket(AF_INET6, SOCK_DGRAM, 0), "UDP");
    given(socket(AF_NETLINK, SOCK_RAW, 0), "netlink");
    given(socket(AF_INET, SOCK_STREAM, 262), "Multipath TCP");
    given((int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), "syscall()");
    entries();

    int plain = socket(AF_INET, SOCK_STREAM, 0);
    check(fcntl(plain, F_GETFD) == 0 && !(fcntl(plain, F_GETFL) & O_NONBLOCK), "no flags");
    int lowest = dup(plain);
    close(lowest);
    int both = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(both == lowest, "the lowest free descriptor");
    check(fcntl(both, F_GETFD) == FD_CLOEXEC && (fcntl(both, F_GETFL) & O_NONBLOCK), "both flags");
    int kind = 0;
    socklen_t length = sizeof kind;
    check(getsockopt(both, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 && kind == SOCK_STREAM, "SO_TYPE");

    int pair[2];
    check(socket(AF_UNIX, SOCK_STREAM, 0) >= 0, "a local socket");
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "a local pair");
    refused(socketpair(AF_INET, SOCK_STREAM, 0, pair), EOPNOTSUPP, "a pair of another family");
    refused(socket(AF_PACKET, SOCK_RAW, 0), EPERM, "AF_PACKET");
    refused(socket(AF_INET, SOCK_RAW, 1), EPERM, "raw IPv4");
    refused(socket(AF_INET6, SOCK_RAW, 58), EPERM, "raw IPv6");
    refused(socket(AF_INET, SOCK_PACKET, 0), EPERM, "SOCK_PACKET");
    refused(socket(40, SOCK_STREAM, 0), EAFNOSUPPORT, "AF_VSOCK");
    refused(socket(AF_INET, 77, 0), EINVAL, "no such type");
    for (int family = 3; family < 64; family++)
        if (family != AF_INET6 && family != AF_NETLINK) check(socket(family, SOCK_DGRAM, 0) < 0, "another family");
    refused(syscall(425, 8, NULL), ENOSYS, "io_uring_setup");
    refused(syscall(426, 3, 0, 0, 0, NULL, 0), ENOSYS, "io_uring_enter");
    refused(syscall(SYS_bpf, 0, NULL, 0), EPERM, "bpf");
}

static int ended_well(pid_t pid) {
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void family(char *self, char *cookie) {
    char *child[] = {self, cookie, "child", NULL}, *empty[] = {NULL};
    pid_t pid = fork();
    if (pid == 0) _exit(!is_phantom(socket(AF_INET, SOCK_STREAM, 0)));
    check(ended_well(pid), "fork");
    if ((pid = fork()) == 0) {
        execve(self, child, empty);
        _exit(9);
    }
    check(ended_well(pid), "execve with an empty environment");
    if ((pid = vfork()) == 0) {
        execve(self, child, empty);
        _exit(9);
    }
    check(ended_well(pid), "vfork");
    check(posix_spawn(&pid, self, NULL, NULL, child, empty) == 0 && ended_well(pid), "posix_spawn");
    // A daemon: a grandchild in a session of its own, which says how it went by a pipe.
    int result[2];
    char answer = 1;
    check(pipe(result) == 0, "pipe");
    if ((pid = fork()) == 0) {
        setsid();
        if (fork() == 0) {
            answer = !is_phantom(socket(AF_INET6, SOCK_STREAM, 0));
            _exit(write(result[1], &answer, 1) != 1);
        }
        _exit(0);
    }
    check(ended_well(pid) && read(result[0], &answer, 1) == 1 && answer == 0, "a daemon");
}

static volatile sig_atomic_t stirred;

static void stir(int number) {
    (void)number;
    stirred++;
}

static void *hammer(void *unused) {
    (void)unused;
    for (int i = 0; i < 100; i++) given(socket(i % 2 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), "a thread's");
    return NULL;
}

// Kind 9 of netlink is answered only after kind 15 was asked for: see the tests' daemon.
static void *slow(void *unused) {
    (void)unused;
    given(socket(AF_NETLINK, SOCK_RAW, 9), "the slow one");
    return NULL;
}

static void threads(void) {
    pthread_t late[4], quick[16];
    // Until the supervisor has taken a call, a signal interrupts it as it would any slow call.
    struct sigaction action = {.sa_handler = stir, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 4; i++) pthread_create(&late[i], NULL, slow, NULL);
    for (int i = 0; i < 16; i++) pthread_create(&quick[i], NULL, hammer, NULL);
    // Signals come while calls wait for their answers.
    for (int i = 0; i < 50; i++) pthread_kill(late[i % 4], SIGUSR1);
    for (int i = 0; i < 16; i++) pthread_join(quick[i], NULL);
    given(socket(AF_NETLINK, SOCK_RAW, 15), "the releasing one");
    for (int i = 0; i < 4; i++) pthread_join(late[i], NULL);
    check(socket(AF_UNIX, SOCK_STREAM, 0) == 3, "no descriptor is left behind");
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    phantom = strtoull(argv[1], NULL, 10);
    if (argc == 2) one_process();
    else if (!strcmp(argv[2], "child")) return !is_phantom(socket(AF_INET, SOCK_STREAM, 0));
    else if (!strcmp(argv[2], "family")) family(argv[0], argv[1]);
    else if (!strcmp(argv[2], "threads")) threads();
    if (!bad) puts("all well");
    return bad;
}
