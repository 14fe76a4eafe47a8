//! What tests of real programs share: preparations outside Phantom, folders, keys of ssh, ways that carry static programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Way, pattern, stdout};

/// A path as an argument.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

/// Runs what belongs to the preparations, outside Phantom.
pub fn prepare(command: &mut Command) -> Result<String> {
    stdout(&command.output()?).with_context(|| format!("{command:?}"))
}

impl Way {
    /// Whether programs without a dynamic loader have a network: a library cannot be put into them.
    pub fn carries_static(self) -> bool {
        matches!(self, Self::Namespace | Self::Inject)
    }
}

/// A folder that every user may enter: servers give root up before they read their files.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one, removed when dropped.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("phantom-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self(dir))
    }

    /// A file or folder inside.
    pub fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.at(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Makes a folder that everybody may write to.
    pub fn make(&self, name: &str) -> Result<String> {
        let path = self.at(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok(path)
    }

    /// Checks that a file holds the whole [`pattern`], and removes it.
    pub fn expect_pattern(&self, name: &str, size: usize) -> Result<()> {
        let path = self.at(name);
        let got = fs::read(&path).with_context(|| path.clone())?;
        ensure!(got == pattern(size), "{path} differs: {} bytes of {size}", got.len());
        Ok(fs::remove_file(&path)?)
    }

    /// The folder itself.
    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

/// Keys and configuration of an sshd that lets its own user in.
pub struct Ssh {
    /// The server's configuration file.
    pub config: String,
    /// The client's options.
    pub options: Vec<String>,
    /// Who may come in.
    pub user: String,
}

impl Ssh {
    /// Makes them in a folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let [host, user, config, known] = ["host", "user", "config", "known"].map(|name| folder.join(name));
        for key in [&host, &user] {
            prepare(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key))?;
        }
        let user = text(&user)?.to_owned();
        let lines = [
            "Port 22".to_owned(),
            format!("HostKey {}", text(&host)?),
            format!("AuthorizedKeysFile {user}.pub"),
            "StrictModes no".into(),
            "UsePAM no".into(),
            "PasswordAuthentication no".into(),
            "PermitRootLogin yes".into(),
            "PidFile none".into(),
            "Subsystem sftp internal-sftp".into(),
        ];
        fs::write(&config, lines.join("\n"))?;
        // Debian's sshd wants it, and makes it only where it is started as a service.
        fs::create_dir_all("/run/sshd")?;
        let options = ["-F", "none", "-i", &user, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o"];
        let known = format!("UserKnownHostsFile={}", text(&known)?);
        let options = options.into_iter().map(str::to_owned).chain([known]).collect();
        let user = prepare(&mut Command::new("whoami"))?.trim().to_owned();
        Ok(Self { config: text(&config)?.to_owned(), options, user })
    }

    /// The command line of the server; what it says goes to standard output.
    pub fn server(&self) -> [String; 3] {
        ["sh".into(), "-c".into(), format!("exec /usr/sbin/sshd -D -e -f {} 2>&1", self.config)]
    }

    /// The command line of a client program: its name, our options, its arguments.
    pub fn client<'a>(&'a self, program: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        let options = self.options.iter().map(String::as_str);
        [program].into_iter().chain(options).chain(arguments.iter().copied()).collect()
    }
}

/// A command line as [`crate::Network::serve`] and its relatives take it.
pub fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}
