//! A daemon whose disk is full says so, keeps what it has, and goes on as soon as there is room again.

use std::fs;
use std::io::Write;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use phantom_tests::alone::with_mounts;
use phantom_tests::programs::Folder;
use phantom_tests::{Server, binary, eventually, stdout};

/// What a start needs, and some.
const DISK: &str = "size=24m";

/// A daemon on a small disk of its own.
struct Small {
    folder: Folder,
    daemon: Server,
}

impl Small {
    fn start() -> Result<Self> {
        let folder = Folder::new()?;
        let disk = folder.make("disk")?;
        let mut daemon = Command::new(binary("phantomd"));
        daemon.args(["--accept-eula", "--listen", "127.251.2.1:0", "--log", "off"]);
        daemon.args(["--data-dir", &format!("{disk}/data"), "--socket", &folder.at("socket")]);
        let daemon = Server::start(with_mounts(&format!("mount -t tmpfs -o {DISK},mode=700 disk {disk}"), &daemon))?;
        let small = Self { folder, daemon };
        eventually(|| stdout(&small.phantom(&["identity", "list", "--json"])?))?;
        Ok(small)
    }

    fn phantom(&self, words: &[&str]) -> Result<Output> {
        Ok(Command::new(binary("phantom")).args(["--daemon", &self.folder.at("socket")]).args(words).output()?)
    }

    /// A file on the disk, from outside of the daemon's mounts.
    fn filler(&self) -> String {
        format!("/proc/{}/root{}", self.daemon.id(), self.folder.at("disk/filler"))
    }

    fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }

    /// What it says to a command that it must refuse.
    fn refuses(&self, words: &[&str]) -> Result<String> {
        let output = self.phantom(words)?;
        ensure!(output.status.code() == Some(1), "{words:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn lists(&self, what: &str) -> Result<usize> {
        let list: serde_json::Value = serde_json::from_str(&stdout(&self.phantom(&[what, "list", "--json"])?)?)?;
        Ok(list.as_array().map_or(0, Vec::len))
    }
}

#[test]
fn what_a_full_disk_refuses_is_said_and_taken_when_there_is_room() -> Result<()> {
    let small = Small::start()?;
    stdout(&small.phantom(&["identity", "new", "shop"])?)?;
    stdout(&small.phantom(&["forward", "80=8080", "--identity", "shop", "--keep"])?)?;
    small.fill()?;
    // Each twice: the store must not be worse for it.
    for _ in 0..2 {
        for words in [
            &["identity", "new", "more"][..],
            &["forward", "81=8081", "--identity", "shop", "--keep"],
            &["forward", "remove", "80"],
        ] {
            let said = small.refuses(words)?;
            let parts = ["disk/data/store.redb: No space left on device", "\n  free some space on that disk"];
            ensure!(parts.iter().all(|part| said.contains(part)), "{words:?}: {said}");
        }
    }
    ensure!(small.lists("identity")? == 1 && small.lists("forward")? == 1, "something was changed");
    fs::remove_file(small.filler())?;
    stdout(&small.phantom(&["identity", "new", "more"])?)?;
    stdout(&small.phantom(&["forward", "81=8081", "--identity", "shop", "--keep"])?)?;
    stdout(&small.phantom(&["forward", "remove", "80"])?)?;
    stdout(&small.phantom(&["identity", "remove", "more", "--yes"])?)?;
    ensure!(small.lists("identity")? == 1 && small.lists("forward")? == 1, "it does not go on");
    Ok(())
}
