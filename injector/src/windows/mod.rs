//! The launcher of Windows: the program is started with phantom.dll in it, before any of its own code runs.
//!
//! ```text
//!  phantom-run ── loads phantom.dll into itself: from then on it, like every program that has the library, starts none without
//!      ├─ a job, in which it and all that is started are: they end with it
//!      ├─ a pipe to the daemon, held open: the session, and what is published
//!      └─ program, with the session's token in its environment
//! ```

mod options;
mod session;
mod sys;

use std::io;
use std::path::PathBuf;
use std::process::{Command, exit};
use std::{env, fmt, thread};

use anyhow::{Context, Result, bail};
use clap::Parser;
use phantom_ipc::hook::format_session;
use phantom_ipc::{ENV_IDENTITY, ENV_PUBLISH, ENV_SESSION, ENV_SOCKET};

use options::Options;
use session::Session;

/// Exit statuses that shells use for the same, and of phantom-run itself.
const FAILED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Environment: where phantom.dll is, if not beside phantom-run.
const ENV_LIBRARY: &str = "PHANTOM_LIBRARY";

/// See the crate.
pub(super) fn main() {
    let options = Options::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        exit(if error.use_stderr() { FAILED } else { 0 });
    });
    match launch(&options) {
        Ok(status) => exit(status),
        Err(error) => {
            say(format_args!("{error:#}"));
            exit(FAILED);
        }
    }
}

fn say(words: fmt::Arguments<'_>) {
    eprintln!("phantom-run: {words}");
}

fn launch(options: &Options) -> Result<i32> {
    let library = library()?;
    sys::load(&library).with_context(|| format!("{} cannot be loaded", library.display()))?;
    sys::contain().context("no job to keep the program in")?;
    let socket = options.socket.clone().unwrap_or_else(phantom_ipc::default_socket);
    let mut session = Session::open(&socket, options.identity()?)?;
    let notes = if options.quiet { None } else { Some(session.follow(&socket)?) };
    let published = session.publish(&options.publish()?)?;
    if !options.quiet {
        say(format_args!("{}; phantom.dll is in the program", session.who));
        published.iter().for_each(|sentence| say(format_args!("{sentence}")));
    }
    if let Some(notes) = notes {
        // Ends with the process.
        thread::spawn(move || notes.tell(|text| say(format_args!("{text}"))));
    }
    sys::leave_console_events_to_program()?;
    run(options, &socket.canonicalize().unwrap_or(socket), &session)
}

fn run(options: &Options, socket: &std::path::Path, session: &Session) -> Result<i32> {
    let (program, arguments) = options.command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env(ENV_SESSION, format_session(&session.token)).env(ENV_SOCKET, socket);
    command.env_remove(ENV_IDENTITY).env_remove(ENV_PUBLISH);
    let shown = program.display();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let (status, why) = refusal(&error);
            say(format_args!("{shown}: {why}"));
            return Ok(status);
        }
    };
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    Ok(status.code().unwrap_or(FAILED))
}

/// Why a program does not start, and what phantom-run ends with.
fn refusal(error: &io::Error) -> (i32, String) {
    /// Windows' own numbers, as the library passes them on.
    const DLL_INIT_FAILED: i32 = 1114;
    const MACHINE_TYPE_MISMATCH: i32 = 216;
    match error.raw_os_error() {
        Some(DLL_INIT_FAILED) => {
            (FAILED, "phantom.dll could not be brought into it, and it was not started without".to_owned())
        }
        Some(MACHINE_TYPE_MISMATCH) => (
            NOT_EXECUTABLE,
            "this is a 32-bit program, or one of another machine: only 64-bit ones (x64) can be carried".to_owned(),
        ),
        _ if error.kind() == io::ErrorKind::NotFound => (NOT_FOUND, "not found".to_owned()),
        _ => (NOT_EXECUTABLE, format!("cannot be executed: {error}")),
    }
}

/// Where the library is: beside this program, or where the environment says.
fn library() -> Result<PathBuf> {
    if let Some(said) = env::var_os(ENV_LIBRARY).filter(|said| !said.is_empty()) {
        return Ok(said.into());
    }
    let own = env::current_exe().context("where phantom-run lies")?;
    let library = own.with_file_name("phantom.dll");
    if !library.is_file() {
        bail!("{} is missing: it belongs beside phantom-run.exe", library.display());
    }
    Ok(library)
}
