//! The same for an ordinary user, whose daemon is the user's own or root's: no capability is there to begin with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Server, Way, binary, eventually};

use crate::table::Table;
use crate::world::{GIVER, Linked, ORDINARY, World, as_user};
use crate::{all_right, compare, watched};

/// The cells for an ordinary user.
const TABLE: &str = include_str!("../../hostile/table-user.txt");

/// A daemon of a user's, alone in the world: programs come no further than to it.
pub(crate) struct Own {
    folder: PathBuf,
    socket: PathBuf,
    _daemon: Server,
}

impl Own {
    pub(crate) fn start(world: &World, user: &'static str) -> Result<Self> {
        let folder = world.programs.path().to_owned();
        for name in ["phantomd", "phantom-run", "libphantom.so"] {
            // Where the build lies, other users may have no business.
            fs::copy(binary(name), folder.join(name))?;
        }
        let runtime = Path::new("/run/user").join(user);
        let socket = runtime.join("own.sock");
        let mut daemon = Command::new("setpriv");
        daemon.args(&as_user(user)[1..]).arg(folder.join("phantomd")).arg("--data-dir").arg(runtime.join("own"));
        daemon.args(["--listen", "127.0.0.1:0", "--accept-eula", "--socket"]).arg(&socket).stderr(Stdio::null());
        let daemon = Server::start(daemon)?;
        eventually(|| {
            ensure!(socket.exists(), "the daemon does not start");
            Ok(())
        })?;
        Ok(Self { folder, socket, _daemon: daemon })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A program in a way, or as it is.
    pub(crate) fn program(&self, way: Option<Way>, words: &[String]) -> Result<Command> {
        let Some(way) = way else {
            let mut bare = Command::new(words.first().context("no program")?);
            bare.args(&words[1..]);
            return Ok(bare);
        };
        let mut command = Command::new(self.folder.join("phantom-run"));
        command.arg("--daemon").arg(&self.socket).args(["--quiet", "--isolation", way.flag()]);
        command.args(["--allow-socket", GIVER, "--"]).args(words);
        Ok(command)
    }
}

#[test]
fn an_ordinary_users_programs_end_as_the_table_says() -> Result<()> {
    let world = World::make(ORDINARY)?;
    let own = Own::start(&world, ORDINARY)?;
    let table = Table::parse(TABLE)?;
    let mut wrong = Vec::new();
    for way in Way::ALL.map(Some).into_iter().chain([None]) {
        for linked in [Linked::Dynamic, Linked::Static] {
            let words = world.hostile(linked, own.socket(), Path::new("/run/phantom/daemon.sock"));
            let (reports, seen) = watched(&world, &own.program(way, &words)?, "1")?;
            wrong.extend(compare(&table, way, linked, &reports, &seen));
        }
    }
    all_right(&wrong)
}

#[test]
fn an_ordinary_users_programs_end_so_under_roots_daemon() -> Result<()> {
    let world = World::make(ORDINARY)?;
    let roots = Own::start(&world, "0")?;
    let table = Table::parse(TABLE)?;
    let mut wrong = Vec::new();
    for way in Way::ALL {
        let words = world.hostile(Linked::Dynamic, roots.socket(), Path::new("/run/phantom/daemon.sock"));
        let (reports, seen) = watched(&world, &roots.program(Some(way), &words)?, "1")?;
        wrong.extend(compare(&table, Some(way), Linked::Dynamic, &reports, &seen));
    }
    all_right(&wrong)
}
