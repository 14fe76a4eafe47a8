//! What a local socket tells that was made in the computer's own network, and that a program under phantom-run holds: a weakness that is left.

use std::process::Command;

use anyhow::{Result, ensure};
use phantom_tests::{Alone, Way, stdout};

/// Starts a program with a local socket as standard output, as service managers do, and says what came by it.
const AS_A_SERVICE: &str = "
import socket, subprocess, sys
ours, theirs = socket.socketpair()
program = subprocess.Popen(sys.argv[1:], stdout=theirs.fileno(), stderr=sys.stderr); theirs.close()
print(b''.join(iter(lambda: ours.recv(4096), b'')).decode(), end=''); sys.exit(program.wait())
";

/// SIOCGIFCONF by that socket: addresses of interfaces.
const ASKS: &str = "
import array, fcntl, socket, struct
room = array.array('B', bytes(4000))
try: length = struct.unpack('iL', fcntl.ioctl(1, 0x8912, struct.pack('iL', len(room), room.buffer_info()[0])))[0]
except OSError as error: print(error.errno)
else: print(socket.inet_aton('203.0.113.5') in room.tobytes()[:length])
";

/// The kernel answers for the network in which a socket was made: this is not stopped, as docs/threat-model.md says.
#[test]
fn a_local_socket_that_was_made_outside_tells_addresses_but_under_emulation() -> Result<()> {
    let alone = Alone::shared()?;
    let network = "ip link add wan type veth peer name far; ip link set wan up; ip addr add 203.0.113.5/24 dev wan";
    alone.everywhere(|kind, way| {
        let run = alone.run(kind, way, &["python3", "-c", ASKS]);
        let mut service = Command::new("python3");
        service.args(["-c", AS_A_SERVICE]).arg(run.get_program()).args(run.get_args());
        let mut outside = Command::new("unshare");
        outside.args(["-n", "sh", "-ec", &format!("{network}; exec \"$@\""), "sh", "python3"]).args(service.get_args());
        let said = stdout(&outside.output()?)?;
        let expected = if way == Way::Emulate { format!("{}\n", libc::ENODEV) } else { "True\n".to_owned() };
        ensure!(said == expected, "{said}");
        Ok(())
    })
}
