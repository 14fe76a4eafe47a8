/* Starts argv[2] in the way argv[1] with an empty environment, wherever the way allows one. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

static char *const none[] = {NULL};
static char *const one[] = {"KEPT=yes", NULL};

static int wait_for(pid_t child) {
    int status = -1;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static int command(const char *way, const char *program) {
    char line[512];
    FILE *pipe;
    if (strcmp(way, "system") == 0)
        return system(program);
    snprintf(line, sizeof line, "$(%s)", program);
    wordexp_t words;
    if (strcmp(way, "wordexp") == 0) {
        if (wordexp(line, &words, 0))
            return 98;
        for (size_t i = 0; i < words.we_wordc; i++)
            printf("%s\n", words.we_wordv[i]);
        return 0;
    }
    if (!(pipe = popen(program, "r")))
        return 97;
    while (fgets(line, sizeof line, pipe))
        fputs(line, stdout);
    return pclose(pipe);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const char *way = argv[1], *program = argv[2];
    char *const arguments[] = {argv[2], NULL};
    int file = open(program, O_RDONLY);
    pid_t child;
    clearenv();
    if (strcmp(way, "execve") == 0)
        execve(program, arguments, none);
    if (strcmp(way, "execve-null") == 0)
        execve(program, arguments, NULL);
    if (strcmp(way, "execve-long") == 0) {
        static char *many[1001];
        for (int i = 0; i < 1000; i++)
            many[i] = "LONG=long";
        execve(program, arguments, many);
    }
    if (strcmp(way, "execve-other") == 0) {
        char *const other[] = {"PHANTOM_SESSION=", "LD_PRELOAD=libc.so.6", NULL};
        execve(program, arguments, other);
    }
    if (strcmp(way, "execv") == 0)
        execv(program, arguments);
    if (strcmp(way, "execvp") == 0)
        execvp(program, arguments);
    if (strcmp(way, "execvpe") == 0)
        execvpe(program, arguments, one);
    if (strcmp(way, "fexecve") == 0)
        fexecve(file, arguments, one);
    if (strcmp(way, "execveat") == 0)
        execveat(AT_FDCWD, program, arguments, one, 0);
    if (strcmp(way, "execl") == 0)
        execl(program, program, NULL);
    if (strcmp(way, "execl-long") == 0)
        execl("/bin/echo", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", NULL);
    if (strcmp(way, "execlp") == 0)
        execlp("env", "env", "A=1", "B=2", "C=3", "D=4", "E=5", program, NULL);
    if (strcmp(way, "execle") == 0)
        execle("/usr/bin/env", "env", "A=1", "B=2", "C=3", "D=4", "E=5", program, NULL, one);
    if (strcmp(way, "syscall") == 0)
        syscall(SYS_execve, program, arguments, none);
    if (strcmp(way, "vfork") == 0) {
        if ((child = vfork()) == 0) {
            execve(program, arguments, none);
            _exit(1);
        }
        return wait_for(child);
    }
    if (strcmp(way, "posix_spawn") == 0)
        return posix_spawn(&child, program, NULL, NULL, arguments, none) ? 96 : wait_for(child);
    if (strcmp(way, "posix_spawnp") == 0)
        return posix_spawnp(&child, program, NULL, NULL, arguments, none) ? 96 : wait_for(child);
    if (strcmp(way, "posix_spawn-missing") == 0)
        return posix_spawn(&child, "/nowhere", NULL, NULL, arguments, none);
    if (strcmp(way, "execve-missing") == 0)
        return execve("/nowhere", arguments, none) == -1 ? 0 : 1;
    if (strcmp(way, "system") == 0 || strcmp(way, "popen") == 0 || strcmp(way, "wordexp") == 0)
        return command(way, program);
    return 3;
}
