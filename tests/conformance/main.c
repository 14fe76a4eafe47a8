/* The conformance program: performs small checks of TCP between two ends and prints what a program sees, line by line.
 *
 *   conformance serve PORT                 the far end
 *   conformance check HOST PORT [NAME…]    the checks whose names begin so, or all; HOST: a name, V6,V4, or self
 *   conformance both HOST PORT [NAME…]     both in one
 */
#include "conform.h"

#include <netdb.h>
#include <sys/prctl.h>

/* Checks that run at one time: most of them wait. */
enum { AT_ONCE = 6, MOST_CHECKS = 256 };

static const struct check *const all[] = {
    connect_checks, refusal_checks, data_checks, bulk_checks, ending_checks, reset_checks,
    name_checks, listen_checks, option_checks, process_checks, datagram_checks,
};

struct running {
    const struct check *check;
    pid_t pid;
    FILE *output;
};

static void find_self(void)
{
    struct sockaddr_storage address;
    if (!own_address(AF_INET6, &address)) {
        fputs("this machine has no IPv6 address\n", stderr);
        exit(1);
    }
    memcpy(&target.v6, &address, sizeof target.v6);
    if (!own_address(AF_INET, &address)) {
        fputs("this machine has no IPv4 address\n", stderr);
        exit(1);
    }
    memcpy(&target.v4, &address, sizeof target.v4);
}

static void find(const char *host)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", host);
    char *comma = strchr(copy, ',');
    if (comma)
        *comma = 0;
    for (int v4 = 0; v4 < 2; v4++) {
        struct addrinfo hints = { .ai_family = v4 ? AF_INET : AF_INET6, .ai_socktype = SOCK_STREAM }, *found;
        const char *name = v4 && comma ? comma + 1 : copy;
        int error = getaddrinfo(name, NULL, &hints, &found);
        if (error) {
            fprintf(stderr, "%s: %s\n", name, gai_strerror(error));
            exit(1);
        }
        memcpy(v4 ? (void *)&target.v4 : (void *)&target.v6, found->ai_addr, found->ai_addrlen);
        freeaddrinfo(found);
    }
}

static void start(struct running *one, const struct check *check)
{
    one->check = check;
    one->output = tmpfile();
    if (!one->output) {
        perror("a file for a check's output");
        exit(1);
    }
    one->pid = fork();
    if (one->pid == 0) {
        // What a check starts ends with it.
        setpgid(0, 0);
        dup2(fileno(one->output), STDOUT_FILENO);
        check_name = check->name;
        check->run();
        exit(0);
    }
    setpgid(one->pid, one->pid);
}

static void finish(struct running *one)
{
    struct timespec began, now;
    int status = 0;
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (waitpid(one->pid, &status, WNOHANG) == 0) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - began.tv_sec > 2 * PATIENCE) {
            kill(-one->pid, SIGKILL);
            waitpid(one->pid, &status, 0);
            break;
        }
        poll(NULL, 0, 5);
    }
    char line[1024];
    rewind(one->output);
    while (fgets(line, sizeof line, one->output))
        fputs(line, stdout);
    fclose(one->output);
    check_name = one->check->name;
    if (WIFSIGNALED(status))
        say("broken", "ended by signal %d (process %d)", WTERMSIG(status), one->pid);
    fflush(stdout);
}

static bool wanted(const char *name, char **prefixes)
{
    if (!*prefixes)
        return true;
    for (; *prefixes; prefixes++)
        if (!strncmp(name, *prefixes, strlen(*prefixes)))
            return true;
    return false;
}

static int check_main(const char *host, uint16_t port, char **prefixes)
{
    static struct running running[MOST_CHECKS];
    int begun = 0, done = 0;
    if (strcmp(host, "self"))
        find(host);
    else
        find_self();
    target.v6.sin6_port = target.v4.sin_port = htons(port);
    for (size_t file = 0; file < sizeof all / sizeof *all; file++)
        for (const struct check *check = all[file]; check->name; check++) {
            if (!wanted(check->name, prefixes) || begun == MOST_CHECKS)
                continue;
            if (begun - done == AT_ONCE)
                finish(&running[done++]);
            start(&running[begun++], check);
        }
    while (done < begun)
        finish(&running[done++]);
    return 0;
}

static int both_main(const char *host, uint16_t port, char **prefixes)
{
    int ready[2];
    char word[8];
    if (pipe(ready) < 0)
        return 1;
    pid_t server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        dup2(ready[1], STDOUT_FILENO);
        exit(serve_main(port));
    }
    close(ready[1]);
    if (read(ready[0], word, sizeof word) <= 0)
        return 1;
    int result = check_main(host, port, prefixes);
    kill(server, SIGTERM);
    return result;
}

int main(int argc, char **argv)
{
    // The default of a program, whatever started us.
    signal(SIGPIPE, SIG_DFL);
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve_main((uint16_t)atoi(argv[2]));
    if (argc >= 4 && !strcmp(argv[1], "check"))
        return check_main(argv[2], (uint16_t)atoi(argv[3]), argv + 4);
    if (argc >= 4 && !strcmp(argv[1], "both"))
        return both_main(argv[2], (uint16_t)atoi(argv[3]), argv + 4);
    fprintf(stderr, "usage: conformance serve PORT | check HOST PORT [NAME…] | both HOST PORT [NAME…]\n");
    return 2;
}
