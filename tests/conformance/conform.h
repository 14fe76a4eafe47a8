/* What every check shares: lines of output, the far end's remote controls, and ways to connect. */
#ifndef CONFORM_H
#define CONFORM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* No wait of a check is longer, in seconds; one that is ends as an errno in its line. */
enum { PATIENCE = 40 };

/* Where the far end is, in both families. */
struct target {
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
};

extern struct target target;
extern const char *check_name;

/* One line of output: CHECK.NAME<TAB>VALUE. */
void say(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A result as text: the number, or the name of errno. */
const char *outcome(long result);
const char *errno_name(int error);
/* Event bits of poll and epoll as text, which agree on Linux. */
const char *events(unsigned bits);
const char *yes(bool value);
/* Ends the check with a line that no other run has. */
void broken(const char *what) __attribute__((noreturn));

/* The far end, over its control connection. */
struct far {
    int control;
    char text[512]; /* what it said beside the number */
    int error;      /* its errno */
};

void far_open(struct far *far);
/* Asks and waits; the number that it answers, -1 with far->error. */
long far_call(struct far *far, const char *format, ...) __attribute__((format(printf, 2, 3)));
void far_ask(struct far *far, const char *format, ...) __attribute__((format(printf, 2, 3)));
long far_answer(struct far *far);
const char *far_outcome(struct far *far, long result);

/* A connection between both ends, and the far end's number for it. */
struct pair {
    struct far far;
    int fd;
    int there;
    int listener; /* the far end's, still open */
    uint16_t port;
};

void pair_open(struct pair *pair);
/* Another connection to the same listener. */
int pair_again(struct pair *pair, int *there);

struct sockaddr_in6 at6(uint16_t port);
struct sockaddr_in at4(uint16_t port);
int stream6(int flags);
int stream4(int flags);
int dial6(int fd, uint16_t port);
int dial4(int fd, uint16_t port);
void set_time_limit(int fd, int seconds);
/* The address of this machine that is not loopback's. */
bool own_address(int family, struct sockaddr_storage *out);
/* Waits for these events; what came. */
unsigned wait_for(int fd, short wanted, int milliseconds);
int so_error(int fd);
void set_linger_zero(int fd);

/* Bytes that differ at every place. */
uint8_t pattern(uint64_t place, unsigned seed);
/* Writes so many bytes of the pattern; how many went, -1 when none did. */
long fill(int fd, uint64_t from, uint64_t count, unsigned seed);
/* Reads so many bytes (all for zero) and compares; -1 at an error, -2 at a wrong byte. */
long drain(int fd, uint64_t from, uint64_t count, unsigned seed);

/* A far end for one control connection; serve_main() is a whole server. */
int serve_main(uint16_t port);

struct check {
    const char *name;
    void (*run)(void);
};

/* Each file's checks, ended by an empty one. */
extern const struct check connect_checks[];
extern const struct check refusal_checks[];
extern const struct check data_checks[];
extern const struct check bulk_checks[];
extern const struct check ending_checks[];
extern const struct check reset_checks[];
extern const struct check name_checks[];
extern const struct check listen_checks[];
extern const struct check option_checks[];
extern const struct check process_checks[];
extern const struct check datagram_checks[];

#endif
