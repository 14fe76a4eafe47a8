// Looks a name up with Go's own resolver, over UDP and over TCP, and back.
// Usage: look NAME AP-ADDRESS REVERSE-NAME MISSING-NAME
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

func check(good bool, what string, err error) {
	if !good || err != nil {
		fmt.Println(os.Args[1]+":", what, "failed:", err)
		os.Exit(1)
	}
}

func main() {
	name, address, reverse, missing := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx := context.Background()
	tcp := func(ctx context.Context, _, at string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", at)
	}
	for _, resolver := range []*net.Resolver{{PreferGo: true}, {PreferGo: true, Dial: tcp}} {
		six, err := resolver.LookupIP(ctx, "ip6", name)
		check(len(six) == 1 && six[0].String() == address, "IPv6", err)
		four, err := resolver.LookupIP(ctx, "ip4", name)
		check(len(four) == 1 && strings.HasPrefix(four[0].String(), "198.1"), "IPv4", err)
		for _, at := range []string{address, four[0].String()} {
			names, err := resolver.LookupAddr(ctx, at)
			check(len(names) == 1 && names[0] == reverse+".", "reverse of "+at, err)
		}
		_, err = resolver.LookupHost(ctx, missing)
		lookup, is := err.(*net.DNSError)
		check(is && lookup.IsNotFound, "nothing", nil)
	}
	fmt.Println("all well")
}
