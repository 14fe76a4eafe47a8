/* Programs that are started so that they forget who started them: empty environments, other loaders, static twins. */
#include "hostile.h"
#include <sched.h>
#include <spawn.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

static char number[16];
static char *const nothing[] = {NULL};

static char *const *plainly(const char *program, const struct aim *aim) {
    static char *words[4];
    snprintf(number, sizeof number, "%d", aim->number);
    words[0] = (char *)program;
    words[1] = "--plain";
    words[2] = number;
    return words;
}

static int empty_execve(const struct aim *aim) {
    pid_t pid = fork();
    if (pid == 0) {
        execve(world.self, plainly(world.self, aim), nothing);
        end_like(-1);
    }
    return child_fate(pid);
}

static int empty_syscall(const struct aim *aim) {
    pid_t pid = fork();
    if (pid == 0) {
        syscall(SYS_execve, world.self, plainly(world.self, aim), nothing);
        end_like(-1);
    }
    return child_fate(pid);
}

/* Without any library in between: this is what a static or a Go program does. */
static int empty_inline(const struct aim *aim) {
    char *const *words = plainly(world.self, aim);
    pid_t pid = fork();
    if (pid == 0) {
#if defined __x86_64__
        long result;
        __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_execve), "D"(world.self), "S"(words), "d"(nothing) : "rcx", "r11", "memory");
        errno = (int)-result;
#else
        execve(world.self, words, nothing);
#endif
        end_like(-1);
    }
    return child_fate(pid);
}

static int empty_spawn(const struct aim *aim) {
    pid_t pid;
    int error = posix_spawn(&pid, world.self, NULL, NULL, plainly(world.self, aim), nothing);
    errno = error;
    return error ? -1 : child_fate(pid);
}

static int empty_vfork(const struct aim *aim) {
    char *const *words = plainly(world.self, aim);
    pid_t pid = vfork();
    if (pid == 0) {
        execve(world.self, words, nothing);
        _exit(errno);
    }
    return child_fate(pid);
}

static int empty_fexecve(const struct aim *aim) {
    int fd = open(world.self, O_RDONLY | O_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        fexecve(fd, plainly(world.self, aim), nothing);
        end_like(-1);
    }
    return closing(fd, child_fate(pid));
}

static int empty_execveat(const struct aim *aim) {
    int fd = open(world.self, O_PATH | O_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        syscall(SYS_execveat, fd, "", plainly(world.self, aim), nothing, AT_EMPTY_PATH);
        end_like(-1);
    }
    return closing(fd, child_fate(pid));
}

/* A program that lies on no disk. */
static int from_memory(const struct aim *aim) {
    char bytes[65536];
    ssize_t length;
    int from = open(world.self, O_RDONLY), to = (int)syscall(SYS_memfd_create, "program", 0);
    while ((length = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)length) != length)
            return -1;
    pid_t pid = fork();
    if (pid == 0) {
        fexecve(to, plainly("program", aim), nothing);
        end_like(-1);
    }
    return closing(to, closing(from, child_fate(pid)));
}

static int by_shell(const struct aim *aim) {
    char command[512];
    snprintf(command, sizeof command, "env -i '%s' --plain %d", world.self, aim->number);
    int status = system(command);
    if (WEXITSTATUS(status) >= 200)
        return WEXITSTATUS(status) - 200;
    errno = WEXITSTATUS(status);
    return -1;
}

/* Detached from everything: a daemon of its own. */
static int daemonized(const struct aim *aim) {
    int pipes[2], fate = -1;
    if (pipe(pipes) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        if (fork() == 0) {
            clearenv();
            int result = plain(aim);
            int said[2] = {result, errno};
            _exit(write(pipes[1], said, sizeof said) < 0);
        }
        _exit(0);
    }
    int said[2] = {-1, ECHILD};
    close(pipes[1]);
    if (read(pipes[0], said, sizeof said) == sizeof said)
        fate = said[0];
    waitpid(pid, NULL, 0);
    errno = said[1];
    return fate;
}

static int by_clone3(const struct aim *aim) {
    uint64_t arguments[11] = {[4] = SIGCHLD};
    long pid = syscall(435, arguments, sizeof arguments);
    if (pid == 0)
        end_like(plain(aim));
    return child_fate((pid_t)pid);
}

static int static_twin(const struct aim *aim) {
    if (!world.twin)
        return ABSENT;
    pid_t pid = fork();
    if (pid == 0) {
        execv(world.twin, plainly(world.twin, aim));
        end_like(-1);
    }
    return child_fate(pid);
}

/* The loader as a program, told to preload nothing. */
static int by_loader(const struct aim *aim) {
    char *const words[] = {"ld.so", "--preload", "", (char *)world.self, "--plain", (plainly("", aim), number), NULL};
#ifdef STATIC
    (void)words;
    return ABSENT;
#else
    pid_t pid = fork();
    if (pid == 0) {
        execve("/lib64/ld-linux-x86-64.so.2", words, nothing);
        end_like(-1);
    }
    int result = child_fate(pid);
    return result < 0 && errno == ENOENT ? ABSENT : result;
#endif
}

/* A setuid program of root's is started: it must not become root, whose sockets nobody looks at. */
static int setuid_copy(const struct aim *aim) {
    char copy[128], bytes[65536];
    ssize_t length;
    (void)aim;
    snprintf(copy, sizeof copy, "/tmp/.hostile-%d", getpid());
    int from = open("/bin/sh", O_RDONLY), to = open(copy, O_WRONLY | O_CREAT | O_EXCL, 0755);
    while ((length = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)length) != length)
            return -1;
    close(from);
    close(to);
    if (geteuid() != 0 || chown(copy, 65534, 65534) < 0 || chmod(copy, 04755) < 0) {
        unlink(copy);
        return ABSENT;
    }
    pid_t pid = fork();
    if (pid == 0) {
        execl(copy, "sh", "-p", "-c", "test $(id -u) = 65534 && exit 200; exit 1", NULL);
        end_like(-1);
    }
    int result = child_fate(pid);
    unlink(copy);
    return result;
}

const struct attack children[] = {
    {"execve-empty", empty_execve}, {"execve-empty-syscall", empty_syscall}, {"execve-empty-inline", empty_inline},
    {"posix_spawn-empty", empty_spawn}, {"vfork-empty", empty_vfork}, {"fexecve-empty", empty_fexecve},
    {"execveat-empty", empty_execveat}, {"memfd-program", from_memory}, {"env-i-in-shell", by_shell},
    {"daemonized", daemonized}, {"clone3", by_clone3}, {"static-twin", static_twin}, {"loader", by_loader},
    {"setuid-copy", setuid_copy}, {NULL, NULL},
};
