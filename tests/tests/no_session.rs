//! An ordinary user without a login session, as by su, cron or in a container: no folder for sockets, or somebody else's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use phantom_tests::programs::Folder;
use phantom_tests::{Server, User, eventually, stdout};

/// What such a user's environment says.
fn without_session(mut command: Command, home: &str, runtime: Option<&str>) -> Command {
    for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PHANTOM_SOCKET"] {
        command.env_remove(name);
    }
    command.env("HOME", home).envs(runtime.map(|runtime| ("XDG_RUNTIME_DIR", runtime))).current_dir("/");
    command
}

#[test]
fn daemon_and_programs_find_each_other() -> Result<()> {
    let user = User::new()?;
    let folder = Folder::new()?;
    // Root's, whose environment `su` keeps; and the user's own, once logged in.
    let (foreign, own) = (folder.make("foreign")?, folder.make("own")?);
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o700))?;
    user.owns(Path::new(&own))?;
    for (number, runtime) in [None, Some(&*foreign)].into_iter().enumerate() {
        let home = folder.make(&format!("home-{number}"))?;
        user.owns(Path::new(&home))?;
        let mut daemon = without_session(user.tool("phantomd"), &home, runtime);
        daemon.args(["--accept-eula", "--listen", "127.251.1.1:0", "--log", "off"]);
        let _daemon = Server::start(daemon)?;
        for runtime in [runtime, Some(&*own)] {
            let tool = |name| without_session(user.tool(name), &home, runtime);
            eventually(|| stdout(&tool("phantom").args(["status", "--json"]).output()?))?;
            let python = ["/usr/bin/python3", "-c", "import socket; socket.socket(); print('a socket')"];
            let mut run = tool("phantom-run");
            run.args(["--quiet", "--isolation", "emulate", "--"]).args(python);
            ensure!(stdout(&run.stdin(Stdio::null()).output()?)? == "a socket\n");
            // Only for the program itself: setpriv is root's.
            let mut alone = without_session(user.command("env"), &home, runtime);
            alone.arg(format!("LD_PRELOAD={}", user.tool_path("libphantom.so"))).arg("PHANTOM_EMULATE=1").args(python);
            ensure!(stdout(&alone.output()?)? == "a socket\n");
        }
    }
    Ok(())
}
