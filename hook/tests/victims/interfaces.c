/* Prints what the program sees of network interfaces. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>

static void print(const char *what, struct sockaddr *at) {
    char text[INET6_ADDRSTRLEN] = "none";
    if (at && at->sa_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)at)->sin_addr, text, sizeof text);
    if (at && at->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)at)->sin6_addr, text, sizeof text);
    if (at && at->sa_family == AF_PACKET) {
        struct sockaddr_ll *link = (void *)at;
        snprintf(text, sizeof text, "link %d type %d length %d", link->sll_ifindex, link->sll_hatype, link->sll_halen);
    }
    printf(" %s %d %s", what, at ? at->sa_family : -1, text);
}

int main(void) {
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list))
        return 1;
    for (struct ifaddrs *at = list; at; at = at->ifa_next) {
        printf("%s flags %#x data %d", at->ifa_name, at->ifa_flags, at->ifa_data != NULL);
        print("address", at->ifa_addr);
        print("mask", at->ifa_netmask);
        print("other", at->ifa_broadaddr);
        printf("\n");
    }
    freeifaddrs(list);
    struct if_nameindex *names = if_nameindex();
    for (struct if_nameindex *at = names; at && at->if_index; at++)
        printf("%u %s\n", at->if_index, at->if_name);
    if_freenameindex(names);
    char name[IF_NAMESIZE];
    printf("%u %s\n", if_nametoindex("lo"), if_indextoname(1, name) ? name : "none");
    errno = 0;
    printf("%u %d", if_nametoindex("nope"), errno);
    errno = 0;
    printf(" %p %d\n", (void *)if_indextoname(77, name), errno);
    return 0;
}
