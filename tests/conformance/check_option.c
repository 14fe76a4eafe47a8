/* Options of sockets, and what TCP_INFO says. */
#include "conform.h"

/* As linux/tcp.h has it, which cannot be included beside netinet/tcp.h. */
enum { STATE_ESTABLISHED = 1, STATE_FIN_WAIT2 = 5, STATE_CLOSE = 7, STATE_CLOSE_WAIT = 8, STATE_LISTEN = 10 };

static const char *get(int fd, int level, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    return outcome(getsockopt(fd, level, option, &value, &length) < 0 ? -1 : value);
}

static const char *put(int fd, int level, int option, int value)
{
    static char text[4][64];
    static unsigned next;
    char *out = text[next++ % 4];
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        return errno_name(errno);
    snprintf(out, 64, "set %s", get(fd, level, option));
    return out;
}

static void kinds(void)
{
    int fds[2] = { stream6(0), stream4(0) };
    for (int i = 0; i < 2; i++) {
        say(i ? "type4" : "type", "%s", get(fds[i], SOL_SOCKET, SO_TYPE));
        say(i ? "domain4" : "domain", "%s", get(fds[i], SOL_SOCKET, SO_DOMAIN));
        say(i ? "protocol4" : "protocol", "%s", get(fds[i], SOL_SOCKET, SO_PROTOCOL));
        say(i ? "listening4" : "listening", "%s", get(fds[i], SOL_SOCKET, SO_ACCEPTCONN));
        say(i ? "error4" : "error", "%s", get(fds[i], SOL_SOCKET, SO_ERROR));
    }
    say("only_v6", "%s", get(fds[0], IPPROTO_IPV6, IPV6_V6ONLY));
    say("set_only_v6", "%s", put(fds[0], IPPROTO_IPV6, IPV6_V6ONLY, 1));
    say("strange_protocol", "%s", outcome(socket(AF_INET6, SOCK_STREAM, 99)));
    say("strange_type", "%s", outcome(socket(AF_INET6, 77, 0)));
    int tcp = socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
    say("named_protocol", "%s", get(tcp, SOL_SOCKET, SO_PROTOCOL));
    int flagged = stream6(SOCK_NONBLOCK | SOCK_CLOEXEC);
    say("flags", "%d %d", !!(fcntl(flagged, F_GETFL) & O_NONBLOCK), fcntl(flagged, F_GETFD));
}

static void on(int fd)
{
    say("no_delay", "%s", get(fd, IPPROTO_TCP, TCP_NODELAY));
    say("set_no_delay", "%s", put(fd, IPPROTO_TCP, TCP_NODELAY, 1));
    say("cork", "%s", put(fd, IPPROTO_TCP, TCP_CORK, 1));
    say("uncork", "%s", put(fd, IPPROTO_TCP, TCP_CORK, 0));
    say("quick", "%s", put(fd, IPPROTO_TCP, TCP_QUICKACK, 1));
    say("keep_alive", "%s", put(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
    say("keep_idle", "%s", put(fd, IPPROTO_TCP, TCP_KEEPIDLE, 33));
    say("keep_interval", "%s", put(fd, IPPROTO_TCP, TCP_KEEPINTVL, 7));
    say("keep_count", "%s", put(fd, IPPROTO_TCP, TCP_KEEPCNT, 4));
    say("keep_wrong", "%s", put(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0));
    say("user_timeout", "%s", put(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000));
    say("syn_count", "%s", put(fd, IPPROTO_TCP, TCP_SYNCNT, 3));
    say("defer_accept", "%s", get(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT));
    say("linger2", "%s", put(fd, IPPROTO_TCP, TCP_LINGER2, 9));
    say("low_at", "%s", put(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 9000));
    say("receive_buffer", "%s", put(fd, SOL_SOCKET, SO_RCVBUF, 50000));
    say("send_buffer", "%s", put(fd, SOL_SOCKET, SO_SNDBUF, 50000));
    say("reuse_address", "%s", put(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    say("reuse_port", "%s", put(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    say("broadcast", "%s", put(fd, SOL_SOCKET, SO_BROADCAST, 1));
    say("time_stamps", "%s", put(fd, SOL_SOCKET, SO_TIMESTAMP, 1));
    say("priority", "%s", put(fd, SOL_SOCKET, SO_PRIORITY, 3));
    say("urgent_inline", "%s", put(fd, SOL_SOCKET, SO_OOBINLINE, 1));
    say("class", "%s", put(fd, IPPROTO_IPV6, IPV6_TCLASS, 0x10));
    say("hops", "%s", put(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33));
    say("unknown", "%s", get(fd, IPPROTO_TCP, 9999));
    char name[16] = "";
    socklen_t length = sizeof name;
    say("congestion", "%s", outcome(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length)));
    say("congestion_set", "%s", outcome(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)));
    struct linger linger = { -1, -1 };
    length = sizeof linger;
    getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length);
    say("linger", "%d %d", linger.l_onoff, linger.l_linger);
}

static void fresh(void) { on(stream6(0)); }

static void connected(void)
{
    struct pair pair;
    pair_open(&pair);
    on(pair.fd);
    char bytes[8] = "";
    far_call(&pair.far, "write %d works", pair.there);
    say("works", "%zd %s", recv(pair.fd, bytes, 5, MSG_WAITALL), bytes);
}

static int state(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t length = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ? -1 : info.tcpi_state;
}

/* Waits until the kernel has seen what the other side did. */
static int state_becomes(int fd, int wanted)
{
    for (int i = 0; i < 1000 && state(fd) != wanted; i++)
        poll(NULL, 0, 10);
    return state(fd);
}

static void states(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0);
    say("fresh", "%d", state(fd));
    listen(fd, 1);
    say("listening", "%d", state(fd));
    say("connected", "%d", state(pair.fd));
    far_call(&pair.far, "shutdown %d 1", pair.there);
    say("half_there", "%d", state_becomes(pair.fd, STATE_CLOSE_WAIT));
    far_call(&pair.far, "linger %d", pair.there);
    far_call(&pair.far, "close %d", pair.there);
    say("reset", "%d", state_becomes(pair.fd, STATE_CLOSE));
    int there;
    fd = pair_again(&pair, &there);
    shutdown(fd, SHUT_WR);
    say("half_here", "%d", state_becomes(fd, STATE_FIN_WAIT2));
    far_call(&pair.far, "close %d", there);
    say("closed", "%d", state_becomes(fd, STATE_CLOSE));
}

static void numbers(void)
{
    struct pair pair;
    pair_open(&pair);
    struct tcp_info info = { 0 };
    socklen_t length = sizeof info;
    getsockopt(pair.fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    say("window_scale", "%s", yes(info.tcpi_options & TCPI_OPT_WSCALE));
    say("time_stamps", "%s", yes(info.tcpi_options & TCPI_OPT_TIMESTAMPS));
    say("sack", "%s", yes(info.tcpi_options & TCPI_OPT_SACK));
    say("mss_sane", "%s", yes(info.tcpi_snd_mss >= 536 && info.tcpi_snd_mss <= 65535));
    say("mtu_sane", "%s", yes(info.tcpi_pmtu >= 1280 && info.tcpi_pmtu <= 65536));
    int mss = atoi(get(pair.fd, IPPROTO_TCP, TCP_MAXSEG));
    say("segment_sane", "%s", yes(mss >= 536 && mss <= 65535));
    say("set_segment", "%s", outcome(setsockopt(stream6(0), IPPROTO_TCP, TCP_MAXSEG, &(int){ 1000 }, sizeof(int))));
    say("receive_buffer", "%s", yes(atoi(get(pair.fd, SOL_SOCKET, SO_RCVBUF)) >= 65536));
    say("send_buffer", "%s", yes(atoi(get(pair.fd, SOL_SOCKET, SO_SNDBUF)) >= 16384));
    say("path_mtu", "%s", yes(atoi(get(pair.fd, IPPROTO_IPV6, IPV6_MTU)) >= 1280));
    long long cookie = 0;
    length = sizeof cookie;
    say("cookie", "%s", outcome(getsockopt(pair.fd, SOL_SOCKET, SO_COOKIE, &cookie, &length)));
    say("incoming_cpu", "%s", yes(atoi(get(pair.fd, SOL_SOCKET, SO_INCOMING_CPU)) >= 0));
}

/* Small segments and small buffers still carry every byte. */
static void small(void)
{
    struct pair pair;
    pair_open(&pair);
    int fd = stream6(0), size = 4096, segment = 600;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    set_time_limit(fd, PATIENCE);
    say("connect", "%s", outcome(dial6(fd, pair.port)));
    int there = (int)far_call(&pair.far, "accept %d", pair.listener);
    far_call(&pair.far, "buffer %d 4096", there);
    far_ask(&pair.far, "both %d 60000 1 2", there);
    pid_t writer = fork();
    if (writer == 0)
        _exit(fill(fd, 0, 60000, 1) == 60000 ? 0 : 1);
    say("read", "%ld", drain(fd, 0, 60000, 2));
    int status = 1;
    waitpid(writer, &status, 0);
    say("sent", "%s", yes(status == 0));
    long got = far_answer(&pair.far);
    say("there", "%ld %s", got, pair.far.text);
}

const struct check option_checks[] = {
    { "option.kinds", kinds },
    { "option.fresh", fresh },
    { "option.connected", connected },
    { "option.states", states },
    { "option.numbers", numbers },
    { "option.small", small },
    { NULL, NULL },
};
