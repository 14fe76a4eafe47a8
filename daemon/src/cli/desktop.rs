//! `phantom desktop`: entries "… over Phantom" in the desktop's menus, made from those of installed programs.
//!
//! An entry of ours is the program's own, but that `phantom-run` starts it and that nothing else does: no D-Bus activation, no
//! type of files or links for which the desktop would take it. A browser gets a profile of its own, since one that runs outside
//! with the same profile would take the page over and load it there.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::args::Desktop;
use super::ask::write_over;
use super::shown_list;
use crate::advice::{cannot_read, cannot_write};

/// Begins the file names of entries of ours.
const PREFIX: &str = "phantom-";

/// The line of an entry of ours that names whose it was.
const FROM: &str = "X-Phantom-From";

/// What would let the desktop start the program without `phantom-run`, or take this entry for what the user opens.
const DROPPED: [&str; 3] = ["DBusActivatable", "MimeType", "TryExec"];

/// Browsers by how their program is called, and how each is given a profile.
const BROWSERS: [(&str, &str); 7] = [
    ("firefox", "--new-instance --profile "),
    ("librewolf", "--new-instance --profile "),
    ("chromium", "--user-data-dir="),
    ("google-chrome", "--user-data-dir="),
    ("brave", "--user-data-dir="),
    ("vivaldi", "--user-data-dir="),
    ("microsoft-edge", "--user-data-dir="),
];

/// Where desktops look.
#[derive(Debug, Clone)]
struct Folders {
    /// `$XDG_DATA_HOME`.
    own: PathBuf,
    /// `$XDG_DATA_DIRS`, first choice first.
    system: Vec<PathBuf>,
}

impl Folders {
    fn here() -> Result<Self> {
        let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let own = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
        let system = env::var_os("XDG_DATA_DIRS").filter(|set| !set.is_empty());
        let system = system.unwrap_or_else(|| "/usr/local/share:/usr/share".into());
        let own = own.context("neither $HOME nor $XDG_DATA_HOME is set\n  set HOME to your home folder")?;
        Ok(Self { own, system: env::split_paths(&system).collect() })
    }

    fn entries(&self) -> PathBuf {
        self.own.join("applications")
    }

    /// The entry of an installed program, by the name of its file without the end.
    fn find(&self, name: &str) -> Result<PathBuf> {
        if name.contains('/') {
            bail!("{name} is a path\n  say the name of an entry, as in: phantom desktop add firefox-esr");
        }
        let all = || [&self.own].into_iter().chain(&self.system).map(|folder| folder.join("applications"));
        let wanted = format!("{name}.desktop");
        if let Some(found) = all().map(|folder| folder.join(&wanted)).find(|path| path.is_file()) {
            return Ok(found);
        }
        let mut like: Vec<String> = all().flat_map(|folder| stems(&folder)).collect();
        like.retain(|stem| stem.to_lowercase().contains(&name.to_lowercase()) && !stem.starts_with(PREFIX));
        like.sort();
        like.dedup();
        match like.as_slice() {
            [] => {
                bail!(
                    "no {wanted} is installed\n  say the name of an entry, without .desktop, as `ls /usr/share/applications` shows \
                     them; others are in applications below $XDG_DATA_HOME or $XDG_DATA_DIRS"
                )
            }
            like => bail!("no {wanted} is installed\n  did you mean: {}", like.join(", ")),
        }
    }
}

/// Names of the entries in a folder, without the end.
fn stems(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let entries = files.filter(|path| path.extension().is_some_and(|end| end == "desktop"));
    entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
}

/// Does what was asked; returns what to print.
pub(super) fn run(command: &Desktop, as_json: bool) -> Result<String> {
    let folders = Folders::here()?;
    match command {
        Desktop::Add { program, identity } => {
            let launcher = super::beside("phantom-run")?;
            add(&folders, program, identity.as_deref(), &launcher)
        }
        Desktop::Remove { program } => remove(&folders, program),
        Desktop::List => {
            let empty = "no entry was made yet: `phantom desktop add firefox-esr` makes one of an installed program's";
            shown_list(list(&folders), as_json, empty)
        }
    }
}

fn add(folders: &Folders, program: &str, identity: Option<&str>, launcher: &Path) -> Result<String> {
    let from = folders.find(program)?;
    let text = fs::read_to_string(&from).map_err(|error| cannot_read(&from, &error))?;
    let profile = folders.own.join("phantom/profiles").join(program);
    let (text, is_browser) = Wrap { launcher, identity, profile: &profile }.entry(&text, &from)?;
    if is_browser {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&profile);
        made.map_err(|error| cannot_make(&profile, &error))?;
    }
    let to = folders.entries().join(format!("{PREFIX}{program}.desktop"));
    fs::create_dir_all(folders.entries()).map_err(|error| cannot_make(&folders.entries(), &error))?;
    write_over(&to, &text).map_err(|error| cannot_write(&to, &error))?;
    let profile = if is_browser { format!("its profile: {}\n", profile.display()) } else { String::new() };
    Ok(format!("made {}\n{profile}", to.display()))
}

/// A folder below the user's own.
fn cannot_make(folder: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot make the folder {}: {error}\n  it must be this user's to write in: look at owner and rights (`ls -ld`), or set \
         XDG_DATA_HOME",
        folder.display()
    )
}

fn remove(folders: &Folders, program: &str) -> Result<String> {
    if !list(folders).iter().any(|name| name == program) {
        bail!("there is no entry of ours for {program}\n  `phantom desktop list` shows them");
    }
    let entry = folders.entries().join(format!("{PREFIX}{program}.desktop"));
    fs::remove_file(&entry).with_context(|| format!("cannot remove {}", entry.display()))?;
    let profile = folders.own.join("phantom/profiles").join(program);
    let left = if profile.exists() { format!("its profile stays: {}\n", profile.display()) } else { String::new() };
    Ok(format!("removed the entry of {program}\n{left}"))
}

/// Programs that have an entry of ours. A file that only has such a name is somebody else's.
fn list(folders: &Folders) -> Vec<String> {
    let folder = folders.entries();
    let is_ours = |stem: &String| {
        let text = fs::read_to_string(folder.join(format!("{stem}.desktop"))).unwrap_or_default();
        text.lines().any(|line| line.split_once('=').is_some_and(|(key, _)| key == FROM))
    };
    let mut names: Vec<String> = stems(&folder).into_iter().filter(is_ours).collect();
    names.iter_mut().for_each(|name| *name = name.strip_prefix(PREFIX).unwrap_or(name).to_owned());
    names.sort();
    names
}

/// How a program's entry becomes one of ours.
struct Wrap<'a> {
    launcher: &'a Path,
    identity: Option<&'a str>,
    profile: &'a Path,
}

impl Wrap<'_> {
    /// The entry, and whether it is that of a browser.
    fn entry(&self, text: &str, from: &Path) -> Result<(String, bool)> {
        let (mut out, mut is_browser, mut commands) = (String::new(), false, 0);
        for line in text.lines() {
            let (key, value) =
                line.split_once('=').map_or((line, ""), |(key, value)| (key.trim_end(), value.trim_start()));
            // Name[de] is a Name.
            let kind = key.split('[').next().unwrap_or(key);
            if DROPPED.contains(&key) || key == FROM {
                continue;
            }
            match kind {
                "Exec" => {
                    let (command, browser) = self.command(value)?;
                    (is_browser, commands) = (is_browser | browser, commands + 1);
                    out.push_str(&format!("Exec={command}\n"));
                }
                "Name" if !key.is_empty() && line.contains('=') => {
                    out.push_str(&format!("{key}={value} over Phantom\n"))
                }
                _ => out.push_str(&format!("{line}\n")),
            }
            if line.trim() == "[Desktop Entry]" {
                let (launcher, file) = (self.launcher.display(), from.file_name().unwrap_or_default().display());
                // Without phantom-run the entry is not shown, rather than a program that is not kept in.
                out.push_str(&format!("TryExec={launcher}\n{FROM}={file}\n"));
            }
        }
        if commands == 0 {
            bail!("{} starts no program of its own", from.display());
        }
        Ok((out, is_browser))
    }

    /// A command of ours for one of the program's, and whether that is a browser.
    fn command(&self, command: &str) -> Result<(String, bool)> {
        let mut ours = format!("{} --quiet ", quoted(self.launcher)?);
        if let Some(identity) = self.identity {
            ours.push_str(&format!("--identity {identity} "));
        }
        let browser = words(command).find_map(|(word, end)| {
            let program = word.trim_matches('"').rsplit('/').next().unwrap_or(word);
            BROWSERS.iter().find(|(name, _)| program.starts_with(name)).map(|(_, option)| (end, option))
        });
        let Some((end, option)) = browser else { return Ok((format!("{ours}-- {command}"), false)) };
        let option = if let Some(name) = option.strip_suffix('=') {
            quoted(Path::new(&format!("{name}={}", self.profile.display())))?
        } else {
            format!("{option}{}", quoted(self.profile)?)
        };
        Ok((format!("{ours}-- {} {option}{}", &command[..end], &command[end..]), true))
    }
}

/// Words of a command, quoted ones with their quotes, and where each ends; up to the first argument that is a place-holder.
fn words(command: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += command[at..].len() - command[at..].trim_start().len();
        let rest = &command[at..];
        let inner = rest.strip_prefix('"').and_then(|inner| inner.find('"')).map(|end| end + 2);
        let length = inner.unwrap_or_else(|| rest.find(char::is_whitespace).unwrap_or(rest.len()));
        let word = rest.get(..length).filter(|word| !word.is_empty() && !word.starts_with('%'))?;
        at += length;
        Some((word, at))
    })
}

/// A path as a word of an entry's command.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '`', '$', '\\', '\n']));
    let text = text.with_context(|| format!("{} cannot stand in a desktop entry", path.display()))?;
    let text = text.replace('%', "%%");
    Ok(if text.contains(|letter: char| !letter.is_alphanumeric() && !"/._-=%+".contains(letter)) {
        format!("\"{text}\"")
    } else {
        text
    })
}

#[cfg(test)]
mod tests;
