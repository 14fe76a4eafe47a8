/* A program under a filter of its own, as a browser's processes are: it lives on when it receives descriptors, and would die
   of any question about them. */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int lane[2];

static int receive(void) {
    char byte = 'x', space[CMSG_SPACE(sizeof(int))] = "";
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &lane[0], sizeof(int));
    return sendmsg(lane[0], &message, 0) == 1 && recvmsg(lane[1], &message, 0) == 1;
}

/* Whether a child that sets up the filter in this way is killed for asking, and how it ends when it receives. */
static int child(int by_prctl, int asks) {
    pid_t pid = fork();
    if (pid == 0) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {sizeof code / sizeof *code, code};
        /* Both are tried without a program first, as Chromium does: that sets up nothing. */
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) != -1) _exit(2);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) != -1) _exit(3);
        int set = by_prctl ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)
                           : (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
        if (set != 0) _exit(4);
        if (asks) {
            int value;
            socklen_t length = sizeof value;
            getsockopt(lane[0], SOL_SOCKET, SO_TYPE, &value, &length);
            _exit(5);
        }
        _exit(receive() ? 0 : 6);
    }
    int status = -1;
    EXPECT(waitpid(pid, &status, 0) == pid);
    return status;
}

int main(void) {
    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, lane) == 0);
    for (int by_prctl = 0; by_prctl < 2; by_prctl++) {
        int killed = child(by_prctl, 1);
        EXPECT(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGSYS);
        EXPECT(child(by_prctl, 0) == 0);
    }
    return failures != 0;
}
