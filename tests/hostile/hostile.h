/* What the files of the hostile program share: an attack is a function that tries one way out and says how it went. */
#ifndef HOSTILE_H
#define HOSTILE_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* How an attack went, beside -1 with errno, which says that it was stopped. */
enum {
    DONE = 0,   /* the call did what it was to do */
    SILENT = 1, /* it was sent, and nobody answered */
    ABSENT = 2, /* this machine or this libc has no such thing */
    ANSWERED = 3 /* an answer came */
};

/* Seconds. No attack takes longer: what waits for answers waits four. */
enum { PATIENCE = 20 };

/* Where an attack aims: each at another place, so that a packet tells whose it is. */
struct aim {
    int number;
    uint16_t port;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    char name[64];
};

struct attack {
    const char *name;
    int (*run)(const struct aim *);
};

/* What the test says about its world; NULL or 0 where it says nothing. */
struct world {
    pid_t victim;         /* a process outside, as who we are, with an unconnected UDP socket at descriptor 7 */
    pid_t poor;           /* the same as an ordinary user */
    unsigned long flag;   /* address of a number in both */
    const char *control;  /* the daemon's socket */
    const char *other;    /* another daemon's socket */
    const char *abstract; /* name of an abstract socket outside */
    const char *twin;     /* this program linked statically */
    const char *giver;    /* socket of a helper outside that passes a UDP socket to whoever connects */
    const char *group;    /* the one group of attacks that is to be tried */
    const char *self;
};
extern struct world world;

extern const struct attack sends[], names[], calls[], children[], doors[], deputies[], handles[], looks[];

/* Sends one datagram by whatever socket it is given and waits a moment for what becomes of it. */
int udp_fate(int fd, const struct sockaddr *to, socklen_t length);
/* Waits for the end of a connect that does not block. */
int connect_fate(int fd, const struct sockaddr *to, socklen_t length);
/* Reads an answer or an error. */
int answer_fate(int fd);
/* Closes a descriptor and passes the result on, errno too. */
int closing(int fd, int result);
/* A DNS question for aim->name; its length. */
size_t question(const struct aim *aim, unsigned char *to);
/* The IPv4 header and UDP datagram of 36 bytes that raw sockets send. */
size_t datagram(const struct aim *aim, unsigned char *to);
/* Index of the world's interface, or of the first one that is not loopback. */
int outer_interface(void);
/* Ends like a child of ours that did `result`; its parent reads it by child_fate(). */
void end_like(int result) __attribute__((noreturn));
int child_fate(pid_t pid);
/* The one attack that children do: a datagram by plain libc. */
int plain(const struct aim *aim);

#endif
