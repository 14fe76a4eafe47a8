//! Becoming the program, and what is to be said about its file.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dispositions;

/// Exit statuses that shells use for the same.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How much of a file is looked at: linkers put the interpreter's name right after the headers.
const HEAD: u64 = 4096;

/// How every loader of musl's begins.
const MUSL: &[u8] = b"/ld-musl-";

/// How programs of a 32-bit machine begin.
const SMALL: &[u8] = b"\x7fELF\x01";

/// Where the kernel keeps capabilities of files.
const CAPABILITIES: &str = "security.capability";

/// Becomes the program; returns only if that fails.
pub(crate) fn execute(mut command: Command, name: &OsStr) -> i32 {
    dispositions::restore(&mut command);
    let error = command.exec();
    dispositions::ours();
    let path = Path::new(name);
    let name = path.display();
    // Without a slash it was looked for in PATH, and what lies here does not matter.
    let is_there = |is: fn(&Path) -> bool| is_path(path) && is(path);
    match error.kind() {
        ErrorKind::NotFound if is_there(Path::exists) => {
            eprintln!("phantom-run: {name}: the interpreter that it names is not found");
            NOT_FOUND
        }
        ErrorKind::NotFound => {
            eprintln!("phantom-run: {name}: not found");
            NOT_FOUND
        }
        _ if is_there(Path::is_dir) => {
            eprintln!("phantom-run: {name}: this is a folder, not a program");
            NOT_EXECUTABLE
        }
        _ if error.raw_os_error() == Some(libc::EPERM) && file_of(path.as_os_str()).is_some_and(|f| has_rights(&f)) => {
            eprintln!(
                "phantom-run: {name}: cannot be executed: its file asks for capabilities (getcap) that nobody may have \
                 here; run a copy of it (cp), which asks for none"
            );
            NOT_EXECUTABLE
        }
        _ => {
            let helps = match error.raw_os_error() {
                Some(libc::EACCES) => {
                    "; make it executable (`chmod +x`), or start it by its interpreter, as in `sh FILE`"
                }
                Some(libc::ENOEXEC) => {
                    "; it is no program of this machine, or a script without a first line such as `#!/bin/sh`"
                }
                _ => "",
            };
            eprintln!("phantom-run: {name}: cannot be executed: {error}{helps}");
            NOT_EXECUTABLE
        }
    }
}

/// What a person should know of the program's file; `is_hooked`: its network is the library; `is_filtered`: all calls but those of this
/// machine's own table are refused.
pub(crate) fn hints(name: &OsStr, is_hooked: bool, is_filtered: bool) -> Vec<String> {
    let Some(file) = file_of(name) else { return Vec::new() };
    let shown = file.display();
    let head = head(&file).unwrap_or_default();
    let mut hints = Vec::new();
    if is_filtered && head.starts_with(SMALL) {
        hints.push(format!(
            "warning: {shown} is a 32-bit program, whose system calls the filter of this way refuses: it will not run; \
             --isolation namespace has no such filter"
        ));
    }
    // The library is of the same libc as we are.
    if is_hooked && !cfg!(target_env = "musl") && has(&head, MUSL) {
        hints.push(format!(
            "warning: {shown} is linked with musl, whose loader cannot load libphantom.so: it will not start; --isolation \
             namespace and inject need no library"
        ));
    }
    if has_rights(&file) {
        // For whoever is not root the loader takes such a program for one that gains rights, and ignores LD_PRELOAD.
        let is_without = is_hooked && !rustix::process::getuid().is_root();
        let network =
            if is_without { ", and without libphantom.so, so that it has no network: run a copy (cp)" } else { "" };
        hints.push(format!("{shown} has capabilities of its own (getcap): it starts without them{network}"));
    }
    hints
}

/// The file that the kernel will load: a script's is its interpreter.
fn file_of(name: &OsStr) -> Option<PathBuf> {
    let file = found(name)?;
    let head = head(&file).ok()?;
    let Some(line) = head.strip_prefix(b"#!") else { return Some(file) };
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    Some(PathBuf::from(OsString::from_vec(words.next()?.to_vec())))
}

/// Whether it is looked for where it says: `./` has one component, and is no word.
fn is_path(name: &Path) -> bool {
    name.as_os_str().as_bytes().contains(&b'/')
}

/// As execvp(3) looks for it.
fn found(name: &OsStr) -> Option<PathBuf> {
    if is_path(Path::new(name)) {
        return Some(name.into());
    }
    let folders = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn head(file: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    // Never a pipe, which would be waited for.
    if file.is_file() {
        File::open(file)?.take(HEAD).read_to_end(&mut head)?;
    }
    Ok(head)
}

fn has(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|part| part == what)
}

fn has_rights(file: &Path) -> bool {
    rustix::fs::getxattr(file, CAPABILITIES, &mut [0_u8; 64]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_slash_is_no_word_to_look_for() {
        for path in ["./", "/", "../", "a/b", "./a"] {
            assert!(is_path(Path::new(path)), "{path}");
        }
        assert!(!is_path(Path::new("a")) && !is_path(Path::new(".")));
    }
}
