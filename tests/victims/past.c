/* Ways to libc's socket() past a preloaded library, each named on the command line; says whose socket it got: "hooked", the
 * "computer's", or which error. With -DPLUG what is loaded by some of them, with -DAUDIT what the loader loads by itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(PLUG)
int plugged(void) { return socket(AF_INET6, SOCK_STREAM, 0); }
#else

/* The computer's own are of the network in which the process lives. */
static const char *whose(int made) {
    unsigned long long network = 0, own = 0;
    socklen_t length = sizeof network;
    int local = socket(AF_UNIX, SOCK_STREAM, 0), domain = 0;
    if (made < 0) return strerrorname_np(errno);
    getsockopt(made, SOL_SOCKET, SO_NETNS_COOKIE, &network, &length);
    length = sizeof own;
    getsockopt(local, SOL_SOCKET, SO_NETNS_COOKIE, &own, &length);
    length = sizeof domain;
    getsockopt(made, SOL_SOCKET, SO_DOMAIN, &domain, &length);
    return domain == AF_UNIX || network != own ? "hooked" : "computer's";
}

#if defined(AUDIT)
unsigned la_version(unsigned version) {
    printf("audit %s\n", whose(socket(AF_INET6, SOCK_STREAM, 0)));
    fflush(stdout);
    return version;
}
#else

#if defined(__x86_64__)
#define FIRST_VERSION "GLIBC_2.2.5"
#else
#define FIRST_VERSION "GLIBC_2.17"
#endif

typedef int socket_function(int, int, int);

static int called(void *function) { return function ? ((socket_function *)function)(AF_INET6, SOCK_STREAM, 0) : (errno = ENOSYS, -1); }

static void *libc(void) { return dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD); }

static int by_loaded(void *library) {
    int (*function)(void) = library ? (int (*)(void))dlsym(library, "plugged") : NULL;
    return function ? function() : (errno = ENOSYS, -1);
}

/* Reads libc's table of symbols, as hooking libraries and debuggers do. */
static int found(struct dl_phdr_info *about, size_t size, void *result) {
    (void)size;
    if (!strstr(about->dlpi_name, "/libc.so")) return 0;
    for (int n = 0; n < about->dlpi_phnum; n++) {
        if (about->dlpi_phdr[n].p_type != PT_DYNAMIC) continue;
        const ElfW(Sym) *symbols = NULL;
        const char *names = NULL;
        for (const ElfW(Dyn) *entry = (void *)(about->dlpi_addr + about->dlpi_phdr[n].p_vaddr); entry->d_tag; entry++) {
            if (entry->d_tag == DT_SYMTAB) symbols = (void *)entry->d_un.d_ptr;
            if (entry->d_tag == DT_STRTAB) names = (void *)entry->d_un.d_ptr;
        }
        /* The names follow the symbols. */
        for (const ElfW(Sym) *symbol = symbols; (const char *)symbol < names; symbol++)
            if (symbol->st_value && !strcmp(names + symbol->st_name, "socket"))
                *(void **)result = (void *)(about->dlpi_addr + symbol->st_value);
    }
    return 1;
}

static int by_table(void) {
    void *function = NULL;
    dl_iterate_phdr(found, &function);
    return called(function);
}

static int by_instruction(void) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_socket), "D"(AF_INET6), "S"(SOCK_STREAM), "d"(0) : "rcx", "r11", "memory");
    return result < 0 ? (errno = -result, -1) : result;
#else
    return syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0);
#endif
}

int main(int count, char **words) {
    const char *way = words[1], *plug = count > 2 ? words[2] : "";
    int made = -1;
    if (!strcmp(way, "symbol")) made = socket(AF_INET6, SOCK_STREAM, 0);
    else if (!strcmp(way, "default")) made = called(dlsym(RTLD_DEFAULT, "socket"));
    else if (!strcmp(way, "next")) made = called(dlsym(RTLD_NEXT, "socket"));
    else if (!strcmp(way, "deepbind")) made = by_loaded(dlopen(plug, RTLD_NOW | RTLD_DEEPBIND));
    else if (!strcmp(way, "dlmopen")) made = by_loaded(dlmopen(LM_ID_NEWLM, plug, RTLD_NOW));
    else if (!strcmp(way, "syscall")) made = syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0);
    else if (!strcmp(way, "handle")) made = called(dlsym(libc(), "socket"));
    else if (!strcmp(way, "version")) made = called(dlvsym(libc(), "socket", FIRST_VERSION));
    else if (!strcmp(way, "table")) made = by_table();
    else if (!strcmp(way, "instruction")) made = by_instruction();
    printf("%s %s\n", way, whose(made));
    return 0;
}
#endif
#endif
