// Looks each name up with Go's own resolver and says what came of it.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
)

func main() {
	for _, name := range os.Args[1:] {
		said := "elsewhere"
		found, err := net.LookupHost(name)
		var failed *net.DNSError
		if errors.As(err, &failed) && failed.IsNotFound {
			said = "not found"
		} else if err != nil {
			said = err.Error()
		} else if net.ParseIP(found[0]).IsLoopback() {
			said = "loopback"
		}
		fmt.Println(name + ": " + said)
	}
}
