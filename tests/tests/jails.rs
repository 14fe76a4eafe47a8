//! Servers that jail themselves where no namespaces can be had, so that nothing leads to the daemon but its path.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::unable;
use phantom_tests::{Alone, Kind, Way, binary};

/// Listens, jails itself, and connects to itself; before that it may close what it does not know, as daemons do.
const JAILED: &str = "
import os, socket, sys
server = socket.create_server(('::', 0), family=socket.AF_INET6)
os.chroot(sys.argv[1]); os.chdir('/')
if sys.argv[2] == 'closes': os.closerange(100, 4096)
try:
    client = socket.socket(socket.AF_INET6)
    client.connect(('::1', server.getsockname()[1]))
    server.accept()[0].sendall(b'a socket')
    print(client.recv(10).decode())
except OSError as error: print(error.strerror)
";

#[test]
fn sockets_in_a_jail_come_by_the_line_or_the_daemons_socket_there_and_the_lack_of_both_is_said() -> Result<()> {
    let alone = Alone::shared()?;
    let (bare, furnished) = (alone.folder.make("bare")?, alone.folder.make("furnished")?);
    let socket = alone.socket(Kind::Root);
    let inside = Path::new(&furnished).join(socket.strip_prefix("/")?);
    fs::create_dir_all(inside.parent().context("a folder")?)?;
    fs::hard_link(&socket, &inside)?;
    let without_launcher = |jail: &str, line: &str| {
        let mut command = Command::new("python3");
        command
            .args(["-c", JAILED, jail, line])
            .env("LD_PRELOAD", binary("libphantom.so"))
            .env("PHANTOM_SOCKET", &socket);
        command
    };
    let under = |way, jail: &str, line| unable(&alone.run(Kind::Root, way, &["python3", "-c", JAILED, jail, line]));
    for (jail, line, has_it) in
        [(&bare, "closes", false), (&bare, "keeps", true), (&furnished, "closes", true), (&furnished, "keeps", true)]
    {
        let commands = [
            ("inject", under(Way::Inject, jail, line), true),
            ("preload", under(Way::Preload, jail, line), has_it),
            // Each call on an emulated socket takes a connection to the daemon.
            ("emulate", under(Way::Emulate, jail, line), *jail == furnished),
            ("the library alone", without_launcher(jail, line), has_it),
        ];
        for (how, mut command, works) in commands {
            let output = command.output()?;
            let (said, told) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
            let expected = if works { "a socket\n" } else { "Network is down\n" };
            ensure!(said == expected, "{how} in {jail} {line}: {said}{told}");
            ensure!(told.contains("in a jail") != works, "{how} in {jail} {line}: {told}");
        }
    }
    Ok(())
}
