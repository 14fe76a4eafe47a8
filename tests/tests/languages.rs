//! Programs of every language work as they are, both as servers and as clients: Python, Node.js, Java, Go, Rust, C, Perl.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{CLIENT, Network, Way, pattern};

/// Bytes of a transfer: many cells, windows and TLS records, and still quick in a debug build.
const SIZE: usize = 1_000_000;

/// The source of a small program of ours, which knows nothing of Phantom.
fn victim(name: &str) -> String {
    format!("{}/victims/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a server and then a client that says "all well" when all of it is.
fn meet(network: &Network, way: Way, identity: &str, server: &[&str], client: &[&str]) -> Result<()> {
    let (_server, name) = network.serve(way, identity, server, "listening")?;
    let line: Vec<_> = client.iter().map(|word| if *word == "NAME" { &name } else { *word }).collect();
    let said = network.run(way, &line)?;
    ensure!(said == "all well\n", "{said:?} by {way:?}");
    Ok(())
}

#[test]
fn python_asyncio_starts_tls() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let (key, certificate) = (folder.at("key"), folder.at("certificate"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=over.there", "-addext", "subjectAltName=DNS:over.there"];
    prepare(Command::new("openssl").args(request).args(names).args(["-keyout", &key, "-out", &certificate]))?;
    let script = victim("tls.py");
    for way in Way::ALL {
        let server = ["/usr/bin/python3", &script, "server", &certificate, &key];
        let client = ["/usr/bin/python3", &script, "client", "NAME", &certificate, &file];
        meet(&network, way, "asyncio", &server, &client)?;
    }
    Ok(())
}

#[test]
fn node_and_python_requests() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let script = victim("web.mjs");
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "node", &["node", &script, "server", &file], "listening")?;
        // Emulation has no datagrams: docs/emulation.md.
        let packets = if way == Way::Emulate { "none" } else { "packets" };
        let node = ["node", &script, "client", &file, &name, packets];
        let python = ["/usr/bin/python3", &victim("fetch.py"), &name, &file];
        for client in [&node[..], &python] {
            ensure!(network.run(way, client)? == "all well\n", "{client:?} by {way:?}");
        }
    }
    Ok(())
}

#[test]
fn java_on_both_families() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    prepare(Command::new("javac").args(["-d", &folder.at("."), &victim("Web.java")]))?;
    let classes = folder.at(".");
    // As little as can be of what a virtual machine takes at its start.
    let java = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp", &classes];
    for way in Way::ALL {
        for stack in ["-Djava.net.preferIPv4Stack=false", "-Djava.net.preferIPv4Stack=true"] {
            let server = [&java[..], &[stack, "Web", "server", &file]].concat();
            let client = [&java[..], &[stack, "Web", "client", &file, "NAME"]].concat();
            meet(&network, way, "java", &server, &client).with_context(|| stack)?;
        }
    }
    Ok(())
}

#[test]
fn tokio() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let program = env!("CARGO_BIN_EXE_tokio_reverse");
    for way in Way::ALL {
        meet(&network, way, "tokio", &[program, "server"], &[program, "client", "NAME", &file])?;
    }
    Ok(())
}

#[test]
fn perl() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let script = victim("web.pl");
    for way in Way::ALL {
        let client = ["perl", &script, "client", &file, "NAME"];
        meet(&network, way, "perl", &["perl", &script, "server", &file], &client)?;
    }
    Ok(())
}

/// Runs a static program in a way that cannot carry it: it must fail, and a listener of this machine must hear nothing.
fn fails_closed(network: &Network, way: Way, line: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
    let outside = TcpListener::bind("127.0.0.1:0")?;
    outside.set_nonblocking(true)?;
    let line = line(&outside.local_addr()?.port().to_string());
    let words: Vec<_> = line.iter().map(String::as_str).collect();
    let output = network.program(CLIENT, way, None, &words).stdin(Stdio::null()).output()?;
    ensure!(!output.status.success(), "{words:?} went on by {way:?}");
    ensure!(outside.accept().is_err(), "{words:?} reached this machine's network by {way:?}");
    Ok(())
}

#[test]
fn go_without_c() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let program = folder.at("web");
    let mut build = Command::new("go");
    build.args(["build", "-o", &program, &victim("web.go")]);
    build.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off").env("GOTOOLCHAIN", "local");
    prepare(build.env("GOCACHE", folder.at("cache")).env("GOPATH", folder.at("path")))?;
    for way in Way::ALL {
        if way.carries_static() {
            meet(&network, way, "go", &[&program, "server", &file], &[&program, "client", &file, "NAME"])?;
        } else {
            let line =
                |port: &str| [&program, "client", &file, &format!("127.0.0.1:{port}")].map(str::to_owned).to_vec();
            fails_closed(&network, way, &line)?;
        }
    }
    Ok(())
}

/// Builds the program in C that sends back reversed what it gets.
fn build_reverse(folder: &Folder, compiler: &str, more: &[&str]) -> Result<String> {
    let program = folder.at(compiler);
    prepare(Command::new(compiler).args(["-O1", "-o", &program, &victim("reverse.c")]).args(more))?;
    Ok(program)
}

/// The answer of the program in C to a file.
fn reversed(network: &Network, way: Way, line: &[&str], file: &Path) -> Result<()> {
    let output = network.program(CLIENT, way, None, line).stdin(File::open(file)?).output()?;
    let mut expected = pattern(SIZE);
    expected.reverse();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && output.stdout == expected,
        "{line:?} by {way:?}: {} bytes; {said}",
        output.stdout.len()
    );
    Ok(())
}

#[test]
fn c_with_musl_static_and_with_glibc() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let file = folder.write("file", pattern(SIZE))?;
    let musl = build_reverse(&folder, "musl-gcc", &["-static"])?;
    let glibc = build_reverse(&folder, "cc", &[])?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "glibc", &[&glibc, "server", "7000"], "listening")?;
        let mut clients = vec![&glibc];
        if way.carries_static() {
            clients.push(&musl);
        } else {
            fails_closed(&network, way, &|port| vec![musl.clone(), "4".into(), "127.0.0.1".into(), port.into()])?;
        }
        for family in ["4", "6"] {
            for client in &clients {
                reversed(&network, way, &[client, family, &name, "7000"], Path::new(&file))?;
            }
        }
        if way.carries_static() {
            let (_server, name) = network.serve(way, "musl", &[&musl, "server", "7000"], "listening")?;
            reversed(&network, way, &[&musl, "6", &name, "7000"], Path::new(&file))?;
        }
    }
    Ok(())
}
