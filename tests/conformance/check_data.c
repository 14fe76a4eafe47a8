/* Bytes in small amounts: flags of recv and send, counts of what waits, and the calls that move bytes otherwise. */
#include "conform.h"

#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#ifndef SO_EE_CODE_ZEROCOPY_COPIED
#define SO_EE_CODE_ZEROCOPY_COPIED 1
#endif

static int unread(int fd)
{
    int count = -1;
    ioctl(fd, FIONREAD, &count);
    return count;
}

/* Waits until so many bytes can be read. */
static void until_unread(int fd, int count)
{
    for (int i = 0; i < 3000 && unread(fd) < count; i++)
        poll(NULL, 0, 10);
}

static void flags(void)
{
    struct pair pair;
    char bytes[64] = "";
    pair_open(&pair);
    say("nothing", "%s", outcome(recv(pair.fd, bytes, 8, MSG_DONTWAIT)));
    far_call(&pair.far, "write %d abcdefgh", pair.there);
    until_unread(pair.fd, 8);
    say("unread", "%d", unread(pair.fd));
    ssize_t got = recv(pair.fd, bytes, 3, MSG_PEEK);
    say("peek", "%zd %.3s", got, bytes);
    got = recv(pair.fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    say("peek_all", "%zd %.8s", got, bytes);
    got = recv(pair.fd, bytes, 2, 0);
    say("two", "%zd %.2s left %d", got, bytes, unread(pair.fd));
    memset(bytes, '-', sizeof bytes);
    got = recv(pair.fd, bytes, 3, MSG_TRUNC);
    say("truncate", "%zd %.3s left %d", got, bytes, unread(pair.fd));
    got = recv(pair.fd, bytes, 64, 0);
    say("rest", "%zd %.3s", got, bytes);
    say("empty_write", "%s", outcome(send(pair.fd, "", 0, MSG_NOSIGNAL)));
    say("empty_read", "%s", outcome(recv(pair.fd, bytes, 0, MSG_DONTWAIT)));
    say("fault", "%s", outcome(send(pair.fd, (void *)8, 5, MSG_NOSIGNAL)));
}

static void wait_all(void)
{
    struct pair pair;
    char bytes[16] = "";
    pair_open(&pair);
    far_ask(&pair.far, "write %d abcd", pair.there);
    far_ask(&pair.far, "wait 200");
    far_ask(&pair.far, "write %d efgh", pair.there);
    far_ask(&pair.far, "write %d xy", pair.there);
    far_ask(&pair.far, "shutdown %d 1", pair.there);
    ssize_t got = recv(pair.fd, bytes, 8, MSG_WAITALL);
    say("whole", "%zd %.8s", got, bytes);
    got = recv(pair.fd, bytes, 8, MSG_WAITALL);
    say("cut_by_end", "%zd %.2s", got, bytes);
}

static void names_of_messages(void)
{
    struct pair pair;
    pair_open(&pair);
    far_call(&pair.far, "write %d abcdefgh", pair.there);
    until_unread(pair.fd, 8);
    char first[4] = "", second[16] = "";
    struct iovec parts[2] = { { first, 3 }, { second, 10 } };
    struct sockaddr_storage from;
    struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = parts, .msg_iovlen = 2 };
    ssize_t got = recvmsg(pair.fd, &message, 0);
    say("recvmsg", "%zd %s %s name %d flags %d", got, first, second, (int)message.msg_namelen, message.msg_flags);
    struct iovec out[3] = { { "ab", 2 }, { "", 0 }, { "cde", 3 } };
    say("writev", "%s", outcome(writev(pair.fd, out, 3)));
    far_call(&pair.far, "read %d 5", pair.there);
    say("bytes", "%s", pair.far.text);
    struct sockaddr_in6 elsewhere = at6(9);
    say("sendto_elsewhere", "%s",
        outcome(sendto(pair.fd, "x", 1, MSG_NOSIGNAL, (struct sockaddr *)&elsewhere, sizeof elsewhere)));
    say("more", "%s", outcome(send(pair.fd, "12", 2, MSG_MORE | MSG_NOSIGNAL)));
    say("less", "%s", outcome(send(pair.fd, "34", 2, MSG_NOSIGNAL)));
    far_call(&pair.far, "read %d 5", pair.there);
    say("joined", "%s", pair.far.text);
}

static void urgent(void)
{
    struct pair pair;
    char byte = 0;
    int mark = -1;
    pair_open(&pair);
    say("none", "%s", outcome(recv(pair.fd, &byte, 1, MSG_OOB)));
    say("mark", "%s", outcome(ioctl(pair.fd, SIOCATMARK, &mark)));
    say("send", "%s", outcome(send(pair.fd, "ab!", 3, MSG_OOB | MSG_NOSIGNAL)));
    say("send_more", "%s", outcome(send(pair.fd, "cd", 2, MSG_NOSIGNAL)));
    shutdown(pair.fd, SHUT_WR);
    long got = far_call(&pair.far, "read %d 1 %d", pair.there, MSG_OOB);
    say("urgent_byte", "%s %s", far_outcome(&pair.far, got), pair.far.text);
    far_call(&pair.far, "read %d 6", pair.there);
    say("in_line", "%s", pair.far.text);
}

static void urgent_inline(void)
{
    struct pair pair;
    pair_open(&pair);
    say("option", "%ld", far_call(&pair.far, "inline %d", pair.there));
    send(pair.fd, "ab!", 3, MSG_OOB | MSG_NOSIGNAL);
    send(pair.fd, "cd", 2, MSG_NOSIGNAL);
    shutdown(pair.fd, SHUT_WR);
    far_call(&pair.far, "read %d 6", pair.there);
    say("bytes", "%s", pair.far.text);
}

static void unsent(void)
{
    struct pair pair;
    int count = -1;
    pair_open(&pair);
    say("write", "%s", outcome(send(pair.fd, "abcd", 4, MSG_NOSIGNAL)));
    for (int i = 0; i < 3000 && count; i++) {
        ioctl(pair.fd, SIOCOUTQ, &count);
        poll(NULL, 0, 10);
    }
    say("acknowledged", "%d", count);
    far_call(&pair.far, "poll %d %d 30000", pair.there, POLLIN);
    say("unread_there", "%ld", far_call(&pair.far, "unread %d", pair.there));
    say("fionbio", "%s", outcome(ioctl(pair.fd, FIONBIO, &count)));
}

static void from_file(void)
{
    struct pair pair;
    pair_open(&pair);
    int file = memfd_create("bytes", 0);
    if (write(file, "0123456789", 10) != 10)
        broken("a file");
    off_t place = 2;
    say("sendfile", "%s", outcome(sendfile(pair.fd, file, &place, 5)));
    say("place", "%ld", (long)place);
    int ends[2];
    if (pipe(ends) < 0 || write(ends[1], "abcde", 5) != 5)
        broken("a pipe");
    say("splice_out", "%s", outcome(splice(ends[0], NULL, pair.fd, NULL, 5, 0)));
    far_call(&pair.far, "read %d 10", pair.there);
    say("bytes", "%s", pair.far.text);
    far_call(&pair.far, "write %d wxyz", pair.there);
    until_unread(pair.fd, 4);
    say("splice_in", "%s", outcome(splice(pair.fd, NULL, ends[1], NULL, 100, 0)));
    char back[8] = "";
    say("spliced", "%s %s", outcome(read(ends[0], back, sizeof back)), back);
    fcntl(pair.fd, F_SETFL, O_NONBLOCK);
    say("splice_empty", "%s", outcome(splice(pair.fd, NULL, ends[1], NULL, 100, SPLICE_F_NONBLOCK)));
}

static void zero_copy(void)
{
    struct pair pair;
    static char bytes[20000], room[256];
    int on = 1;
    pair_open(&pair);
    say("option", "%s", outcome(setsockopt(pair.fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on)));
    say("send", "%s", outcome(send(pair.fd, bytes, sizeof bytes, MSG_ZEROCOPY | MSG_NOSIGNAL)));
    long got = far_call(&pair.far, "read %d 400", pair.there);
    say("read", "%ld", got);
    wait_for(pair.fd, 0, 30000);
    struct msghdr message = { .msg_control = room, .msg_controllen = sizeof room };
    ssize_t told = recvmsg(pair.fd, &message, MSG_ERRQUEUE);
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    if (told < 0 || !control) {
        say("told", "%s", outcome(told));
        return;
    }
    struct sock_extended_err error;
    memcpy(&error, CMSG_DATA(control), sizeof error);
    say("told", "%s errno %u origin %d", outcome(told), error.ee_errno, error.ee_origin);
}

static void time_limits(void)
{
    struct pair pair;
    char byte;
    pair_open(&pair);
    struct timeval limit = { .tv_usec = 100000 };
    say("option", "%s", outcome(setsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit)));
    say("read", "%s", outcome(recv(pair.fd, &byte, 1, 0)));
    setsockopt(pair.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    static char bytes[1 << 20];
    ssize_t sent;
    do
        sent = send(pair.fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    while (sent > 0);
    say("write", "%s", outcome(sent));
    int low = 5;
    say("low_water", "%s", outcome(setsockopt(pair.fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low)));
    far_call(&pair.far, "write %d abc", pair.there);
    until_unread(pair.fd, 3);
    say("below", "%s", events(wait_for(pair.fd, POLLIN, 100)));
    far_call(&pair.far, "write %d def", pair.there);
    until_unread(pair.fd, 6);
    say("above", "%s", events(wait_for(pair.fd, POLLIN, 30000)));
}

const struct check data_checks[] = {
    { "data.flags", flags },
    { "data.wait_all", wait_all },
    { "data.messages", names_of_messages },
    { "data.urgent", urgent },
    { "data.urgent_inline", urgent_inline },
    { "data.unsent", unsent },
    { "data.files", from_file },
    { "data.zero_copy", zero_copy },
    { "data.time_limits", time_limits },
    { NULL, NULL },
};
