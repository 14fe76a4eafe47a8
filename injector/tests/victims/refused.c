// A static program under the filter that refuses: nothing but local sockets.
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    int families[] = {AF_INET, AF_INET6, AF_NETLINK, 40}, bad = 0;
    for (int i = 0; i < 4; i++) {
        if (socket(families[i], SOCK_STREAM, 0) != -1 || errno != EAFNOSUPPORT) bad = 1;
        if (syscall(SYS_socket, families[i], SOCK_DGRAM, 0) != -1 || errno != EAFNOSUPPORT) bad = 1;
    }
    if (socket(AF_PACKET, SOCK_RAW, 0) != -1 || errno != EPERM) bad = 1;
    if (syscall(425, 8, NULL) != -1 || errno != ENOSYS) bad = 1;
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(359), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0) : "memory", "r8", "r9", "r10", "r11");
    if (result != -ENOSYS) bad = 1;
#endif
    if (socket(AF_UNIX, SOCK_STREAM, 0) < 0) bad = 1;
    if (!bad) puts("all well");
    return bad;
}
