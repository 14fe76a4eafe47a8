//! Becoming the program.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::dispositions;

/// Exit statuses that shells use for the same.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Becomes the program; returns only if that fails.
pub(crate) fn execute(mut command: Command, name: &OsStr) -> i32 {
    dispositions::restore(&mut command);
    let error = command.exec();
    dispositions::ours();
    let path = Path::new(name);
    let name = path.display();
    // Without a slash it was looked for in PATH, and what lies here does not matter.
    let is_there = |is: fn(&Path) -> bool| path.components().nth(1).is_some() && is(path);
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
        _ => {
            eprintln!("phantom-run: {name}: cannot be executed: {error}");
            NOT_EXECUTABLE
        }
    }
}
