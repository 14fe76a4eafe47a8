//! Socket activation: a server that only takes what its service manager listens to is reached at its identity.

use std::process::Command;

use anyhow::{Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, stdout};

/// Listens as a socket unit with `ListenStream=[::]:0` and `BindToDevice=lo` has it, and becomes the launcher.
const MANAGER: &str = "
import os, socket, sys
s = socket.create_server(('::', 0), family=socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
os.dup2(os.dup(s.fileno()), 3)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
";

/// As programs do with sd_listen_fds: nothing else is listened to.
const ACTIVATED: &str = "
import os, socket
assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'
server = socket.socket(fileno=3)
print('port', server.getsockname()[1], flush=True)
while True:
    client, peer = server.accept()
    client.sendall(peer[0].encode())
    client.close()
";

const VISIT: &str = "
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as s: print(s.recv(100).decode()[:2])
";

#[test]
fn visitors_reach_what_a_service_manager_listens_to() -> Result<()> {
    let network = Network::shared()?;
    for way in Way::KERNEL {
        let name = network.address(SERVER, "activated")?;
        let run = network.offering(SERVER, way, Some("activated"), &["python3", "-c", ACTIVATED]);
        let mut manager = Command::new("python3");
        manager.args(["-c", MANAGER]).arg(run.get_program()).args(run.get_args());
        let (_server, line) = Server::start_first_line(&mut manager)?;
        let port = line.trim_start_matches("port ").to_owned();
        network.published(&name)?;
        let said = network.program(CLIENT, way, None, &["python3", "-c", VISIT, &name, &port]).output()?;
        ensure!(stdout(&said)? == "fd\n", "{way:?}: {said:?}");
    }
    Ok(())
}
