//! What `scripts/setup` says and does, by purpose, on a machine whose packages are told by the test: no network, nothing installed. And what
//! the `.tar.gz` leaves behind.
#![allow(missing_docs)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// Programs of the system that the script itself runs with.
const TOOLS: [&str; 16] = [
    "bash", "sed", "sort", "head", "cut", "grep", "dirname", "env", "id", "rm", "tee", "chmod", "cat", "printf",
    "true", "touch",
];

/// As apt does: has a plan for every package but `unknown` ones, which the lists hold only after an update.
const APT: &str = r#"#!/bin/sh
printf '%s\n' "$*" >>"$FAKES/asked"
case "$*" in
    update*) : >"$FAKES/updated"; exit 0 ;;
    *--assume-no*)
        [ ! -e "$FAKES/stale" ] || [ -e "$FAKES/updated" ] || { echo 'E: Unable to locate package' >&2; exit 100; }
        echo '0 upgraded, 3 newly installed, 0 to remove.'
        echo 'Need to get 12.3 MB of archives.'
        echo 'After this operation, 45.6 MB of additional disk space will be used.'
        echo Abort.; exit 1 ;;
    *install*)
        for word in "$@"; do
            case $word in curl | python3 | cargo) cp "$FAKES/stub" "$FAKES/$word" ;; esac
        done ;;
esac
"#;

/// A machine of the test's own.
struct Machine(tempfile::TempDir);

impl Machine {
    /// With these programs, and the distribution's Rust in this version.
    fn with(programs: &[&str], rust: &str) -> Result<Self> {
        let machine = Self(tempfile::tempdir()?);
        for tool in TOOLS.iter().chain(&["cp"]) {
            symlink(find(tool)?, machine.path().join(tool))?;
        }
        machine.program("stub", "#!/bin/sh\necho stub 1.99.0\n")?;
        for program in programs {
            machine.program(program, "#!/bin/sh\necho stub 1.99.0\n")?;
        }
        machine.program("apt-get", APT)?;
        // As in Debian 12, where cargo counts in its own way.
        let cargo = if rust == "1.63.0" { "0.66.0" } else { rust };
        let policy = "#!/bin/sh\nfor one; do case $one in cargo) echo '  Candidate: CARGO+ds1-1' ;; rustc) echo '  Candidate: RUST+dfsg1-2' ;; esac; done\n";
        machine.program("apt-cache", &policy.replace("CARGO", cargo).replace("RUST", rust))?;
        // Where the machine that tests has no TUN device, root would load the module.
        machine.program("modprobe", "#!/bin/sh\n")?;
        machine.program("sudo", "#!/bin/sh\nexec \"$@\"\n")?;
        Ok(machine)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
    }

    fn setup(&self, purpose: &[&str]) -> Result<Output> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup");
        // The script adds the system's folders of services itself: what lies there is not looked for here.
        let mut command = Command::new(self.path().join("bash"));
        command.arg(script).args(purpose).env_clear().env("PATH", self.path()).env("FAKES", self.path());
        Ok(command.output()?)
    }

    /// What apt was asked.
    fn asked(&self) -> String {
        fs::read_to_string(self.path().join("asked")).unwrap_or_default()
    }
}

fn find(tool: &str) -> Result<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/sbin"].map(PathBuf::from);
    folders.map(|folder| folder.join(tool)).into_iter().find(|path| path.exists()).with_context(|| tool.to_owned())
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn the_demonstration_takes_a_compiler_curl_and_python_only() -> Result<()> {
    let machine = Machine::with(&["cc", "curl", "python3", "cargo"], "1.63.0")?;
    let output = machine.setup(&["demo"])?;
    ensure!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    ensure!(machine.asked().is_empty(), "{}", machine.asked());
    Ok(())
}

#[test]
fn what_is_fetched_is_said_before() -> Result<()> {
    let machine = Machine::with(&["cc", "cargo"], "1.63.0")?;
    fs::write(machine.path().join("stale"), "")?;
    let output = machine.setup(&["demo"])?;
    let said = said(&output);
    ensure!(output.status.success(), "{said}");
    let place = |words: &str| said.find(words).with_context(|| format!("no {words:?} in {said}"));
    ensure!(place("lists of packages")? < place("missing: curl python3")?, "{said}");
    ensure!(place("missing: curl python3")? < place("Need to get 12.3 MB")?, "{said}");
    let asked = machine.asked();
    let last = asked.lines().last().context("apt was not asked")?;
    ensure!(last.starts_with("install") && last.ends_with("curl python3") && !last.contains("assume"), "{asked}");
    Ok(())
}

#[test]
fn without_a_purpose_it_is_for_tests() -> Result<()> {
    let machine = Machine::with(&["cc", "curl", "python3", "cargo"], "1.63.0")?;
    let said = said(&machine.setup(&[])?);
    ensure!(said.contains("for \"test\"") && said.contains("chromium") && said.contains("golang"), "{said}");
    ensure!(machine.setup(&["everything"])?.status.code() == Some(2));
    Ok(())
}

#[test]
fn the_distributions_rust_is_taken_where_it_is_new_enough() -> Result<()> {
    let machine = Machine::with(&["cc", "curl", "python3"], "1.95.0")?;
    let output = machine.setup(&["demo"])?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(machine.asked().lines().last().is_some_and(|last| last.ends_with("cargo rustc")), "{}", machine.asked());

    let old = Machine::with(&["cc", "curl", "python3"], "1.63.0")?;
    let output = old.setup(&["demo"])?;
    let words = said(&output);
    ensure!(output.status.code() == Some(1) && old.asked().is_empty(), "{words}");
    ensure!(words.contains("the distribution has 1.63.0") && words.contains("https://sh.rustup.rs"), "{words}");

    // One that is there and too old may be somebody's choice.
    old.program("cargo", "#!/bin/sh\necho cargo 1.80.1\n")?;
    let words = said(&old.setup(&["demo"])?);
    ensure!(words.contains("there is 1.80.1"), "{words}");
    Ok(())
}

/// Files that a `.tar.gz` has, beside a document of this name.
const PACKED: [&str; 12] = [
    "bin/phantom",
    "bin/phantomd",
    "bin/phantom-run",
    "lib/phantom/libphantom.so",
    "lib/user/phantomd.service",
    "doc/README.md",
    "doc/LICENSE",
    "share/man/man1/phantom.1",
    "share/bash-completion/completions/phantom",
    "share/fish/vendor_completions.d/phantom.fish",
    "share/zsh/vendor-completions/_phantom",
    "share/phantomd.toml",
];

/// An unpacked `.tar.gz`, but for its programs, with one document.
fn unpacked(folder: &Path, document: &str) -> Result<()> {
    for file in PACKED.iter().map(|file| (*file).to_owned()).chain([format!("doc/docs/{document}")]) {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().context("no folder")?)?;
        fs::write(file, "")?;
    }
    for script in ["install", "uninstall"] {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging").join(script);
        fs::copy(own, folder.join(script))?;
    }
    Ok(())
}

#[test]
fn what_an_older_version_had_and_a_newer_has_not_goes_with_the_upgrade_and_all_with_the_removal() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (home, prefix) = (dir.path().join("home"), dir.path().join("home/prefix"));
    let run = |script: PathBuf, words: &[&Path]| -> Result<()> {
        let output = Command::new("sh").arg(script).args(words).env("HOME", &home).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    };
    let documents = prefix.join("share/doc/phantom/docs");
    for (version, document) in [("older", "old.md"), ("newer", "new.md")] {
        let tree = dir.path().join(version);
        unpacked(&tree, document)?;
        run(tree.join("install"), &[Path::new("--prefix"), &prefix])?;
        let there: Vec<_> =
            fs::read_dir(&documents)?.map(|one| one.map(|one| one.file_name())).collect::<Result<_, _>>()?;
        ensure!(there == [document], "{there:?}");
    }
    run(prefix.join("lib/phantom/uninstall"), &[])?;
    let left = Command::new("find").arg(&prefix).args(["-type", "f"]).output()?;
    ensure!(left.stdout.is_empty(), "{left:?}");
    Ok(())
}
