//! Servers that jail themselves where no namespaces can be had, so that nothing leads to the daemon but its path.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::unable;
use phantom_tests::{Alone, Kind, Way, binary};

/// Listens, jails itself, and connects to itself.
const JAILED: &str = "
import os, socket, sys
server = socket.create_server(('::', 0), family=socket.AF_INET6)
os.chroot(sys.argv[1]); os.chdir('/')
try:
    client = socket.socket(socket.AF_INET6)
    client.connect(('::1', server.getsockname()[1]))
    server.accept()[0].sendall(b'a socket')
    print(client.recv(10).decode())
except OSError as error: print(error.strerror)
";

#[test]
fn sockets_in_a_jail_take_the_daemons_socket_there_and_the_lack_of_it_is_said() -> Result<()> {
    let alone = Alone::shared()?;
    let (bare, furnished) = (alone.folder.make("bare")?, alone.folder.make("furnished")?);
    let socket = alone.socket(Kind::Root);
    let inside = Path::new(&furnished).join(socket.strip_prefix("/")?);
    fs::create_dir_all(inside.parent().context("a folder")?)?;
    fs::hard_link(&socket, &inside)?;
    let without_launcher = |jail: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", JAILED, jail]).env("LD_PRELOAD", binary("libphantom.so")).env("PHANTOM_SOCKET", &socket);
        command
    };
    let under = |way, jail: &str| unable(&alone.run(Kind::Root, way, &["python3", "-c", JAILED, jail]));
    for (jail, has_it) in [(&bare, false), (&furnished, true)] {
        let commands = [
            ("inject", under(Way::Inject, jail), true),
            ("preload", under(Way::Preload, jail), has_it),
            ("emulate", under(Way::Emulate, jail), has_it),
            ("the library alone", without_launcher(jail), has_it),
        ];
        for (how, mut command, works) in commands {
            let output = command.output()?;
            let (said, told) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
            let expected = if works { "a socket\n" } else { "Network is down\n" };
            ensure!(said == expected, "{how} in {jail}: {said}{told}");
            ensure!(told.contains("in a jail") != works, "{how} in {jail}: {told}");
        }
    }
    Ok(())
}
