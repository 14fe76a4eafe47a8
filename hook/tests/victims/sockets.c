/* What socket() promises: flags, the lowest descriptor, errno; and where it is called that is hard: vfork, signals, threads. */
#include "check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* fd70::1 port 80 says "phantom". */
static int reaches_phantom(int fd) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    inet_pton(AF_INET6, "fd70::1", &to.sin6_addr);
    char answer[512] = "";
    size_t length = 0;
    ssize_t got;
    fcntl(fd, F_SETFL, 0);
    if (connect(fd, (void *)&to, sizeof to) || send(fd, "GET / HTTP/1.0\r\n\r\n", 18, 0) != 18)
        return 0;
    while ((got = recv(fd, answer + length, sizeof answer - 1 - length, 0)) > 0)
        length += got;
    return strstr(answer, "phantom IPv6") != NULL;
}

static void flags(void) {
    for (int number = 0; number < 4; number++) {
        int extra = (number & 1 ? SOCK_CLOEXEC : 0) | (number & 2 ? SOCK_NONBLOCK : 0);
        int families[] = {AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};
        for (int f = 0; f < 4; f++) {
            errno = 77;
            int fd = socket(families[f], SOCK_DGRAM | extra, 0);
            EXPECT(fd >= 0 && errno == 77);
            EXPECT(fcntl(fd, F_GETFD) == (number & 1 ? FD_CLOEXEC : 0));
            EXPECT(!(fcntl(fd, F_GETFL) & O_NONBLOCK) == !(number & 2));
            int domain = 0, type = 0;
            socklen_t length = sizeof domain;
            EXPECT(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == families[f]);
            EXPECT(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_DGRAM);
            close(fd);
        }
    }
}

static void lowest_descriptor(void) {
    int low = dup(0), high = dup(0);
    close(low);
    int fd = socket(AF_INET6, SOCK_STREAM, 0), next = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(fd == low && next == high + 1);
    EXPECT(reaches_phantom(fd));
    close(fd);
    close(high);
    close(next);
    close(0);
    EXPECT(socket(AF_INET6, SOCK_STREAM, 0) == 0);
}

static void refusals(void) {
    FAILS(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
    FAILS(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
    FAILS(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), EPERM);
    FAILS(socket(AF_INET, SOCK_PACKET, 3), EPERM);
    FAILS(socket(AF_VSOCK, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(AF_BLUETOOTH, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(AF_ALG, SOCK_SEQPACKET, 0), EAFNOSUPPORT);
    FAILS(socket(4711, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(socket(AF_INET, 15, 0), EINVAL);
    FAILS(socket(AF_INET, SOCK_STREAM | 0x100, 0), EINVAL);
    FAILS(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    FAILS(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP), EPROTONOSUPPORT);
    FAILS(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), EPROTONOSUPPORT);
    FAILS(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    FAILS(socket(AF_INET, SOCK_STREAM, 999), EINVAL);
    FAILS(syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0), EPERM);
    FAILS(syscall(SYS_io_uring_setup, 8, NULL), ENOSYS);
    FAILS(syscall(SYS_close, -1), EBADF);
    int multipath = socket(AF_INET6, SOCK_STREAM, 262), protocol = 0;
    socklen_t length = sizeof protocol;
    EXPECT(getsockopt(multipath, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 && protocol == IPPROTO_TCP);
    EXPECT(reaches_phantom(multipath));
    close(multipath);
}

static void by_number(void) {
    int fd = syscall(SYS_socket, AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && reaches_phantom(fd));
    close(fd);
    EXPECT(syscall(SYS_getpid) == getpid());
    /* Six arguments arrive. */
    void *page = (void *)syscall(SYS_mmap, NULL, 4096, 3, 0x22, -1, 0);
    EXPECT(page != (void *)-1 && syscall(SYS_munmap, page, 4096) == 0);
}

static void local(void) {
    int pair[2];
    char byte = 0;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    EXPECT(write(pair[0], "x", 1) == 1 && read(pair[1], &byte, 1) == 1 && byte == 'x');
    close(pair[0]);
    close(pair[1]);
    FAILS(socket(AF_UNIX, 15, 0), EINVAL);
}

static void full_table(void) {
    struct rlimit limit, few;
    getrlimit(RLIMIT_NOFILE, &limit);
    few = limit;
    int next = dup(0);
    close(next);
    few.rlim_cur = next;
    setrlimit(RLIMIT_NOFILE, &few);
    FAILS(socket(AF_INET6, SOCK_STREAM, 0), EMFILE);
    few.rlim_cur = next + 1;
    setrlimit(RLIMIT_NOFILE, &few);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    EXPECT(fd == next);
    close(fd);
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void in_children(void) {
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(reaches_phantom(socket(AF_INET6, SOCK_STREAM, 0)) ? 0 : 1);
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    static volatile int opened;
    opened = -1;
    child = vfork();
    if (child == 0) {
        opened = socket(AF_INET6, SOCK_STREAM, 0);
        _exit(opened < 0);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0 && opened >= 0);
    EXPECT(reaches_phantom(socket(AF_INET6, SOCK_STREAM, 0)));
}

static volatile sig_atomic_t calls, bad;

static void on_alarm(int signal) {
    (void)signal;
    int before = errno;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0)
        bad++;
    else
        close(fd);
    calls++;
    errno = before;
}

/* socket() is safe in signal handlers, also when the signal comes inside malloc or inside socket() itself. */
static void in_signals(void) {
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    while (calls < 200) {
        void *memory = malloc(100 + calls);
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        EXPECT(fd >= 0);
        close(fd);
        free(memory);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    EXPECT(bad == 0);
}

static void *open_many(void *unused) {
    (void)unused;
    for (int i = 0; i < 50; i++) {
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        EXPECT(fd >= 0);
        close(fd);
    }
    return NULL;
}

static void with_threads(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, open_many, NULL);
    /* Children of a program whose other threads are inside socket(). */
    for (int i = 0; i < 30; i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(socket(AF_INET6, SOCK_STREAM, 0) < 0);
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
}

static int descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

int main(void) {
    flags();
    refusals();
    by_number();
    local();
    full_table();
    in_signals();
    with_threads();
    int before = descriptors();
    for (int i = 0; i < 100; i++)
        close(socket(AF_INET6, SOCK_STREAM, 0));
    /* Nothing stays open behind the program's back. */
    EXPECT(descriptors() == before);
    in_children();
    lowest_descriptor();
    return failures != 0;
}
