//! What a preloaded library must mind: other ways to functions, paths that loaders split, descriptors that are not its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{CLIENT, Network, Server, Way, binary, stdout};

/// A web server with one page.
fn www(network: &Network, name: &str) -> Result<(Server, String)> {
    let folder = network.folder(name)?;
    fs::write(folder.join("page"), "here\n")?;
    let folder = folder.to_str().context("path")?;
    network.serve(Way::Namespace, name, &["python3", "-u", "-m", "http.server", "80", "--directory", folder], "Serving")
}

/// The library alone, without a launcher.
fn alone(network: &Network, program: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).env("LD_PRELOAD", binary("libphantom.so"));
    command.env("PHANTOM_SOCKET", &network.nodes[CLIENT].socket);
    command
}

/// PHP loads each of its extensions so that it finds libc's functions first.
#[test]
fn phps_curl() -> Result<()> {
    let network = Network::shared()?;
    let (_server, name) = www(&network, "for-php")?;
    let script = format!(
        "$c = curl_init('http://{name}/page'); curl_setopt_array($c, [CURLOPT_RETURNTRANSFER => 1, CURLOPT_TIMEOUT => 60]);
         echo curl_exec($c), curl_error($c);"
    );
    let php = ["php", "-r", &script];
    for way in Way::ALL {
        let page = network.run(way, &php)?;
        ensure!(page == "here\n", "{way:?}: {page}");
    }
    let page = stdout(&alone(&network, &php).output()?)?;
    ensure!(page == "here\n", "alone: {page}");
    Ok(())
}

/// As super-servers and vsftpd have it: descriptors 0, 1 and 2 are the visitor's connection, then everything but the
/// jail is out of reach, then a socket is wanted.
const JAILED: &str = "
import os, socket, sys
server = socket.create_server(('::', 21), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    client, _ = server.accept()
    if os.fork() == 0:
        for number in range(3): os.dup2(client.fileno(), number)
        os.write(1, b'220 hello\\r\\n')
        os.chroot(sys.argv[1]); os.chdir('/')
        try: socket.socket(); os.write(1, b'200 a socket\\r\\n')
        except OSError as error: os.write(1, b'500 no socket\\r\\n')
        os._exit(0)
    client.close()
";

#[test]
fn nothing_is_written_to_the_visitor_of_a_server_and_a_jail_has_sockets() -> Result<()> {
    let network = Network::shared()?;
    let jail = Folder::new()?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "jailed", &["python3", "-c", JAILED, &jail.at(".")], "listening")?;
        let code =
            "import socket, sys; print(socket.create_connection((sys.argv[1], 21), 60).makefile().read(), end='')";
        let said = network.run(Way::Namespace, &["python3", "-c", code, &name])?;
        let [hello, result] = said.lines().collect::<Vec<_>>()[..] else { anyhow::bail!("{way:?}: {said}") };
        ensure!(hello == "220 hello" && result == "200 a socket", "{way:?}: {said}");
    }
    Ok(())
}

/// A proxy as distributions have them: jails itself, then looks a name up and connects, in a child too.
const PROXY: &str = "
import os, socket, subprocess, sys
server = socket.create_server(('::', 8181), family=socket.AF_INET6)
print('listening', flush=True)
socket.getaddrinfo('localhost', 80) # Python's own parts for names must be loaded before
os.chroot(sys.argv[1]); os.chdir('/'); os.setgroups([]); os.setgid(65534); os.setuid(65534)
while True:
    client, _ = server.accept()
    if os.fork() == 0:
        with socket.create_connection((sys.argv[2], 80), 60) as back:
            back.sendall(b'GET /page HTTP/1.0\\r\\n\\r\\n')
            client.sendall(back.makefile('rb').read())
        os._exit(0)
    client.close()
";

#[test]
fn a_proxy_in_a_jail_connects_by_name() -> Result<()> {
    let network = Network::shared()?;
    let (_backend, backend) = www(&network, "behind-the-proxy")?;
    let jail = Folder::new()?;
    for way in [Way::Preload, Way::Emulate] {
        let proxy = ["python3", "-c", PROXY, &jail.at("."), &backend];
        let (_server, name) = network.serve(way, "proxy", &proxy, "listening")?;
        let page = network.run(Way::Namespace, &["curl", "-sS", "-m", "60", &format!("http://{name}:8181/")])?;
        ensure!(page.ends_with("here\n"), "{way:?}: {page}");
    }
    Ok(())
}

/// Our programs in a folder whose name the loader would split.
struct Odd {
    network: Arc<Network>,
    folder: PathBuf,
}

impl Odd {
    fn new(name: &str) -> Result<Self> {
        let network = Network::shared()?;
        let folder = network.folder(name)?;
        for program in ["phantom-run", "libphantom.so"] {
            // By another process: a file that a child of some other test still has open for writing cannot be executed.
            stdout(&Command::new("cp").arg(binary(program)).arg(&folder).output()?)?;
        }
        Ok(Self { network, folder })
    }

    fn run(&self, way: &str, library: Option<&Path>, program: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.folder.join("phantom-run"));
        command.arg("--daemon").arg(&self.network.nodes[CLIENT].socket).args(["--quiet", "--isolation", way, "--"]);
        // The pieces of the path are names of files here, too.
        command.args(program).stdin(Stdio::null()).current_dir(&self.folder);
        command.envs(library.map(|library| ("PHANTOM_LIBRARY", library)));
        Ok(command.output()?)
    }
}

/// Says whether there are sockets, also in a program whose environment was cleared.
const SOCKETS: [&str; 5] = ["env", "-i", "python3", "-c", "import socket; socket.socket(); print('a socket')"];

#[test]
fn a_library_whose_path_would_be_split_is_not_tried() -> Result<()> {
    for name in ["my programs", "a:b", "$LIB"] {
        let odd = Odd::new(name)?;
        for way in ["auto", "namespace", "inject"] {
            let said = stdout(&odd.run(way, None, &SOCKETS)?)?;
            ensure!(said == "a socket\n", "{way} in {name:?}: {said}");
        }
        // Not in a daemon's folder, which is hidden from programs.
        let folder = odd.network.nodes[0].data_dir.parent().context("a folder above")?;
        let link = folder.join(format!("link-{}.so", name.len()));
        std::os::unix::fs::symlink(odd.folder.join("libphantom.so"), &link)?;
        for way in ["preload", "emulate"] {
            let refused = odd.run(way, None, &["true"])?;
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(125) && why.contains("PHANTOM_LIBRARY"), "{way} in {name:?}: {why}");
            let said = stdout(&odd.run(way, Some(&link), &SOCKETS)?)?;
            ensure!(said == "a socket\n", "{way} by a link to {name:?}: {said}");
        }
    }
    Ok(())
}

/// Java lists interfaces by ioctl and by a file of /proc, not as libc does.
#[test]
fn javas_interfaces_are_those_of_the_identity() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let source = format!("{}/victims/Interfaces.java", env!("CARGO_MANIFEST_DIR"));
    prepare(Command::new("javac").args(["-d", &folder.at("."), &source]))?;
    let shown = network.phantom(CLIENT, &["address", "new", "for-java"])?;
    let address = shown["address"].as_str().context("no address")?.parse::<std::net::Ipv6Addr>()?;
    let groups = address.segments().map(|group| format!("{group:x}")).join(":");
    for way in Way::ALL {
        let java = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", &folder.at("."), "Interfaces"];
        let said = stdout(&network.program(CLIENT, way, Some("for-java"), &java).output()?)?;
        let expected = format!(
            "own name: true\nphantom0 2 true false 65535 [198.18.0.1, {groups}]\nlo 1 true true 65536 [0:0:0:0:0:0:0:1, 127.0.0.1]\n"
        );
        ensure!(said == expected, "{way:?}: {said}");
    }
    Ok(())
}
