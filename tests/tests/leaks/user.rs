//! The same for an ordinary user, whose daemon is the user's own: no capability is there to begin with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Server, Way, binary, eventually};

use crate::table::Table;
use crate::world::{Linked, ORDINARY, World, as_user};
use crate::{all_right, compare, watched};

/// The cells for an ordinary user.
const TABLE: &str = include_str!("../../hostile/table-user.txt");

/// A daemon of the user's, alone in the world: programs come no further than to it.
struct Own {
    folder: PathBuf,
    _daemon: Server,
}

impl Own {
    fn start(world: &World) -> Result<Self> {
        let folder = world.programs.path().to_owned();
        for name in ["phantomd", "phantom-run", "libphantom.so"] {
            // Where the build lies, other users may have no business.
            fs::copy(binary(name), folder.join(name))?;
        }
        let own = Path::new("/run/user").join(ORDINARY).join("own");
        let mut daemon = Command::new("setpriv");
        daemon.args(&as_user(ORDINARY)[1..]).arg(folder.join("phantomd")).arg("--data-dir").arg(&own);
        daemon.args(["--listen", "127.0.0.1:0", "--accept-eula", "--socket"]).arg(socket()).stderr(Stdio::null());
        let daemon = Server::start(daemon)?;
        eventually(|| {
            ensure!(socket().exists(), "the daemon does not start");
            Ok(())
        })?;
        Ok(Self { folder, _daemon: daemon })
    }

    fn program(&self, way: Option<Way>, words: &[String]) -> Result<Command> {
        let Some(way) = way else {
            let mut bare = Command::new(words.first().context("no program")?);
            bare.args(&words[1..]);
            return Ok(bare);
        };
        let mut command = Command::new(self.folder.join("phantom-run"));
        command.arg("--daemon").arg(socket()).args(["--quiet", "--isolation", way.flag(), "--"]).args(words);
        Ok(command)
    }
}

fn socket() -> PathBuf {
    Path::new("/run/user").join(ORDINARY).join("own.sock")
}

#[test]
fn an_ordinary_users_programs_end_as_the_table_says() -> Result<()> {
    let world = World::make(ORDINARY)?;
    let own = Own::start(&world)?;
    let table = Table::parse(TABLE)?;
    let mut wrong = Vec::new();
    for way in Way::ALL.map(Some).into_iter().chain([None]) {
        for linked in [Linked::Dynamic, Linked::Static] {
            let words = world.hostile(linked, &socket(), Path::new("/run/phantom/daemon.sock"));
            let (reports, seen) = watched(&world, &own.program(way, &words)?, "1")?;
            wrong.extend(compare(&table, way, linked, &reports, &seen));
        }
    }
    all_right(&wrong)
}
