//! The processes of a network: started in the background, watched, stopped.

#[cfg(unix)]
mod sys;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

pub(super) use here::Process;

/// How long a daemon gets between the request to end and its end by force: it promises two seconds; loaded machines get more.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Between two looks at a process that is not our child: the system sends no event for those.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How much of a log is shown.
const TAIL: u64 = 2000;

/// A program with its output appended to `log`, not started yet.
fn logging(program: &Path, arguments: &[&OsStr], log: &Path) -> io::Result<Command> {
    let output = File::options().append(true).create(true).open(log)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(command)
}

/// Stops all: asks each to end, then kills those that do not in time. Returns how many had to be killed.
pub(super) fn stop(processes: &[Process]) -> usize {
    processes.iter().for_each(Process::ask_to_end);
    let deadline = Instant::now() + STOP_TIME;
    wait_for_end(processes, deadline);
    let left: Vec<Process> = processes.iter().filter(|process| process.lives()).cloned().collect();
    left.iter().for_each(Process::kill);
    wait_for_end(&left, Instant::now() + STOP_TIME);
    left.len()
}

fn wait_for_end(processes: &[Process], deadline: Instant) {
    while processes.iter().any(|process| process.lives()) && Instant::now() < deadline {
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// The last lines of a log, for an error message.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if text.trim().is_empty() => "(its log is empty)".to_owned(),
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_or_empty_log_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tail(&dir.path().join("none")).contains("cannot be read"));
        fs::write(dir.path().join("empty"), "\n").unwrap();
        assert_eq!(tail(&dir.path().join("empty")), "(its log is empty)");
    }
}
