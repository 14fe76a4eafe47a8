/* Doors to another network: namespaces, processes outside, netlink, devices, and files that the kernel acts upon. */
#include "hostile.h"
#include <dirent.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define NOBODY 65534

static int opened(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    return closing(fd, fd < 0 ? -1 : DONE);
}

static const char *of(pid_t pid, const char *what) {
    static char path[160];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
    return path;
}

/* Enters a network namespace that is another than ours. Nothing is sent from there: it may be that of another test. */
static int enter(int fd, int kind) {
    struct stat before, after;
    if (fd < 0 || stat("/proc/self/ns/net", &before) < 0 || setns(fd, kind) < 0 || stat("/proc/self/ns/net", &after) < 0)
        return closing(fd, -1);
    if (before.st_ino == after.st_ino) {
        errno = EEXIST;
        return closing(fd, -1);
    }
    return closing(fd, DONE);
}

/* Every process that /proc shows: the launcher's own, the daemon, its helpers, this machine's. */
static int of_all(const char *what, int (*try)(pid_t, const char *)) {
    DIR *all = opendir("/proc");
    struct dirent *entry;
    int last = ENOENT;
    while (all && (entry = readdir(all))) {
        pid_t pid = atoi(entry->d_name);
        if (pid <= 0)
            continue;
        int result = try(pid, what);
        if (result >= 0)
            return result;
        if (errno != ENOENT && errno != ESRCH && errno != EEXIST)
            last = errno;
    }
    errno = last;
    return -1;
}

static int enter_path(pid_t pid, const char *what) {
    return enter(open(of(pid, what), O_RDONLY | O_CLOEXEC), 0);
}

static int enter_pidfd(pid_t pid, const char *what) {
    (void)what;
    return enter((int)syscall(SYS_pidfd_open, pid, 0), CLONE_NEWNET);
}

static int setns_of_all(const struct aim *aim) {
    (void)aim;
    return of_all("ns/net", enter_path);
}

static int setns_by_pidfd(const struct aim *aim) {
    (void)aim;
    return of_all(NULL, enter_pidfd);
}

static int setns_victim(const struct aim *aim) {
    (void)aim;
    return world.victim ? enter_path(world.victim, "ns/net") : ABSENT;
}

/* A user namespace outside that is ours: whoever made it may do everything there, in its networks too. */
static int setns_owned(const struct aim *aim) {
    int user = open("/run/owned-user", O_RDONLY | O_CLOEXEC), network = open("/run/owned-net", O_RDONLY | O_CLOEXEC);
    (void)aim;
    if (user < 0 || setns(user, CLONE_NEWUSER) < 0)
        return closing(network, closing(user, -1));
    close(user);
    return enter(network, CLONE_NEWNET);
}

/* Root of a user namespace of its own is root of nothing else. */
static int as_root_of_own(int flags) {
    if (unshare(CLONE_NEWUSER | flags) < 0)
        return -1;
    return 0;
}

static int own_root_raw(const struct aim *aim) {
    unsigned char packet[64];
    size_t length = datagram(aim, packet);
    if (as_root_of_own(0) < 0)
        return -1;
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (fd < 0 || sendto(fd, packet, length, 0, (const struct sockaddr *)&aim->v4, sizeof aim->v4) < 0)
        return closing(fd, -1);
    return closing(fd, SILENT);
}

static int own_root_setns(const struct aim *aim) {
    if (as_root_of_own(0) < 0)
        return -1;
    (void)aim;
    return of_all("ns/net", enter_path);
}

static int own_network(const struct aim *aim) {
    if (as_root_of_own(CLONE_NEWNET) < 0)
        return -1;
    return plain(aim);
}

static int own_root_umount(const struct aim *aim) {
    (void)aim;
    if (as_root_of_own(CLONE_NEWNS) < 0)
        return -1;
    return umount2("/etc/resolv.conf", MNT_DETACH) < 0 ? -1 : DONE;
}

static int own_root_proc(const struct aim *aim) {
    (void)aim;
    if (as_root_of_own(CLONE_NEWNS) < 0 || mount("proc", "/mnt", "proc", 0, NULL) < 0)
        return -1;
    return DONE;
}

/* Outside it is root who may: there, mounts of its own keep the world whole. */
static int unmask(const struct aim *aim) {
    (void)aim;
    if (unshare(CLONE_NEWNS) == 0)
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return umount2("/etc/resolv.conf", MNT_DETACH) < 0 ? -1 : DONE;
}

static int robbed(pid_t pid, const struct aim *aim) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, 7, 0);
    return closing(pidfd, udp_fate(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4));
}

static int written(pid_t pid) {
    unsigned long one = 1;
    struct iovec from = {&one, sizeof one}, to = {(void *)world.flag, sizeof one};
    return process_vm_writev(pid, &from, 1, &to, 1, 0) < 0 ? -1 : DONE;
}

static int traced(pid_t pid) {
    if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) < 0)
        return -1;
    waitpid(pid, NULL, 0);
    return ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0 ? -1 : DONE;
}

#define OF_VICTIM(name, call)                                                                                          \
    static int name(const struct aim *aim) {                                                                           \
        (void)aim;                                                                                                     \
        return world.victim ? (call) : ABSENT;                                                                         \
    }

OF_VICTIM(victim_ptrace, traced(world.victim))
OF_VICTIM(victim_memory, written(world.victim))
OF_VICTIM(victim_mem_file, opened(of(world.victim, "mem"), O_RDWR))
OF_VICTIM(victim_getfd, robbed(world.victim, aim))
OF_VICTIM(victim_fd_file, opened(of(world.victim, "fd/7"), O_RDWR))
OF_VICTIM(victim_root, opened(of(world.victim, "root/run/nscd/socket"), O_PATH))
OF_VICTIM(victim_network, opened(of(world.victim, "net/dev"), O_RDONLY))

/* Root may become whoever it likes: then it meets others as their equal. */
static int become_poor(void) {
    if (!world.poor)
        return ABSENT;
    if (geteuid() != 0)
        return 0;
    return setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 ? -1 : 0;
}

#define OF_POOR(name, call)                                                                                            \
    static int name(const struct aim *aim) {                                                                           \
        int poor = become_poor();                                                                                      \
        (void)aim;                                                                                                     \
        return poor ? poor : (call);                                                                                   \
    }

OF_POOR(poor_ptrace, traced(world.poor))
OF_POOR(poor_memory, written(world.poor))
OF_POOR(poor_mem_file, opened(of(world.poor, "mem"), O_RDWR))
OF_POOR(poor_getfd, robbed(world.poor, aim))
OF_POOR(poor_root, opened(of(world.poor, "root/run/nscd/socket"), O_PATH))
OF_POOR(poor_namespace, opened(of(world.poor, "ns/net"), O_RDONLY))
OF_POOR(poor_network, opened(of(world.poor, "net/dev"), O_RDONLY))

/* One request to the kernel's router; its verdict. */
static int netlink(void *message, size_t length) {
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    char answer[1024];
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0 || sendto(fd, message, length, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0 || recv(fd, answer, sizeof answer, 0) < 0)
        return closing(fd, -1);
    errno = -((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error;
    return closing(fd, errno ? -1 : DONE);
}

static int add_route(const struct aim *aim) {
    struct {
        struct nlmsghdr header;
        struct rtmsg route;
        struct rtattr at;
        uint32_t to;
        struct rtattr by;
        int device;
    } m = {{sizeof m, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, 1, 0},
           {AF_INET, 32, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST, 0},
           {8, RTA_DST}, aim->v4.sin_addr.s_addr, {8, RTA_OIF}, outer_interface()};
    return netlink(&m, sizeof m);
}

static int add_address(const struct aim *aim) {
    struct {
        struct nlmsghdr header;
        struct ifaddrmsg address;
        struct rtattr at;
        uint32_t local;
    } m = {{sizeof m, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 1, 0}, {AF_INET, 32, 0, 0, 1}, {8, IFA_LOCAL}, 0};
    inet_pton(AF_INET, "127.99.0.1", &m.local);
    (void)aim;
    return netlink(&m, sizeof m);
}

/* A wire between our namespace and that of a process outside. */
static int veth_to(pid_t pid) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct rtattr at;
        uint32_t pid;
        struct rtattr info, kind;
        char veth[8];
    } m = {{sizeof m, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 0}, {0},
           {8, IFLA_NET_NS_PID}, (uint32_t)pid, {16, IFLA_LINKINFO}, {8, IFLA_INFO_KIND}, "veth"};
    m.kind.rta_len = 8;
    m.info.rta_len = 4 + 8;
    m.header.nlmsg_len = (uint32_t)((char *)m.veth + 4 - (char *)&m);
    return netlink(&m, m.header.nlmsg_len);
}

static int veth(const struct aim *aim) {
    (void)aim;
    return world.victim ? veth_to(world.victim) : ABSENT;
}

static int own_root_veth(const struct aim *aim) {
    (void)aim;
    if (!world.victim || as_root_of_own(CLONE_NEWNET) < 0)
        return world.victim ? -1 : ABSENT;
    return veth_to(world.victim);
}

static int tun(const struct aim *aim) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    (void)aim;
    snprintf(request.ifr_name, sizeof request.ifr_name, "hostile%%d");
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        return closing(fd, -1);
    return closing(fd, DONE);
}

static int device(const struct aim *aim) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/.hostile-device-%d", aim->number);
    if (mknod(path, S_IFCHR | 0600, (10 << 8) | 200) < 0)
        return -1;
    int result = opened(path, O_RDWR);
    unlink(path);
    return result;
}

static int kernel_memory(const struct aim *aim) {
    (void)aim;
    return opened("/dev/mem", O_RDWR) < 0 && opened("/dev/port", O_RDWR) < 0 ? -1 : DONE;
}

static int bpf(const struct aim *aim) {
    /* r0 = 0; exit: a program for cgroups, which sees and changes every socket there. */
    uint64_t code[] = {0xb7, 0x95};
    uint64_t load[16] = {0};
    (void)aim;
    load[0] = 8 | 2ull << 32;
    load[1] = (uint64_t)(uintptr_t)code;
    load[2] = (uint64_t)(uintptr_t)"GPL";
    return syscall(SYS_bpf, 5, load, sizeof load) < 0 ? -1 : DONE;
}

/* The kernel starts this, as root and outside, for whoever crashes; opening it for writing is enough to know. */
static int core_pattern(const struct aim *aim) {
    (void)aim;
    return opened("/proc/sys/kernel/core_pattern", O_WRONLY);
}

static int modprobe_path(const struct aim *aim) {
    (void)aim;
    return opened("/proc/sys/kernel/modprobe", O_WRONLY);
}

static int uevent_helper(const struct aim *aim) {
    (void)aim;
    int result = opened("/sys/kernel/uevent_helper", O_WRONLY);
    return result < 0 && errno == ENOENT ? ABSENT : result;
}

static int network_settings(const struct aim *aim) {
    (void)aim;
    return opened("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
}

static int remount_settings(const struct aim *aim) {
    (void)aim;
    if (unshare(CLONE_NEWNS) == 0)
        mount("/proc/sys", "/proc/sys", NULL, MS_BIND | MS_PRIVATE, NULL);
    if (mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL) < 0)
        return -1;
    return opened("/proc/sys/kernel/core_pattern", O_WRONLY);
}

static int by_handle(const struct aim *aim) {
    struct {
        struct file_handle head;
        unsigned char room[128];
    } handle = {.head = {.handle_bytes = sizeof handle.room}};
    int mount_id, at = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)aim;
    if (at < 0 || name_to_handle_at(AT_FDCWD, "/run", &handle.head, &mount_id, 0) < 0)
        return closing(at, -1);
    return closing(at, open_by_handle_at(at, &handle.head, O_PATH) < 0 ? -1 : DONE);
}

const struct attack doors[] = {
    {"setns", setns_victim}, {"setns-all", setns_of_all}, {"setns-pidfd", setns_by_pidfd},
    {"setns-owned", setns_owned},
    {"own-root-raw", own_root_raw}, {"own-root-setns", own_root_setns}, {"own-network", own_network},
    {"own-root-umount", own_root_umount}, {"own-root-proc", own_root_proc}, {"umount", unmask},
    {"ptrace", victim_ptrace}, {"process_vm_writev", victim_memory}, {"proc-mem", victim_mem_file},
    {"pidfd_getfd", victim_getfd}, {"proc-fd", victim_fd_file}, {"proc-root", victim_root},
    {"proc-net", victim_network}, {"other-user-ptrace", poor_ptrace}, {"other-user-vm_writev", poor_memory},
    {"other-user-proc-mem", poor_mem_file}, {"other-user-pidfd_getfd", poor_getfd}, {"other-user-proc-root", poor_root},
    {"other-user-proc-ns", poor_namespace}, {"other-user-proc-net", poor_network}, {"add-route", add_route},
    {"add-address", add_address}, {"veth", veth}, {"own-root-veth", own_root_veth}, {"tun", tun}, {"mknod-tun", device},
    {"kernel-memory", kernel_memory}, {"bpf", bpf}, {"core_pattern", core_pattern}, {"modprobe-path", modprobe_path},
    {"uevent_helper", uevent_helper}, {"network-settings", network_settings}, {"remount-proc-sys", remount_settings},
    {"open_by_handle_at", by_handle}, {NULL, NULL},
};
