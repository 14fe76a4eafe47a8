// Go without C: net/http as server and client, and Go's own resolver.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(holds bool, what ...any) {
	if !holds {
		must(errors.New(fmt.Sprint(what...)))
	}
}

func serve(file []byte) {
	http.HandleFunc("/file", func(answer http.ResponseWriter, _ *http.Request) { answer.Write(file) })
	http.HandleFunc("/echo", func(answer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		answer.Write(body)
	})
	listener, err := net.Listen("tcp", ":80")
	must(err)
	fmt.Println("listening")
	must(http.Serve(listener, nil))
}

func ask(file []byte, name string) {
	client := http.Client{Timeout: 80 * time.Second}
	var all sync.WaitGroup
	for n := 0; n < 4; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			answer, err := client.Get("http://" + name + "/file")
			must(err)
			body, err := io.ReadAll(answer.Body)
			must(err)
			check(bytes.Equal(body, file), "another file: ", len(body))
		}()
	}
	all.Wait()
	answer, err := client.Post("http://"+name+"/echo", "application/octet-stream", bytes.NewReader(file))
	must(err)
	body, err := io.ReadAll(answer.Body)
	must(err)
	check(bytes.Equal(body, file), "another echo: ", len(body))

	resolver := net.Resolver{PreferGo: true}
	for network, size := range map[string]int{"ip6": 16, "ip4": 4} {
		found, err := resolver.LookupIP(context.Background(), network, name)
		must(err)
		check(len(found) == 1 && (found[0].To4() != nil) == (size == 4), network, found)
		connection, err := net.DialTimeout("tcp", net.JoinHostPort(found[0].String(), "80"), 80*time.Second)
		must(err)
		connection.Close()
	}
	_, err = net.DialTimeout("tcp", net.JoinHostPort(name, "81"), 80*time.Second)
	check(errors.Is(err, syscall.ECONNREFUSED), err)
	fmt.Println("all well")
}

func main() {
	file, err := os.ReadFile(os.Args[2])
	must(err)
	if os.Args[1] == "server" {
		serve(file)
	} else {
		ask(file, os.Args[3])
	}
}
