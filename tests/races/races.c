/* Threads that connect, close, dup, pass, fork and look names up at random, for a while.
 *
 * Usage: races HOST ADDRESS PORT SECONDS THREADS SEED
 *   HOST     a name for getaddrinfo; ADDRESS the address that connections go to, as digits; PORT of an echo server
 *
 * Every byte that comes back is compared. Prints one line of totals and exits with 0 when no byte was wrong, no thread
 * hung and no descriptor was left behind; otherwise says what was wrong and exits with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A kernel gives a connection up after 127 s, and says so: only what takes longer hangs. */
enum { MOST_THREADS = 256, BLOCK = 4096, STUCK_SECONDS = 180, WAIT_MS = 150 * 1000 };

static const char *host;
static struct sockaddr_storage far, closed;
static socklen_t far_length;
static time_t end;
static atomic_long exchanges, bytes, refusals, abandoned, forks, names, unreached;

/* What each thread began last, and when; nothing once it has ended. */
static struct {
    _Atomic(const char *) what;
    atomic_long since;
} deeds[MOST_THREADS];
static _Thread_local int own_number;

struct turn {
    int number;
    uint64_t state;
};

static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec;
}

static void begin(const char *what) {
    atomic_store(&deeds[own_number].since, now());
    atomic_store(&deeds[own_number].what, what);
}

/* Async-signal-safe: children of a fork use it too. */
static void die(const char *what) {
    char text[200];
    int length = snprintf(text, sizeof text, "races: %s: errno %d\n", what, errno);
    if (write(2, text, length) < 0) _exit(3);
    _exit(1);
}

static uint64_t roll(struct turn *turn) {
    uint64_t s = turn->state;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    return turn->state = s;
}

static unsigned char expected(uint64_t key, size_t at) {
    uint64_t mixed = (key + at) * 0x9e3779b97f4a7c15u;
    return mixed >> 56;
}

/* A connected socket, or -1 when the network did not give one (an error a program must live with, and counted). */
static int dial(int extra) {
    begin("socket");
    int fd = socket(far.ss_family, SOCK_STREAM | extra, 0);
    if (fd < 0) die("socket");
    begin("connect");
    if (connect(fd, (struct sockaddr *)&far, far_length) == 0) return fd;
    if (errno != ETIMEDOUT && errno != EHOSTUNREACH && errno != ECONNRESET && errno != ECONNREFUSED) die("connect");
    close(fd);
    atomic_fetch_add(&unreached, 1);
    return -1;
}

static void wait_for(int fd, short events) {
    struct pollfd wanted = {.fd = fd, .events = events};
    int ready;
    while ((ready = poll(&wanted, 1, WAIT_MS)) < 0 && errno == EINTR) {}
    if (ready == 0) die("nothing came for 150 s");
}

/* Sends `length` bytes and takes them back. */
static void exchange(int fd, uint64_t key, size_t length) {
    unsigned char out[BLOCK], in[BLOCK];
    begin("send");
    for (size_t sent = 0, got = 0; got < length;) {
        size_t want = length - sent < BLOCK ? length - sent : BLOCK;
        for (size_t i = 0; i < want; i++) out[i] = expected(key, sent + i);
        for (size_t i = 0; i < want;) {
            ssize_t more = send(fd, out + i, want - i, MSG_NOSIGNAL);
            if (more < 0 && (errno == EAGAIN || errno == EINTR)) wait_for(fd, POLLOUT);
            else if (more <= 0) die("send");
            else i += more;
        }
        sent += want;
        begin("the echo");
        while (got < sent) {
            wait_for(fd, POLLIN);
            ssize_t more = recv(fd, in, sizeof in, MSG_DONTWAIT);
            if (more < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (more <= 0) die("the echo ended early");
            for (ssize_t i = 0; i < more; i++)
                if (in[i] != expected(key, got + i)) die("a wrong byte");
            got += more;
        }
    }
    atomic_fetch_add(&exchanges, 1);
    atomic_fetch_add(&bytes, (long)length);
}

static size_t some_length(struct turn *turn) {
    return 1 + roll(turn) % (roll(turn) % 8 == 0 ? 200000 : 3000);
}

static void plain(struct turn *turn) {
    int fd = dial(roll(turn) % 2 ? SOCK_CLOEXEC : 0);
    if (fd < 0) return;
    uint64_t key = roll(turn);
    exchange(fd, key, some_length(turn));
    exchange(fd, key + 7, some_length(turn));
    close(fd);
}

/* The copy lives on when the original is closed. */
static void copied(struct turn *turn) {
    int fd = dial(0), copy;
    if (fd < 0) return;
    switch (roll(turn) % 3) {
    case 0: copy = dup(fd); break;
    case 1: copy = fcntl(fd, F_DUPFD_CLOEXEC, 100); break;
    default: {
        int other = socket(AF_INET6, SOCK_STREAM, 0);
        if (other < 0) die("socket");
        copy = dup2(fd, other);
    }
    }
    if (copy < 0) die("dup");
    close(fd);
    exchange(copy, roll(turn), some_length(turn));
    close(copy);
}

/* Closed at any stage of a connect that nobody waits for. */
static void abandon(struct turn *turn) {
    int fd = socket(far.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&far, far_length) < 0 && errno != EINPROGRESS) die("connect, not waiting");
    struct pollfd wanted = {.fd = fd, .events = POLLOUT};
    if (roll(turn) % 2) poll(&wanted, 1, roll(turn) % 20);
    if (roll(turn) % 3 == 0) shutdown(fd, SHUT_RDWR);
    close(fd);
    atomic_fetch_add(&abandoned, 1);
}

/* The child goes on with the parent's connection, or makes its own; only what a forked thread may call. */
static void forked(struct turn *turn) {
    int own = roll(turn) % 2, fd = own ? -1 : dial(0);
    if (!own && fd < 0) return;
    uint64_t key = roll(turn);
    size_t length = some_length(turn);
    begin("fork");
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        if (own) fd = dial(0);
        if (fd >= 0) exchange(fd, key, length);
        _exit(0);
    }
    if (fd >= 0) close(fd);
    begin("a child");
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) die("waitpid");
    if (status != 0) die("a child failed");
    atomic_fetch_add(&forks, 1);
}

/* Through a Unix socket and back: the descriptor that arrives is used. */
static void passed(struct turn *turn) {
    int pair[2], fd = dial(0);
    if (fd < 0) return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) die("socketpair");
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } beside;
    char byte = 'x';
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    memset(&beside, 0, sizeof beside);
    beside.head.cmsg_level = SOL_SOCKET;
    beside.head.cmsg_type = SCM_RIGHTS;
    beside.head.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&beside.head), &fd, sizeof fd);
    if (sendmsg(pair[0], &message, 0) != 1) die("sendmsg");
    close(fd);
    message.msg_controllen = sizeof beside;
    if (recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) != 1) die("recvmsg");
    struct cmsghdr *got = CMSG_FIRSTHDR(&message);
    if (!got || got->cmsg_type != SCM_RIGHTS) die("no descriptor arrived");
    memcpy(&fd, CMSG_DATA(got), sizeof fd);
    close(pair[0]);
    close(pair[1]);
    exchange(fd, roll(turn), some_length(turn));
    close(fd);
}

static void refused(struct turn *turn) {
    (void)turn;
    begin("connect to a closed port");
    int fd = socket(closed.ss_family, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&closed, far_length) == 0) die("a closed port was open");
    if (errno == ECONNREFUSED) atomic_fetch_add(&refusals, 1);
    else if (errno == ETIMEDOUT || errno == EHOSTUNREACH) atomic_fetch_add(&unreached, 1);
    else die("connect to a closed port");
    close(fd);
}

static void named(struct turn *turn) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int known = roll(turn) % 2;
    begin("getaddrinfo");
    int answer = getaddrinfo(known ? host : "nowhere.phantom", "80", &hints, &found);
    if (known && answer != 0) die("the name was not found");
    if (!known && answer == 0) die("a name that is none was found");
    if (answer == 0) freeaddrinfo(found);
    atomic_fetch_add(&names, 1);
}

static void *race(void *given) {
    struct turn *turn = given;
    static void (*const ways[])(struct turn *) = {plain, plain, copied, abandon, forked, passed, refused, named};
    own_number = turn->number;
    while (now() < end) {
        begin("a turn");
        ways[roll(turn) % (sizeof ways / sizeof *ways)](turn);
    }
    begin(NULL);
    return NULL;
}

static int descriptors(void) {
    DIR *all = opendir("/proc/self/fd");
    int count = 0;
    if (!all) die("/proc/self/fd");
    while (readdir(all)) count++;
    closedir(all);
    return count;
}

/* Until all threads have ended; one that is at the same step for long hangs. */
static void oversee(int threads) {
    for (int alive = 1; alive;) {
        sleep(1);
        alive = 0;
        for (int i = 0; i < threads; i++) {
            const char *what = atomic_load(&deeds[i].what);
            if (!what) continue;
            alive = 1;
            if (now() - atomic_load(&deeds[i].since) <= STUCK_SECONDS) continue;
            fprintf(stderr, "races: %s takes over %d s\n", what, STUCK_SECONDS);
            die("a thread hangs");
        }
    }
}

static void place(struct sockaddr_storage *to, const char *address, int port) {
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)to;
    struct sockaddr_in *four = (struct sockaddr_in *)to;
    if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        far_length = sizeof *six;
    } else if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        far_length = sizeof *four;
    } else die("ADDRESS is none");
}

int main(int count, char **words) {
    if (count != 7) {
        fprintf(stderr, "usage: races HOST ADDRESS PORT SECONDS THREADS SEED\n");
        return 2;
    }
    int port = atoi(words[3]), threads = atoi(words[5]);
    uint64_t seed = strtoull(words[6], NULL, 10);
    if (threads < 1 || threads > MOST_THREADS) die("THREADS");
    host = words[1];
    place(&far, words[2], port);
    place(&closed, words[2], port == 1 ? 2 : 1);
    signal(SIGPIPE, SIG_IGN);
    /* With the first socket the library opens the line on which it asks for them, and keeps it (docs/semantics.md). */
    int first = socket(AF_INET6, SOCK_STREAM, 0);
    if (first < 0) die("socket");
    close(first);
    int before = descriptors();
    end = now() + atoi(words[4]);
    static pthread_t racers[MOST_THREADS];
    static struct turn turns[MOST_THREADS];
    for (int i = 0; i < threads; i++) {
        atomic_store(&deeds[i].since, now());
        atomic_store(&deeds[i].what, "its start");
        turns[i] = (struct turn){.number = i, .state = (seed + i + 1) * 0x9e3779b97f4a7c15u};
        if (pthread_create(&racers[i], NULL, race, &turns[i]) != 0) die("pthread_create");
    }
    oversee(threads);
    for (int i = 0; i < threads; i++) pthread_join(racers[i], NULL);
    int after = descriptors();
    printf("{\"exchanges\":%ld,\"bytes\":%ld,\"refusals\":%ld,\"abandoned\":%ld,\"forks\":%ld,\"names\":%ld,\"unreached\":%ld,"
           "\"left_behind\":%d}\n",
           exchanges, bytes, refusals, abandoned, forks, names, unreached, after - before);
    return after > before;
}
