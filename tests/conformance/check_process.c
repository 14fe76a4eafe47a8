/* Connections that several descriptors and processes share, and calls that signals interrupt. */
#include "conform.h"

#include <spawn.h>
#include <sys/time.h>

extern char **environ;

/* Whether bytes go both ways. */
static const char *alive(struct pair *pair, int fd)
{
    char bytes[4] = "";
    if (send(fd, "ping", 4, MSG_NOSIGNAL) != 4)
        return errno_name(errno);
    if (far_call(&pair->far, "read %d 4", pair->there) != 4 || strcmp(pair->far.text, "ping"))
        return "not there";
    far_call(&pair->far, "write %d pong", pair->there);
    return recv(fd, bytes, 4, MSG_WAITALL) == 4 && !memcmp(bytes, "pong", 4) ? "alive" : "not back";
}

static void copies(void)
{
    struct pair pair;
    pair_open(&pair);
    int one = dup(pair.fd), two = dup2(pair.fd, 100), three = fcntl(pair.fd, F_DUPFD, 120);
    int four = fcntl(pair.fd, F_DUPFD_CLOEXEC, 140), five = dup3(pair.fd, 160, O_CLOEXEC);
    say("numbers", "%d %d %d %d", two, three, four, five);
    say("flags", "%d %d %d", fcntl(three, F_GETFD), fcntl(four, F_GETFD), fcntl(five, F_GETFD));
    fcntl(one, F_SETFL, O_NONBLOCK);
    say("shared_flags", "%s", yes(fcntl(five, F_GETFL) & O_NONBLOCK));
    fcntl(five, F_SETFL, 0);
    close(pair.fd);
    say("first_closed", "%s", alive(&pair, one));
    close(one);
    close(two);
    close(three);
    say("most_closed", "%s", alive(&pair, five));
    close(four);
    close(five);
    say("all_closed", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    say("use_closed", "%s", outcome(send(five, "x", 1, MSG_NOSIGNAL)));
}

static void before_connect(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0), copy = dup(fd);
    say("connect", "%s", outcome(dial6(copy, pair.port)));
    close(copy);
    pair.there = (int)far_call(&pair.far, "accept %d", pair.listener);
    say("original", "%s", alive(&pair, fd));
}

/* dup2 over a connection closes it. */
static void covered(void)
{
    struct pair pair;
    pair_open(&pair);
    int other = open("/dev/null", O_RDWR);
    say("dup2", "%s", yes(dup2(other, pair.fd) == pair.fd));
    say("there", "%ld", far_call(&pair.far, "read %d 1", pair.there));
}

static void send_descriptor(int over, int fd)
{
    char byte = 0, room[CMSG_SPACE(sizeof fd)] = "";
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(control), &fd, sizeof fd);
    sendmsg(over, &message, MSG_NOSIGNAL);
}

static int receive_descriptor(int over)
{
    int fd = -1;
    char byte, room[CMSG_SPACE(sizeof fd)];
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
    if (recvmsg(over, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* A connection goes to another process, which goes on with it after we have closed ours. */
static void passed(void)
{
    struct pair pair;
    int ends[2], status = 1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
        broken("socketpair");
    pid_t child = fork();
    if (child == 0) {
        char bytes[8];
        close(ends[0]);
        int fd = receive_descriptor(ends[1]);
        _exit(recv(fd, bytes, 5, MSG_WAITALL) == 5 && send(fd, bytes, 5, MSG_NOSIGNAL) == 5 ? 0 : 1);
    }
    pair_open(&pair);
    send_descriptor(ends[0], pair.fd);
    close(pair.fd);
    far_call(&pair.far, "write %d hello", pair.there);
    long got = far_call(&pair.far, "read %d 5", pair.there);
    say("echo", "%ld %s", got, pair.far.text);
    say("end", "%ld", far_call(&pair.far, "read %d 1", pair.there));
    waitpid(child, &status, 0);
    say("child", "%d", status);
}

/* A socket is passed before it is connected. */
static void passed_fresh(void)
{
    struct pair pair;
    int ends[2];
    pair_open(&pair);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
        broken("socketpair");
    pid_t child = fork();
    if (child == 0) {
        send_descriptor(ends[1], stream6(0));
        _exit(0);
    }
    int fd = receive_descriptor(ends[0]);
    waitpid(child, NULL, 0);
    set_time_limit(fd, PATIENCE);
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    pair.there = (int)far_call(&pair.far, "accept %d", pair.listener);
    say("use", "%s", alive(&pair, fd));
}

static void forked(void)
{
    struct pair pair;
    int status = 1;
    pair_open(&pair);
    pid_t child = fork();
    if (child == 0)
        _exit(send(pair.fd, "child", 5, MSG_NOSIGNAL) == 5 ? 0 : 1);
    waitpid(child, &status, 0);
    say("child", "%d", status);
    far_call(&pair.far, "read %d 5", pair.there);
    say("bytes", "%s", pair.far.text);
    say("parent", "%s", alive(&pair, pair.fd));
    child = fork();
    if (child == 0) {
        // A connection of the child's own.
        int fd = stream6(0);
        _exit(dial6(fd, pair.port) == 0 && send(fd, "mine", 4, MSG_NOSIGNAL) == 4 ? 0 : 1);
    }
    int there = (int)far_call(&pair.far, "accept %d", pair.listener);
    far_call(&pair.far, "read %d 4", there);
    say("of_child", "%s", pair.far.text);
    waitpid(child, &status, 0);
    say("end_of_child", "%ld", far_call(&pair.far, "read %d 1", there));
}

/* A program started anew has the connection as its standard output. */
static void executed(void)
{
    struct pair pair;
    pid_t child;
    int status = 1;
    pair_open(&pair);
    char *command[] = { "/bin/sh", "-c", "echo from a shell", NULL };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pair.fd, STDOUT_FILENO);
    int error = posix_spawn(&child, command[0], &actions, NULL, command, environ);
    say("spawn", "%s", errno_name(error));
    waitpid(child, &status, 0);
    say("status", "%d", status);
    far_call(&pair.far, "read %d 13", pair.there);
    say("bytes", "%s", pair.far.text);
    say("parent", "%s", alive(&pair, pair.fd));
}

static void on_alarm(int number) { (void)number; }

static void alarm_soon(int flags)
{
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
    struct itimerval soon = { .it_value.tv_usec = 200000 };
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void no_time_limit(int fd)
{
    // A read with a time limit is never restarted.
    set_time_limit(fd, 0);
}

static void interrupted_read(void)
{
    struct pair pair;
    char bytes[8] = "";
    pair_open(&pair);
    alarm_soon(0);
    say("limited", "%s", outcome(recv(pair.fd, bytes, 4, 0)));
    no_time_limit(pair.fd);
    alarm_soon(0);
    say("unlimited", "%s", outcome(recv(pair.fd, bytes, 4, 0)));
    alarm_soon(SA_RESTART);
    far_ask(&pair.far, "wait 600");
    far_ask(&pair.far, "write %d abcd", pair.there);
    say("restarted", "%s", outcome(recv(pair.fd, bytes, 4, 0)));
    alarm_soon(SA_RESTART);
    say("poll", "%s", outcome(poll(&(struct pollfd){ pair.fd, POLLIN, 0 }, 1, 5000)));
}

static void interrupted_accept(void)
{
    int fd = stream6(0);
    listen(fd, 1);
    alarm_soon(0);
    say("accept", "%s", outcome(accept(fd, NULL, NULL)));
    struct sockaddr_in6 name;
    socklen_t length = sizeof name;
    getsockname(fd, (struct sockaddr *)&name, &length);
    name.sin6_addr = in6addr_loopback;
    pid_t child = fork();
    if (child == 0) {
        poll(NULL, 0, 600);
        _exit(connect(stream6(0), (struct sockaddr *)&name, sizeof name) == 0 ? 0 : 1);
    }
    alarm_soon(SA_RESTART);
    say("restarted", "%s", yes(accept(fd, NULL, NULL) >= 0));
    waitpid(child, NULL, 0);
}

const struct check process_checks[] = {
    { "process.copies", copies },
    { "process.before_connect", before_connect },
    { "process.covered", covered },
    { "process.passed", passed },
    { "process.passed_fresh", passed_fresh },
    { "process.forked", forked },
    { "process.executed", executed },
    { "process.interrupted_read", interrupted_read },
    { "process.interrupted_accept", interrupted_accept },
    { NULL, NULL },
};
