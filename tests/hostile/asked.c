/* Others who would do it: services at sockets, helpers that pass descriptors, and what was open before. */
#include "hostile.h"
#include <ifaddrs.h>
#include <net/if.h>
#include <stddef.h>

/* Whoever listens there sends a packet to the aim of whoever connects; it is told the number. */
static int call(const struct sockaddr_un *at, socklen_t length, const struct aim *aim) {
    char said[16];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)at, length) < 0)
        return closing(fd, -1);
    ssize_t written = send(fd, said, (size_t)snprintf(said, sizeof said, "%d\n", aim->number), MSG_NOSIGNAL);
    /* It answers when it has sent. */
    return closing(fd, written < 0 || recv(fd, said, 1, 0) < 0 ? -1 : DONE);
}

static int at_path(const char *path, const struct aim *aim) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (!path)
        return ABSENT;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    return call(&at, sizeof at, aim);
}

#define DEPUTY(name, path)                                                                                             \
    static int name(const struct aim *aim) {                                                                           \
        return at_path(path, aim);                                                                                     \
    }

DEPUTY(nscd, "/run/nscd/socket")
DEPUTY(nscd_old, "/var/run/nscd/socket")
DEPUTY(resolved, "/run/systemd/resolve/io.systemd.Resolve")
DEPUTY(system_bus, "/run/dbus/system_bus_socket")
DEPUTY(systemd, "/run/systemd/private")
DEPUTY(avahi, "/run/avahi-daemon/socket")
DEPUTY(docker, "/run/docker.sock")
DEPUTY(session_bus, "/run/user/0/bus")
DEPUTY(other_users_bus, "/run/user/4242/bus")
DEPUTY(other_users_systemd, "/run/user/4242/systemd/private")
DEPUTY(other_users_daemon, "/run/user/4242/phantom/daemon.sock")
DEPUTY(system_daemon, "/run/phantom/daemon.sock")
DEPUTY(dirmngr, "/run/user/4242/gnupg/S.dirmngr")
DEPUTY(terminal_keeper, "/run/screen/S-root/1.tty")
DEPUTY(bus_of_environment, "/run/odd-bus.sock")
DEPUTY(mounted_again, "/srv/nscd/socket")
DEPUTY(unknown_deputy, "/run/unheard-of.sock")

static int abstract(const struct aim *aim) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (!world.abstract)
        return ABSENT;
    int length = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "%s", world.abstract);
    return call(&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length), aim);
}

/* Asks a daemon of Phantom as the command line does, for something harmless. */
static int command(const char *path) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const char *line = "{\"version\":0,\"request\":\"status\"}\n";
    char answer[256];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!path)
        return ABSENT;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0)
        return closing(fd, -1);
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0) {
        /* Whoever closes at once may do so before the question or after it. */
        errno = errno == EPIPE ? ECONNRESET : errno;
        return closing(fd, -1);
    }
    ssize_t length = recv(fd, answer, sizeof answer, 0);
    if (length == 0)
        errno = ENODATA;
    return closing(fd, length > 0 ? ANSWERED : -1);
}

static int own_daemon(const struct aim *aim) {
    (void)aim;
    return command(world.control);
}

/* Asks its own daemon to be somebody else: a session that is not its own. */
static int other_identity(const struct aim *aim) {
    unsigned char info[] = "PH\0?\0\0\0\22\5\1BBBBBBBBBBBBBBBB";
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    unsigned char answer[600];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)aim;
    if (!world.control)
        return ABSENT;
    info[3] = DIALECT;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", world.control);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        send(fd, info, sizeof info - 1, MSG_NOSIGNAL) < 0 || recv(fd, answer, 9, MSG_WAITALL) != 9)
        return closing(fd, -1);
    /* Who one is, or a failure and its number. */
    errno = answer[4] == 7 ? answer[8] : EPROTO;
    return closing(fd, answer[4] == 6 ? ANSWERED : -1);
}

static int other_daemon(const struct aim *aim) {
    (void)aim;
    return command(world.other);
}

const struct attack deputies[] = {
    {"nscd", nscd}, {"nscd-var-run", nscd_old}, {"resolved", resolved}, {"system-bus", system_bus},
    {"systemd-private", systemd}, {"avahi", avahi}, {"docker", docker}, {"session-bus", session_bus},
    {"other-users-bus", other_users_bus}, {"other-users-systemd", other_users_systemd},
    {"other-users-phantomd", other_users_daemon}, {"systems-phantomd", system_daemon},
    {"dirmngr", dirmngr}, {"terminal-keeper", terminal_keeper}, {"bus-of-environment", bus_of_environment},
    {"mounted-again", mounted_again}, {"unknown-deputy", unknown_deputy}, {"abstract-socket", abstract}, {"own-phantomd", own_daemon},
    {"other-identity", other_identity}, {"phantomd-elsewhere", other_daemon}, {NULL, NULL},
};

/* Numbers at which the test leaves descriptors of the outer world open; see outside.c. */
enum { UDP = 40, LISTENING, NETLINK, RING, TUN, PACKET, DIRECTORY, NAMESPACE, RAW, PIDFD, CONNECTED, HARMLESS };

static int held_udp(const struct aim *aim) {
    return udp_fate(UDP, (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

static int held_raw(const struct aim *aim) {
    unsigned char packet[64];
    size_t length = datagram(aim, packet);
    return sendto(RAW, packet, length, 0, (const struct sockaddr *)&aim->v4, sizeof aim->v4) < 0 ? -1 : SILENT;
}

static int held(int fd) {
    return fcntl(fd, F_GETFD) < 0 ? -1 : DONE;
}

#define HELD(name, fd)                                                                                                 \
    static int name(const struct aim *aim) {                                                                           \
        (void)aim;                                                                                                     \
        return held(fd);                                                                                               \
    }

HELD(held_listening, LISTENING)
HELD(held_connected, CONNECTED)
HELD(held_netlink, NETLINK)
HELD(held_ring, RING)
HELD(held_tun, TUN)
HELD(held_packet, PACKET)
HELD(held_namespace, NAMESPACE)
HELD(held_harmless, HARMLESS)

/* The masks lie over paths of our mount namespace; this directory is of the outer one. */
static int held_directory(const struct aim *aim) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d/nscd/socket", DIRECTORY);
    return at_path(path, aim);
}

static int held_pidfd(const struct aim *aim) {
    int fd = (int)syscall(SYS_pidfd_getfd, PIDFD, 7, 0);
    return udp_fate(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4);
}

/* A helper outside passes a socket to whoever connects. */
static int given(const struct aim *aim) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } beside;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    int passed, fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!world.giver)
        return ABSENT;
    snprintf(at.sun_path, sizeof at.sun_path, "%s", world.giver);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0 || recvmsg(fd, &message, 0) < 0)
        return closing(fd, -1);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_type != SCM_RIGHTS) {
        errno = EBADF;
        return closing(fd, -1);
    }
    memcpy(&passed, CMSG_DATA(head), sizeof passed);
    return closing(fd, udp_fate(passed, (const struct sockaddr *)&aim->v4, sizeof aim->v4));
}

const struct attack handles[] = {
    {"inherited-udp", held_udp}, {"inherited-raw", held_raw}, {"inherited-listener", held_listening},
    {"inherited-connection", held_connected}, {"inherited-netlink", held_netlink}, {"inherited-io_uring", held_ring},
    {"inherited-tun", held_tun}, {"inherited-packet", held_packet}, {"inherited-directory", held_directory},
    {"inherited-netns", held_namespace}, {"inherited-pidfd", held_pidfd}, {"passed-socket", given},
    {"inherited-file", held_harmless}, {NULL, NULL},
};

/* What the host's network looks like; found is what no program is to know. */

static int interfaces(const struct aim *aim) {
    struct ifaddrs *all;
    int found = 0;
    (void)aim;
    if (getifaddrs(&all) < 0)
        return -1;
    for (struct ifaddrs *one = all; one; one = one->ifa_next)
        found |= !strcmp(one->ifa_name, "wan");
    errno = ENOENT;
    return found ? DONE : -1;
}

static int by_index(const struct aim *aim) {
    (void)aim;
    if (if_nametoindex("wan"))
        return DONE;
    errno = ENODEV;
    return -1;
}

static int by_ioctl(const struct aim *aim) {
    struct ifreq request = {.ifr_name = "wan"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    (void)aim;
    return closing(fd, fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0 ? -1 : DONE);
}

/* Local sockets too know of the interfaces of the network in which they were made. */
static int by_local_ioctl(const struct aim *aim) {
    struct ifreq request = {.ifr_name = "wan"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)aim;
    return closing(fd, fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0 ? -1 : DONE);
}

static int in_file(const char *path, const char *word) {
    char line[512];
    FILE *file = fopen(path, "r");
    if (!file)
        return -1;
    while (fgets(line, sizeof line, file))
        if (strstr(line, word))
            return DONE;
    fclose(file);
    errno = ENOENT;
    return -1;
}

static int in_sys(const struct aim *aim) {
    (void)aim;
    return access("/sys/class/net/wan/address", R_OK) < 0 ? -1 : DONE;
}

static int in_proc(const struct aim *aim) {
    (void)aim;
    return in_file("/proc/net/dev", "wan");
}

static int routes(const struct aim *aim) {
    (void)aim;
    return in_file("/proc/net/route", "wan");
}

static int neighbours(const struct aim *aim) {
    (void)aim;
    return in_file("/proc/net/arp", "203.0.113.1");
}

static int addresses6(const struct aim *aim) {
    (void)aim;
    return in_file("/proc/net/if_inet6", "20010db8000000000000000000000005");
}

/* The sockets of all others. A connection shows its far end too, so this is one that nobody here connects to. */
static int connections(const struct aim *aim) {
    (void)aim;
    return in_file("/proc/net/unix", "/run/never-asked.sock");
}

/* The address that packets would have, by asking for a way that leads through it. */
static int own_address(const struct aim *aim) {
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&aim->v4, sizeof aim->v4) < 0 ||
        getsockname(fd, (struct sockaddr *)&own, &length) < 0)
        return closing(fd, -1);
    close(fd);
    errno = ENOENT;
    return ntohl(own.sin_addr.s_addr) == 0xcb007105 ? DONE : -1;
}

const struct attack looks[] = {
    {"see-getifaddrs", interfaces}, {"see-index", by_index}, {"see-ioctl", by_ioctl}, {"see-ioctl-unix", by_local_ioctl},
    {"see-sys", in_sys},
    {"see-proc-net-dev", in_proc}, {"see-routes", routes}, {"see-neighbours", neighbours},
    {"see-addresses6", addresses6}, {"see-sockets", connections}, {"see-own-address", own_address}, {NULL, NULL},
};
