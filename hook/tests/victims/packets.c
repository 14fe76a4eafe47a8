/* The resolver's lower half, interfaces, and the odd ends. */
#include "check.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static const unsigned char six[16] = {0xfd, 0x70, [15] = 1}, four[4] = {198, 18, 0, 1};

/* The packet answers `type` with `data`. */
static int holds(const unsigned char *packet, int length, int type, const void *data, int size) {
    ns_msg message;
    ns_rr record;
    return length > 0 && ns_initparse(packet, length, &message) == 0 && ns_msg_count(message, ns_s_an) == 1 &&
           ns_parserr(&message, ns_s_an, 0, &record) == 0 && ns_rr_type(record) == type && ns_rr_rdlen(record) == size &&
           strcmp(ns_rr_name(record), "web.phantom") == 0 && memcmp(ns_rr_rdata(record), data, size) == 0;
}

static void queries(void) {
    unsigned char packet[512], query[512];
    int length = res_query("web.phantom", C_IN, T_AAAA, packet, sizeof packet);
    EXPECT(holds(packet, length, ns_t_aaaa, six, 16));
    length = res_search("web.phantom.", C_IN, T_A, packet, sizeof packet);
    EXPECT(holds(packet, length, ns_t_a, four, 4));
    length = res_querydomain("web", "phantom", C_IN, T_A, packet, sizeof packet);
    EXPECT(holds(packet, length, ns_t_a, four, 4));
    EXPECT(res_query("1.0.18.198.in-addr.arpa", C_IN, T_PTR, packet, sizeof packet) > 0);
    ns_msg message;
    EXPECT(res_query("web.phantom", C_IN, T_ANY, packet, sizeof packet) > 0);
    EXPECT(ns_initparse(packet, sizeof packet, &message) == 0 || ns_msg_count(message, ns_s_an) == 2);

    EXPECT(res_query("no.phantom", C_IN, T_A, packet, sizeof packet) == -1 && h_errno == HOST_NOT_FOUND);
    EXPECT(res_query("six.phantom", C_IN, T_A, packet, sizeof packet) == -1 && h_errno == NO_DATA);
    EXPECT(res_query("web.phantom", C_IN, T_MX, packet, sizeof packet) == -1 && h_errno == NO_DATA);
    EXPECT(res_query("later.phantom", C_IN, T_A, packet, sizeof packet) == -1 && h_errno == TRY_AGAIN);
    char label[100];
    memset(label, 'a', 99);
    label[99] = 0;
    EXPECT(res_query(label, C_IN, T_A, packet, sizeof packet) == -1 && h_errno == NO_RECOVERY);

    struct __res_state state = {0};
    EXPECT(res_ninit(&state) == 0);
    length = res_nquery(&state, "web.phantom", C_IN, T_A, packet, sizeof packet);
    EXPECT(holds(packet, length, ns_t_a, four, 4) && state.res_h_errno == 0);
    EXPECT(res_nsearch(&state, "no.phantom", C_IN, T_A, packet, sizeof packet) == -1);
    EXPECT(state.res_h_errno == HOST_NOT_FOUND);
    EXPECT(offsetof(struct __res_state, res_h_errno) == 496);
    length = res_nquerydomain(&state, "web", "phantom", C_IN, T_AAAA, packet, sizeof packet);
    EXPECT(holds(packet, length, ns_t_aaaa, six, 16));

    length = res_nmkquery(&state, ns_o_query, "web.phantom", C_IN, T_AAAA, NULL, 0, NULL, query, sizeof query);
    EXPECT(length > 0);
    int answered = res_nsend(&state, query, length, packet, sizeof packet);
    EXPECT(holds(packet, answered, ns_t_aaaa, six, 16) && memcmp(packet, query, 2) == 0);
    answered = res_send(query, length, packet, 20);
    EXPECT(answered > 20 && packet[2] & 2);
    FAILS(res_send(query, 5, packet, sizeof packet), EINVAL);
    query[length - 5] = 77;
    EXPECT(res_send(query, length, packet, sizeof packet) == 12 && (packet[3] & 15) == FORMERR);
    res_nclose(&state);
}

static void at_once(void) {
    struct gaicb good = {.ar_name = "web.phantom"}, bad = {.ar_name = "no.phantom"}, *both[] = {&good, NULL, &bad};
    EXPECT(getaddrinfo_a(GAI_WAIT, both, 3, NULL) == 0);
    EXPECT(gai_error(&good) == 0 && gai_error(&bad) == EAI_NONAME && good.ar_result);
    freeaddrinfo(good.ar_result);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct gaicb *first[] = {&good};
    struct timespec patience = {10, 0};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    EXPECT(getaddrinfo_a(GAI_NOWAIT, first, 1, &event) == 0);
    EXPECT(sigtimedwait(&signals, NULL, &patience) == SIGUSR1);
    EXPECT(gai_suspend((const struct gaicb *const *)first, 1, NULL) != EAI_AGAIN && gai_error(&good) == 0);
    freeaddrinfo(good.ar_result);
    event.sigev_notify = SIGEV_THREAD;
    EXPECT(getaddrinfo_a(GAI_NOWAIT, first, 1, &event) == EAI_SYSTEM && errno == ENOSYS);
}

static void odd_ends(void) {
    int code = 0;
    struct netent own, *found = (void *)1;
    char buffer[256];
    char *host = "web.phantom";
    EXPECT(getnetbyname("web.phantom") == NULL && h_errno == HOST_NOT_FOUND);
    EXPECT(getnetbyname_r("web.phantom", &own, buffer, sizeof buffer, &found, &code) == 0 && !found);
    EXPECT(getnetbyaddr(0xc6120001, AF_INET) == NULL);
    FAILS(rcmd(&host, 514, "a", "b", "c", NULL), ENETUNREACH);
    FAILS(rexec(&host, 512, "a", "b", "c", NULL), ENETUNREACH);
    FAILS(ruserok(host, 0, "a", "b"), ENETUNREACH);
    EXPECT(gethostid() == 0x007f0101);
    char own_name[256];
    gethostname(own_name, sizeof own_name);
    struct hostent *self = gethostbyname(own_name);
    EXPECT(self && memcmp(self->h_addr_list[0], "\177\0\0\1", 4) == 0);
    self = gethostbyname("any.localhost");
    EXPECT(self && memcmp(self->h_addr_list[0], "\177\0\0\1", 4) == 0);
    struct addrinfo hints = {.ai_family = AF_INET}, *list = NULL;
    EXPECT(getaddrinfo("fe80::1%nope", NULL, NULL, &list) == EAI_NONAME);
    EXPECT(getaddrinfo("broken.phantom", NULL, NULL, &list) == EAI_AGAIN);
    EXPECT(getaddrinfo("later.phantom", NULL, NULL, &list) == EAI_AGAIN);
    EXPECT(getaddrinfo("six.phantom", NULL, &hints, &list) == EAI_NONAME);
    hints.ai_family = AF_INET6;
    EXPECT(getaddrinfo("four.phantom", NULL, &hints, &list) == EAI_NONAME);
    hints.ai_flags = AI_V4MAPPED;
    errno = 77;
    EXPECT(getaddrinfo("four.phantom", NULL, &hints, &list) == 0 && errno == 77);
    EXPECT(IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)list->ai_addr)->sin6_addr));
    freeaddrinfo(list);
    freeaddrinfo(NULL);
}

int main(void) {
    queries();
    at_once();
    odd_ends();
    return failures != 0;
}
