/* Calls in the midst of which a handler forks: the daemon of this test sends the signal before it answers, while the call waits.
 * The child goes on with the same call. Both must get what they would without the other, and nothing is left behind. */
#include "check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1024 };

static volatile sig_atomic_t forks;
static int emulated;

static void on_signal(int signal) {
    int was = errno;
    (void)signal;
    pid_t child = fork();
    if (child > 0)
        forks++;
    else
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    errno = was;
}

/* What is open where programs have theirs: lines lie above. */
static int descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < MOST / 2; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static const struct sockaddr_in6 *web(void) {
    static struct sockaddr_in6 to = {.sin6_family = AF_INET6};
    to.sin6_port = htons(80);
    inet_pton(AF_INET6, "fd70::1", &to.sin6_addr);
    return &to;
}

/* Runs a call; the child's own status says how it went there. */
#define BOTH(call)                                                                                                      \
    do {                                                                                                                \
        pid_t parent = getpid();                                                                                        \
        int open = descriptors(), status, met;                                                                          \
        sigset_t before = {0}, after = {0};                                                                             \
        sigprocmask(SIG_BLOCK, NULL, &before);                                                                          \
        forks = 0;                                                                                                      \
        errno = 77;                                                                                                     \
        met = (call);                                                                                                   \
        sigprocmask(SIG_BLOCK, NULL, &after);                                                                           \
        met = met && memcmp(&before, &after, sizeof before) == 0 && descriptors() == open;                              \
        if (getpid() != parent)                                                                                         \
            _exit(!met);                                                                                                \
        EXPECT(met);                                                                                                    \
        EXPECT(forks > 0);                                                                                              \
        for (; forks > 0; forks--)                                                                                      \
            EXPECT(wait(&status) > 0 && status == 0);                                                                   \
    } while (0)

static int makes(int kind) {
    int lowest = dup(0), domain = 0;
    socklen_t length = sizeof domain;
    close(lowest);
    errno = 77;
    int fd = socket(AF_INET6, kind, 0);
    int met = fd == lowest && errno == 77 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
              domain == AF_INET6 && fcntl(fd, F_GETFD) == (kind & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    close(fd);
    return met;
}

static int resolves(void) {
    struct addrinfo *found = NULL;
    int met = getaddrinfo("web.phantom", "80", NULL, &found) == 0 && found != NULL;
    if (found)
        freeaddrinfo(found);
    return met;
}

/* In the place that it is to have. */
static int opens(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    return fd >= 0 && errno == 77 && dup2(fd, emulated) == emulated && close(fd) == 0;
}

static int is_named(void) {
    struct sockaddr_in6 own = {0};
    socklen_t length = sizeof own;
    return getsockname(emulated, (struct sockaddr *)&own, &length) == 0 && errno == 77 && own.sin6_port == htons(80);
}

static int connects(void) { return connect(emulated, (const struct sockaddr *)web(), sizeof *web()); }

int main(int count, char **words) {
    struct sigaction goes_on = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, ends = {.sa_handler = on_signal};
    int emulates = count == 2 && strcmp(words[1], "emulated") == 0;
    sigaction(SIGUSR1, &goes_on, NULL);
    if (!emulates) {
        BOTH(makes(SOCK_STREAM));
        BOTH(makes(SOCK_DGRAM | SOCK_CLOEXEC));
        BOTH(resolves());
        sigaction(SIGUSR1, &ends, NULL);
        BOTH(makes(SOCK_STREAM));
        BOTH(resolves());
        return failures != 0;
    }
    emulated = dup(0);
    BOTH(opens());
    BOTH(bind(emulated, (const struct sockaddr *)web(), sizeof *web()) == 0 && errno == 77);
    BOTH(is_named());
    BOTH(listen(emulated, 1) == 0 && errno == 77);
    /* As connect(2): a handler that says so lets it go on, any other ends it. */
    BOTH(connects() == 0 && errno == 77);
    sigaction(SIGUSR1, &ends, NULL);
    BOTH(is_named());
    BOTH(connects() == -1 && errno == EINTR);
    return failures != 0;
}
