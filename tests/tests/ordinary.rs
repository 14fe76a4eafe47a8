//! What other programs' users reported, for ordinary users: of root's daemon, and with a daemon of their own.

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Kind, NODES, Network, SERVER, Server, User, Way, drain, eventually, stdout};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Port 21: as super-servers have it, descriptors 0 to 2 are the visitor's connection; then a jail, as far as a user may
/// have one, and a socket. Port 2121: connects back to whoever says a port. Port 2122: says how many have come.
const SERVER_CODE: &str = "
import ctypes, os, socket, sys, threading
def serve(port, answer):
    server = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    def run():
        while True:
            client, peer = server.accept()
            try: answer(client, peer)
            except OSError: pass
            client.close()
    threading.Thread(target=run).start()
def jailed(client, peer):
    if os.fork() == 0:
        for number in range(3): os.dup2(client.fileno(), number)
        os.write(1, b'220 hello\\n')
        assert ctypes.CDLL(None).unshare(0x10000000) == 0
        os.chroot(sys.argv[1]); os.chdir('/')
        try: socket.socket(); os.write(1, b'200 a socket\\n')
        except OSError as error: os.write(1, b'500 no socket\\n')
        os._exit(0)
    os.wait()
def back(client, peer):
    try:
        with socket.create_connection((peer[0], int(client.recv(10))), 60) as there: there.sendall(b'data')
        client.sendall(b'done')
    except OSError as error: client.sendall(str(error).encode())
count = 0
def counts(client, peer):
    global count
    count += 1
    client.sendall(b'%d' % count)
for port, answer in ((21, jailed), (2121, back), (2122, counts)): serve(port, answer)
print('listening', flush=True)
";

/// Asks each of them; the last after twenty attempts that are given up at once.
const CLIENT_CODE: &str = "
import socket, sys
def to(port): return socket.create_connection((sys.argv[1], port), 60)
print(to(21).makefile().read().split('\\n'))
client = to(2121)
listener = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)
client.sendall(b'%d' % listener.getsockname()[1])
print(client.recv(100).decode())
before = int(to(2122).recv(10))
for _ in range(20):
    s = socket.socket(socket.AF_INET6)
    s.setblocking(False)
    s.connect_ex(socket.getaddrinfo(sys.argv[1], 2122, socket.AF_INET6, socket.SOCK_STREAM)[0][4])
    s.close()
print(int(to(2122).recv(10)) - before)
";

/// A network, and the user of it.
struct Ordinary {
    network: Network,
    guest: Option<User>,
}

impl Ordinary {
    fn of(kind: Kind) -> Result<Self> {
        if kind == Kind::Own {
            return Ok(Self { network: Network::up_as(NODES, Some(User::new()?))?, guest: None });
        }
        let network = Network::up(NODES)?;
        for node in [SERVER, CLIENT] {
            network.open_to_all(node)?;
        }
        Ok(Self { network, guest: Some(User::new()?) })
    }

    fn program(&self, node: usize, way: Way, program: &[&str]) -> Result<Command> {
        let user = self.guest.as_ref().map_or_else(|| self.network.user(), Ok)?;
        let mut command = user.tool("phantom-run");
        command.arg("--daemon").arg(&self.network.nodes[node].socket);
        command.args(["--isolation", way.flag(), "--publish", "all", "--"]).args(program).stdin(Stdio::null());
        Ok(command)
    }

    /// The server as nobody in particular, which is what a guest may be; its name is what phantom-run says.
    fn serve(&self, way: Way) -> Result<(Server, String)> {
        let mut command = self.program(SERVER, way, &["python3", "-c", SERVER_CODE, "/usr"])?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (said, mut told) =
            (child.stdout.take().context("no pipe")?, BufReader::new(child.stderr.take().context("no pipe")?));
        let server = Server::from(child);
        let mut line = String::new();
        told.read_line(&mut line)?;
        let name = line.split_whitespace().find(|word| word.ends_with(".phantom")).context(line.clone())?.to_owned();
        std::thread::spawn(move || drain(told));
        let mut said = BufReader::new(said);
        line.clear();
        said.read_line(&mut line)?;
        ensure!(line == "listening\n", "{line}");
        std::thread::spawn(move || drain(said));
        Ok((server, name))
    }
}

#[test]
fn servers_and_clients_of_ordinary_users() -> Result<()> {
    for kind in [Kind::OfRoots, Kind::Own] {
        let ordinary = Ordinary::of(kind)?;
        for way in Way::ALL {
            let (_server, name) = ordinary.serve(way)?;
            eventually(|| {
                let found = ordinary.network.phantom(CLIENT, &["netdb", "lookup", &name])?;
                ensure!(found["entry_nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "not published");
                Ok(())
            })?;
            let mut client = ordinary.program(CLIENT, way, &["python3", "-c", CLIENT_CODE, &name])?;
            let said = stdout(&client.output()?).with_context(|| format!("{kind:?} by {way:?}"))?;
            let lines: Vec<_> = said.lines().collect();
            ensure!(lines[..2] == ["['220 hello', '200 a socket', '']", "done"], "{kind:?} by {way:?}: {said}");
            // On a busy machine one may be there before it is given up; the kernel's own attempts nobody can call back.
            let arrived = lines[2].parse::<u32>()? - 1;
            ensure!(way != Way::Emulate || arrived < 10, "{kind:?} by {way:?}: {said}");
        }
    }
    Ok(())
}
