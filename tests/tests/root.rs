//! Programs that give root up, and those that let others log in.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Alone, Kind, Way, binary, stdout};

/// A connection to itself, by a name and by an address: it takes sockets, and whoever knows names.
const TALKS: &str = "
import os, socket
for family, address in ((socket.AF_INET, 'localhost'), (socket.AF_INET6, '::1')):
    s = socket.create_server((address if family == socket.AF_INET6 else '127.0.0.1', 0), family=family)
    c = socket.create_connection((address, s.getsockname()[1]), timeout=60)
    a, _ = s.accept()
    c.sendall(b'heard')
    print(os.getuid(), a.recv(5).decode())
";

/// The daemon's socket and the library lie in folders of root's alone, where `phantom testnet up` and `cargo` put them.
#[test]
fn whoever_gives_root_up_keeps_the_network() -> Result<()> {
    let alone = Alone::start()?;
    let socket = alone.socket(Kind::Root);
    let home = socket.parent().context("a folder")?;
    let library = home.join("libphantom.so");
    fs::copy(binary("libphantom.so"), &library)?;
    fs::set_permissions(home, Permissions::from_mode(0o700))?;
    let become_other =
        ["setpriv", "--reuid", "www-data", "--regid", "www-data", "--clear-groups", "/usr/bin/python3", "-c", TALKS];
    for way in Way::ALL {
        let output = alone.run(Kind::Root, way, &become_other).env("PHANTOM_LIBRARY", &library).output()?;
        let said = stdout(&output).with_context(|| format!("{way:?}"))?;
        ensure!(said == "33 heard\n33 heard\n", "{way:?}: {output:?}");
    }
    Ok(())
}

/// What PAM does for each login, which it refuses if that fails: under a login of root's own, as `ssh root@…` or a terminal is.
#[test]
fn logins_can_be_told_apart_under_a_login() -> Result<()> {
    let alone = Alone::shared()?;
    for way in Way::ALL {
        let run = alone.run(Kind::Root, way, &["sh", "-c", "echo 33 > /proc/self/loginuid; cat /proc/self/loginuid"]);
        let mut login = Command::new("sh");
        login
            .args(["-c", "echo 0 > /proc/self/loginuid; exec \"$@\"", "sh"])
            .arg(run.get_program())
            .args(run.get_args());
        ensure!(stdout(&login.output()?)? == "33", "{way:?}");
    }
    Ok(())
}
