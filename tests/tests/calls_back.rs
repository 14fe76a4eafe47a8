//! Programs that listen and tell the other side where, who connects back at once: active FTP, DCC, RMI, BitTorrent.

use anyhow::{Result, ensure};
use phantom_tests::{CLIENT, Network, Way, phantom_run, stdout};

/// Connects to whoever says a port, on that port, once.
const SERVER: &str = "
import socket
server = socket.create_server(('::', 2121), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    client, peer = server.accept()
    try:
        with socket.create_connection((peer[0], int(client.recv(10))), 60) as back: back.sendall(b'data')
        client.sendall(b'done')
    except OSError as error: client.sendall(str(error).encode())
    except ValueError: pass
    client.close()
";

/// Listens, and says on which port right away.
const CLIENT_CODE: &str = "
import socket, sys
client = socket.create_connection((sys.argv[1], 2121), 60)
listener = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)
client.sendall(b'%d' % listener.getsockname()[1])
print(client.recv(100).decode())
";

#[test]
fn who_has_just_begun_to_listen_is_reached() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "calls-back", &["python3", "-c", SERVER], "listening")?;
        for _ in 0..3 {
            let said = stdout(&network.offering(CLIENT, way, None, &["python3", "-c", CLIENT_CODE, &name]).output()?)?;
            ensure!(said == "done\n", "{way:?}: {said}");
        }
    }
    Ok(())
}

/// A visited server that calls back comes to nothing that was not published: neither at an identity that nobody can find, nor
/// at one of which something else is published.
#[test]
fn who_has_not_published_is_not_called_back() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "calls-back-too", &["python3", "-c", SERVER], "listening")?;
        let visit = ["python3", "-c", CLIENT_CODE, &name];
        let said = network.run(way, &visit)?;
        ensure!(said.contains("No route to host"), "{way:?}: {said}");
        // It can be found now, and may be called at another port.
        let mut command = phantom_run(&network.nodes[CLIENT].socket, way);
        command.args(["--quiet", "--publish", "1", "--", "sh", "-c", "sleep 5; exec \"$@\"", "sh"]).args(visit);
        let said = stdout(&command.output()?)?;
        ensure!(["Connection refused", "No route to host"].iter().any(|end| said.contains(end)), "{way:?}: {said}");
    }
    Ok(())
}

/// Answers each connection with how many have come so far.
const COUNTS: &str = "
import socket
server = socket.create_server(('::', 2122), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
count = 0
while True:
    client, _ = server.accept()
    count += 1
    try: client.sendall(b'%d' % count)
    except OSError: pass
    client.close()
";

/// Tries both families at once and takes the one that connects first, as curl and browsers do when IPv6 takes its time.
const BOTH: &str = "
import select, socket, sys
families = (socket.AF_INET6, socket.AF_INET)
ends = [socket.getaddrinfo(sys.argv[1], 2122, family, socket.SOCK_STREAM)[0][4] for family in families]
def attempt(family, end):
    s = socket.socket(family)
    s.setblocking(False)
    s.connect_ex(end)
    return s
def count(s):
    s.setblocking(True)
    return int(s.recv(10))
last, races = None, 0
while races < 5:
    attempts = list(map(attempt, families, ends))
    is_race = not select.select([], attempts[:1], [], 0)[1]
    won = select.select([], attempts, [])[1][0]
    for s in attempts:
        if s is not won: s.close()
    now = count(won)
    # The second attempt may be under way where it was begun after the first was over.
    if is_race: print(won.family.name, now - last if last else 1)
    races, last = races + is_race, now if is_race else None
";

/// Over IPv4 a program would not know an address of its own that it can tell others: curl's active FTP failed by chance.
#[test]
fn who_tries_both_families_gets_ipv6_and_connects_once() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::ALL {
        let (_server, name) = network.serve(way, "counts", &["python3", "-c", COUNTS], "listening")?;
        let said = network.run(way, &["python3", "-c", BOTH, &name])?;
        ensure!(said == "AF_INET6 1\n".repeat(5), "{way:?}: {said}");
    }
    Ok(())
}

/// Connects to one address many times at the same time.
const NOBODY: &str = "
import errno, socket, threading
ends = []
def one():
    try: socket.create_connection(('fd70::1:2:3', 80), 60)
    except OSError as error: ends.append(errno.errorcode[error.errno])
threads = [threading.Thread(target=one) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(ends), set(ends))
";

// protocol: S23
#[test]
fn an_address_that_nobody_has_is_unreachable_for_all_who_ask() -> Result<()> {
    let network = Network::shared()?;
    for way in [Way::Namespace, Way::Emulate] {
        let said = stdout(&network.program(CLIENT, way, None, &["python3", "-c", NOBODY]).output()?)?;
        ensure!(said == "20 {'EHOSTUNREACH'}\n", "{way:?}: {said}");
    }
    Ok(())
}
