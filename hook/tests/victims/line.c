/* The line that a process keeps to the daemon: what the program does with its descriptors, processes and rights meanwhile.
 *
 * Usage: line WHAT   one of the functions below; prints what is not as it should be
 */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 2048, NOBODY = 65534 };

static ino_t file_of(int fd) {
    struct stat about;
    return fstat(fd, &about) ? 0 : about.st_ino;
}

static int descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < MOST; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* Where it lies; this program has no other local sockets that high. */
static int line(void) {
    for (int fd = 24; fd < MOST; fd++) {
        int domain = 0;
        socklen_t length = sizeof domain;
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX)
            return fd;
    }
    return -1;
}

static int makes_sockets(int count) {
    for (int i = 0; i < count; i++) {
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), domain = 0;
        socklen_t length = sizeof domain;
        if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) || domain != AF_INET6)
            return 0;
        close(fd);
    }
    return 1;
}

/* One for all sockets, which no program that is started gets. */
static void kept(void) {
    int before = descriptors();
    EXPECT(makes_sockets(100));
    EXPECT(line() >= 0 && descriptors() == before + 1);
    EXPECT(fcntl(line(), F_GETFD) == FD_CLOEXEC);
}

static void *hurry(void *stop) {
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
        EXPECT(makes_sockets(1));
    return NULL;
}

static int has_its_own(ino_t parents) {
    if (!makes_sockets(3) || line() < 0)
        return 0;
    for (int fd = 3; fd < MOST; fd++)
        if (file_of(fd) == parents)
            return 0;
    return 1;
}

/* Children of a program whose threads are at it. */
static void forked(void) {
    static int stop;
    pthread_t threads[3];
    EXPECT(makes_sockets(1));
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, hurry, &stop);
    ino_t own = file_of(line());
    for (int i = 0; i < 40; i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(!has_its_own(own));
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
        child = vfork();
        if (child == 0)
            _exit(socket(AF_INET6, SOCK_STREAM, 0) < 0);
        EXPECT(waitpid(child, &status, 0) == child && status == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    EXPECT(file_of(line()) == own);
}

static volatile sig_atomic_t forks;

static void on_alarm(int signal) {
    (void)signal;
    forks += fork() > 0;
}

/* Children that come about in the middle of socket(), and go on with it. */
static void interrupted(void) {
    EXPECT(makes_sockets(1));
    pid_t parent = getpid();
    ino_t own = file_of(line());
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    while (forks < 40) {
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        if (getpid() != parent) {
            signal(SIGALRM, SIG_IGN);
            _exit(fd < 0 || !has_its_own(own));
        }
        EXPECT(fd >= 0);
        close(fd);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    for (int status, i = 0; i < forks; i++)
        EXPECT(wait(&status) > 0 && status == 0);
    EXPECT(file_of(line()) == own);
}

/* Everything is closed, as daemons do. */
static void closed(void) {
    EXPECT(makes_sockets(1));
    for (int round = 0; round < 3; round++) {
        ino_t before = file_of(line());
        closefrom(3);
        EXPECT(line() < 0);
        EXPECT(socket(AF_INET6, SOCK_STREAM, 0) == 3 && makes_sockets(3));
        EXPECT(line() >= 0 && file_of(line()) != before);
    }
}

/* Something of the program's lies where it was: nothing of it goes to the daemon, nothing of the daemon's to it. */
static void covered(void) {
    int pair[2], waiting = 0;
    char said[8] = "";
    EXPECT(makes_sockets(1));
    int place = line();
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && dup2(pair[0], place) == place);
    ino_t own = file_of(place);
    EXPECT(write(pair[1], "mine", 4) == 4);
    EXPECT(makes_sockets(3));
    EXPECT(file_of(place) == own);
    EXPECT(ioctl(pair[1], FIONREAD, &waiting) == 0 && waiting == 0);
    EXPECT(read(place, said, sizeof said) == 4 && memcmp(said, "mine", 4) == 0);
    close(place);
    EXPECT(line() >= 0);
}

/* The table is full; the last place in it is enough. */
static void full(void) {
    struct rlimit limit, few;
    EXPECT(makes_sockets(1) && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    ino_t own = file_of(line());
    int next = dup(0);
    close(next);
    few = limit;
    few.rlim_cur = next;
    setrlimit(RLIMIT_NOFILE, &few);
    FAILS(socket(AF_INET6, SOCK_STREAM, 0), EMFILE);
    few.rlim_cur = next + 1;
    setrlimit(RLIMIT_NOFILE, &few);
    EXPECT(makes_sockets(3));
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    EXPECT(fd == next);
    FAILS(socket(AF_INET6, SOCK_STREAM, 0), EMFILE);
    close(fd);
    /* Without it as well, once there is room for a connection. */
    close(line());
    few.rlim_cur = next + 2;
    setrlimit(RLIMIT_NOFILE, &few);
    EXPECT(makes_sockets(3) && line() < 0);
    setrlimit(RLIMIT_NOFILE, &limit);
    EXPECT(makes_sockets(100) && line() >= 0 && file_of(line()) != own);
}

/* The daemon was started anew. */
static void ended(void) {
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
        EXPECT(makes_sockets(3));
        ino_t before = file_of(line());
        EXPECT(shutdown(line(), how) == 0);
        errno = 77;
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        EXPECT(fd >= 0 && errno == 77);
        close(fd);
        EXPECT(line() >= 0 && file_of(line()) != before);
    }
}

/* No way leads to the daemon any more. */
static void jailed(void) {
    EXPECT(makes_sockets(1));
    EXPECT(chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0);
    EXPECT(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    EXPECT(makes_sockets(3));
    close(line());
    FAILS(socket(AF_INET6, SOCK_STREAM, 0), ENETDOWN);
}

int main(int count, char **words) {
    struct {
        const char *what;
        void (*run)(void);
    } all[] = {{"kept", kept},     {"forked", forked}, {"interrupted", interrupted}, {"closed", closed},
               {"covered", covered}, {"full", full},     {"ended", ended},             {"jailed", jailed}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (count == 2 && strcmp(words[1], all[i].what) == 0) {
            all[i].run();
            return failures != 0;
        }
    }
    return 2;
}
