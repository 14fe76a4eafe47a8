//! Programs whose sockets are injected, over real daemons: static ones, ones without any namespace, the host's ports.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, Server, Way, stdout};

/// A server of a folder with one file in it.
fn www(network: &Network, name: &str) -> Result<(Server, String)> {
    let folder = network.folder(name)?;
    fs::write(folder.join("file"), "here\n")?;
    let folder = folder.to_str().context("path")?.to_owned();
    network.serve(Way::Inject, name, &["python3", "-u", "-m", "http.server", "80", "--directory", &folder], "Serving")
}

/// Go's own resolver and its own system calls, without libc.
const GO: &str = r#"
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	io.Copy(os.Stdout, answer.Body)
}
"#;

/// A client that resolves by libc and by raw questions to what resolv.conf says.
const CLIENT_C: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
    int error = argc < 2 ? 1 : getaddrinfo(argv[1], "80", &hints, &all);
    if (error) { printf("%s\n", gai_strerror(error)); return 1; }
    int s = socket(all->ai_family, SOCK_STREAM, 0);
    if (connect(s, all->ai_addr, all->ai_addrlen)) { perror("connect"); return 1; }
    char text[4096];
    dprintf(s, "GET /file HTTP/1.0\r\n\r\n");
    size_t length = 0;
    for (ssize_t got; (got = read(s, text + length, sizeof text - 1 - length)) > 0;) length += got;
    text[length] = 0;
    char *body = strstr(text, "\r\n\r\n");
    printf("%s", body ? body + 4 : "no answer\n");
}
"#;

/// Compiled, in a folder of its own: a static Go program and a static musl program.
fn static_programs(network: &Network) -> Result<[String; 2]> {
    let folder = network.folder("static")?;
    let [go, c, went, compiled] = ["main.go", "main.c", "went", "compiled"].map(|name| folder.join(name));
    fs::write(&go, GO)?;
    fs::write(&c, CLIENT_C)?;
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&went).arg(&go).env("CGO_ENABLED", "0").env("GOCACHE", folder.join("cache"));
    stdout(&build.env("GO111MODULE", "off").output()?).context("go build")?;
    stdout(&Command::new("musl-gcc").args(["-static", "-o"]).arg(&compiled).arg(&c).output()?).context("musl-gcc")?;
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("path");
    Ok([text(&went)?, text(&compiled)?])
}

/// A machine on which nobody may make namespaces, and whose resolver is its own.
const BARE: &str = "
set -e
mount --bind \"$1\" /etc/resolv.conf
for kind in user mnt net; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done
shift
exec \"$@\"
";

#[test]
fn static_programs_work_in_namespaces_and_without() -> Result<()> {
    let network = Network::shared()?;
    let (_server, name) = www(&network, "static-www")?;
    let [go, musl] = static_programs(&network)?;
    let url = format!("http://{name}/file");
    let resolv = network.folder("resolv")?.join("resolv.conf");
    for way in [Way::Namespace, Way::Inject] {
        ensure!(network.run(way, &[&go, &url])? == "here\n", "{way:?}");
        ensure!(network.run(way, &[&musl, &name])? == "here\n", "{way:?}");
    }
    // The host's settings are seen as they are: resolvers on loopback, and elsewhere.
    for resolver in ["127.0.0.53", "::1", "192.0.2.9"] {
        fs::write(&resolv, format!("nameserver {resolver}\n"))?;
        for program in [&[&go[..], &url][..], &[&musl, &name], &["curl", "-sS", "--fail", &url]] {
            let inside = network.program(CLIENT, Way::Inject, None, program);
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", BARE, "sh"]).arg(&resolv);
            let output = command.arg(inside.get_program()).args(inside.get_args()).output()?;
            ensure!(stdout(&output)? == "here\n", "{resolver} {program:?}: {output:?}");
        }
    }
    // By preloading a static program gets nothing, and nothing leaves by it.
    let output = network.program(CLIENT, Way::Preload, None, &[&musl, &name]).output()?;
    ensure!(!output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn ports_of_the_host_are_reached_if_allowed() -> Result<()> {
    let network = Network::shared()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = connection.and_then(|mut connection| {
                let _ = connection.read(&mut [0; 4096])?;
                connection.write_all(b"HTTP/1.0 200 OK\r\n\r\nlocal\n")
            });
            drop(answer);
        }
    });
    for way in Way::ALL {
        let program = ["curl", "-sS", "--fail", "--max-time", "60", &format!("http://127.0.0.1:{port}/")];
        let mut command = network.program(CLIENT, way, None, &program);
        ensure!(!command.output()?.status.success(), "{way:?} reaches the host's loopback");
        let mut allowed = Command::new(command.get_program());
        allowed.args(["--allow-local", &port]).args(command.get_args());
        ensure!(stdout(&allowed.output()?)? == "local\n", "{way:?}");
    }
    Ok(())
}
