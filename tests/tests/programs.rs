//! Programs work as they are, in both ways: wget, nc, ssh and sshd, git over http, python3.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Ssh, prepare, text, words};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, pattern, stdout};

/// Bytes of a transfer: many cells, windows and TLS records, and still quick in a debug build.
const SIZE: usize = 1_000_000;

/// An http.server of a folder on port 80.
fn http(network: &Network, way: Way, identity: &str, folder: &Path) -> Result<(Server, String)> {
    let program = ["python3", "-u", "-m", "http.server", "80", "--directory", text(folder)?];
    network.serve(way, identity, &program, "Serving")
}

#[test]
fn wget() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("wget")?;
    fs::write(folder.join("file"), pattern(SIZE))?;
    for way in Way::ALL {
        let (_server, name) = http(&network, way, "wget", &folder)?;
        let got = folder.join("got");
        network
            .run(way, &["wget", "-q", "--tries=1", "-T", "60", "-O", text(&got)?, &format!("http://{name}/file")])?;
        ensure!(fs::read(&got)? == pattern(SIZE), "the file differs by {way:?}");
    }
    Ok(())
}

/// Sends back what it got once the other side has said that it is done: nothing without half-close.
const REVERSE: &str = "
import socket
with socket.create_server(('', 7000)) as server:
    print('listening', flush=True)
    while True:
        client, _ = server.accept()
        with client:
            got = b''
            while part := client.recv(65536):
                got += part
            client.sendall(got[::-1])
";

#[test]
fn nc_as_client_closes_its_half_and_hears_the_rest() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("nc-client")?;
    let question = folder.join("question");
    fs::write(&question, pattern(SIZE))?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "reverse", &["python3", "-c", REVERSE], "listening")?;
        let mut nc = network.program(CLIENT, way, None, &["nc", "-N", "-w", "60", &name, "7000"]);
        let output = nc.stdin(File::open(&question)?).output()?;
        let mut expected = pattern(SIZE);
        expected.reverse();
        ensure!(output.status.success() && output.stdout == expected, "{way:?}: {} bytes", output.stdout.len());
    }
    Ok(())
}

/// Sends its first argument's file to nc and writes what comes back to the second one; then it ends its half. Not before:
/// nc that listens leaves when its peer's half has ended and its own buffers happen to be empty, over any TCP.
const ASK: &str = "
import socket, sys
question, answer, name = sys.argv[1:]
with socket.create_connection((name, 7001), timeout=60) as server, open(question, 'rb') as source, open(answer, 'wb') as sink:
    server.sendfile(source)
    while part := server.recv(65536):
        sink.write(part)
    server.shutdown(socket.SHUT_WR)
";

#[test]
fn nc_as_server_in_both_directions() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("nc-server")?;
    let [question, answer, asked, answered] = ["question", "answer", "asked", "answered"].map(|name| folder.join(name));
    fs::write(&question, pattern(SIZE))?;
    fs::write(&answer, &pattern(SIZE + 1)[1..])?;
    for way in Way::ALL {
        // nc -v says when it listens, on standard error.
        let script = format!("exec nc -vlN 7001 2>&1 >{} <{}", text(&asked)?, text(&answer)?);
        let (mut server, name) = network.serve(way, "nc", &["sh", "-c", &script], "Listening")?;
        network.run(way, &["python3", "-c", ASK, text(&question)?, text(&answered)?, &name])?;
        ensure!(server.wait()?.success(), "nc failed by {way:?}");
        ensure!(fs::read(&asked)? == pattern(SIZE), "the server got something else by {way:?}");
        let (got, wanted) = (fs::read(&answered)?, fs::read(&answer)?);
        ensure!(got == wanted, "the client got {} of {} bytes, or others, by {way:?}", got.len(), wanted.len());
    }
    Ok(())
}

#[test]
fn ssh_scp_and_sshd() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("ssh")?;
    let ssh = Ssh::new(&folder)?;
    let [file, copy] = ["file", "copy"].map(|name| folder.join(name));
    fs::write(&file, pattern(SIZE))?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "ssh", &words(&ssh.server()), "listening")?;
        let there = format!("{}@{name}", ssh.user);
        let said = network.run(way, &ssh.client("ssh", &[&there, "echo over there; wc -c <", text(&file)?]))?;
        ensure!(said == format!("over there\n{SIZE}\n"), "{said:?} by {way:?}");
        let source = format!("{there}:{}", text(&file)?);
        network.run(way, &ssh.client("scp", &["-q", &source, text(&copy)?]))?;
        ensure!(fs::read(&copy)? == pattern(SIZE), "the copy differs by {way:?}");
        fs::remove_file(&copy)?;
        let status = network.program(CLIENT, way, None, &ssh.client("ssh", &[&there, "exit 42"])).output()?.status;
        ensure!(status.code() == Some(42), "{status} by {way:?}");
    }
    Ok(())
}

#[test]
fn git_clones_over_http() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("git")?;
    let [work, bare] = ["work", "repo.git"].map(|name| folder.join(name));
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(arguments);
        prepare(git.env("GIT_CONFIG_GLOBAL", "/dev/null"))
    };
    let work = text(&work)?;
    git(&["init", "-q", work])?;
    fs::write(Path::new(work).join("file"), pattern(SIZE))?;
    git(&["-C", work, "add", "file"])?;
    git(&["-C", work, "commit", "-q", "-m", "a file"])?;
    git(&["clone", "-q", "--bare", work, text(&bare)?])?;
    git(&["-C", text(&bare)?, "update-server-info"])?;
    let head = git(&["-C", work, "rev-parse", "HEAD"])?;
    for way in Way::ALL {
        let (_server, name) = http(&network, way, "git", &folder)?;
        let clone = folder.join(format!("by-{way:?}"));
        network.run(way, &["git", "clone", "-q", &format!("http://{name}/repo.git"), text(&clone)?])?;
        ensure!(git(&["-C", text(&clone)?, "rev-parse", "HEAD"])? == head, "another commit by {way:?}");
        ensure!(fs::read(clone.join("file"))? == pattern(SIZE), "the file differs by {way:?}");
    }
    Ok(())
}

/// Tells each client who it is, on both families.
const MIRROR: &str = "
import socket, threading
def serve(listener):
    while True:
        client, peer = listener.accept()
        with client:
            client.sendall(peer[0].encode())
six, four = socket.socket(socket.AF_INET6), socket.socket()
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
for listener in (six, four): listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
six.bind(('::', 9000)); six.listen()
four.bind(('0.0.0.0', 9001)); four.listen()
threading.Thread(target=serve, args=(six,), daemon=True).start()
print('listening', flush=True)
serve(four)
";

/// Looks at a connection with everything that a program can ask about it.
const LOOK: &str = "
import ipaddress, socket, sys
name, server, own = sys.argv[1:]
def said(connection):
    return connection.makefile().read()

# IPv6: both ends see addresses that are keys.
with socket.create_connection((name, 9000), timeout=60) as c:
    assert c.family == socket.AF_INET6, c
    assert c.getpeername()[:2] == (server, 9000), c.getpeername()
    assert c.getsockname()[0] == own, c.getsockname()
    assert said(c) == own
assert {i[4][0] for i in socket.getaddrinfo(name, 9000, socket.AF_INET6, socket.SOCK_STREAM)} == {server}
# Without a name.
with socket.create_connection((server, 9000), timeout=60) as c:
    assert said(c) == own

# IPv4 only: stand-ins of 198.18.0.0/15, on both sides; servers of either family are reached.
net = ipaddress.ip_network('198.18.0.0/15')
four = socket.gethostbyname(name)
assert ipaddress.ip_address(four) in net, four
for port in (9000, 9001):
    with socket.socket(socket.AF_INET) as c:
        c.settimeout(60)
        c.connect((four, port))
        assert c.getpeername() == (four, port), c.getpeername()
        assert ipaddress.ip_address(c.getsockname()[0]) in net, c.getsockname()
        who = said(c)
        assert who == own if port == 9000 else ipaddress.ip_address(who) in net, who

# Nobody listens: refused, and at once seen by a non-blocking connect too.
for port in (1, 9002):
    try:
        socket.create_connection((server, port), timeout=60)
        raise AssertionError('connected')
    except ConnectionRefusedError:
        pass
print('all well')
";

#[test]
fn python_sees_addresses_that_are_keys() -> Result<()> {
    let network = Network::shared()?;
    network.address(CLIENT, "looker")?;
    let address = |node: usize, name: &str| -> Result<String> {
        let address = network.phantom(node, &["address", "show", name])?;
        Ok(address["address"].as_str().context("no address")?.to_owned())
    };
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "mirror", &["python3", "-c", MIRROR], "listening")?;
        let (server, own) = (address(SERVER, "mirror")?, address(CLIENT, "looker")?);
        let look = ["python3", "-c", LOOK, &name, &server, &own];
        let output = network.program(CLIENT, way, Some("looker"), &look).stdin(Stdio::null()).output()?;
        ensure!(stdout(&output).with_context(|| format!("{way:?}"))? == "all well\n");
    }
    Ok(())
}
