/* The hostile program: tries every way out that it knows, all at once, and prints one line for each.
 *
 *   hostile KEY=VALUE...          all attacks, each in a process of its own
 *   hostile --plain NUMBER        what the children do: one datagram by libc
 */
#include "hostile.h"

struct world world;

/* Attacks at most: their numbers are parts of addresses. */
enum { MOST = 250 };

static const struct {
    int number;
    const char *name;
} errors[] = {
#define E(name) {name, #name}
    E(EPERM), E(ENOENT), E(ESRCH), E(EINTR), E(EIO), E(ENXIO), E(EBADF), E(ECHILD), E(EAGAIN), E(ENOMEM), E(EACCES),
    E(EFAULT), E(EBUSY), E(EEXIST), E(ENODEV), E(ENOTDIR), E(EINVAL), E(EMFILE), E(ENOTTY), E(EROFS), E(EPIPE),
    E(ENOSYS), E(ELOOP), E(ENOKEY), E(EPROTO), E(ENODATA), E(EXDEV), E(ENOTSOCK), E(EDESTADDRREQ), E(EMSGSIZE), E(EPROTOTYPE),
    E(ENOPROTOOPT), E(EPROTONOSUPPORT), E(ESOCKTNOSUPPORT), E(EOPNOTSUPP), E(EPFNOSUPPORT), E(EAFNOSUPPORT),
    E(EADDRNOTAVAIL), E(ENETDOWN), E(ENETUNREACH), E(ECONNABORTED), E(ECONNRESET), E(ENOTCONN), E(ETIMEDOUT),
    E(ECONNREFUSED), E(EHOSTUNREACH), E(EALREADY), E(EINPROGRESS), E(ENETRESET), E(EHOSTDOWN),
#undef E
};

static void print(const char *name, int result, int error) {
    static const char *const words[] = {"done", "silent", "absent", "answered"};
    if (result >= 0) {
        printf("%s %s\n", name, words[result & 3]);
        return;
    }
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].number == error) {
            printf("%s %s\n", name, errors[i].name);
            return;
        }
    printf("%s E%d\n", name, error);
}

static struct aim aim_at(int number) {
    struct aim aim = {.number = number, .port = (uint16_t)(20000 + number)};
    char text[64];
    aim.v4.sin_family = AF_INET;
    aim.v4.sin_port = htons(aim.port);
    snprintf(text, sizeof text, "198.51.100.%d", number);
    inet_pton(AF_INET, text, &aim.v4.sin_addr);
    aim.v6.sin6_family = AF_INET6;
    aim.v6.sin6_port = htons(aim.port);
    snprintf(text, sizeof text, "2001:db8:9::a:%d", number);
    inet_pton(AF_INET6, text, &aim.v6.sin6_addr);
    snprintf(aim.name, sizeof aim.name, "a%d.leak.test", number);
    return aim;
}

void end_like(int result) {
    _exit(result >= 0 ? 200 + result : errno);
}

int child_fate(pid_t pid) {
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -1;
    if (!WIFEXITED(status)) {
        errno = EINTR;
        return -1;
    }
    if (WEXITSTATUS(status) >= 200)
        return WEXITSTATUS(status) - 200;
    errno = WEXITSTATUS(status);
    return -1;
}

static void learn(const char *text) {
    const char *value = strchr(text, '=');
    if (!value)
        return;
    size_t length = (size_t)(value++ - text);
#define IS(key) (length == strlen(key) && !strncmp(text, key, length))
    if (IS("victim")) world.victim = atoi(value);
    if (IS("poor")) world.poor = atoi(value);
    if (IS("flag")) world.flag = strtoul(value, NULL, 16);
    if (IS("control")) world.control = value;
    if (IS("other")) world.other = value;
    if (IS("abstract")) world.abstract = value;
    if (IS("twin")) world.twin = value;
    if (IS("giver")) world.giver = value;
    if (IS("group")) world.group = value;
#undef IS
}

int main(int argc, char **argv) {
    static const struct attack *const all[] = {sends, names, calls, children, doors, deputies, handles, looks};
    static const char *const groups[] = {"sends", "names", "calls", "children", "doors", "deputies", "handles", "looks"};
    static struct {
        const char *name;
        pid_t pid;
        int number;
    } running[MOST];
    int count = 0;
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "--plain")) {
        struct aim aim = aim_at(atoi(argv[2]));
        end_like(plain(&aim));
    }
    world.self = argv[0];
    for (int i = 1; i < argc; i++)
        learn(argv[i]);
    for (size_t group = 0; group < sizeof all / sizeof *all; group++)
        for (const struct attack *attack = all[group]; attack->name && count < MOST; attack++, count++) {
            struct aim aim = aim_at(count + 1);
            if (world.group && strcmp(world.group, groups[group]))
                continue;
            running[count].name = attack->name;
            running[count].number = aim.number;
            running[count].pid = fork();
            if (running[count].pid == 0) {
                alarm(PATIENCE);
                end_like(attack->run(&aim));
            }
        }
    for (int i = 0; i < count; i++) {
        if (!running[i].name)
            continue;
        int result = child_fate(running[i].pid);
        printf("%d ", running[i].number);
        print(running[i].name, result, errno);
    }
    return 0;
}
