//! The launcher of Windows: the program is started with phantom.dll in it, before any of its own code runs.
//!
//! ```text
//!  phantom-run ── loads phantom.dll into itself: from then on it, like every program that has the library, starts none without
//!      ├─ a job, in which it and all that is started are: they end with it
//!      ├─ a pipe to the daemon, held open: the session, and what is published
//!      └─ program, with the session's token in its environment
//! ```

mod attend;
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
use session::{Line, Session, Wanted};

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
    let explain = |step: fmt::Arguments<'_>| {
        if options.explain {
            say(step);
        }
    };
    let library = library()?;
    sys::load(&library).with_context(|| format!("{} cannot be loaded", library.display()))?;
    explain(format_args!("{} is here: from now on no program is started without it", library.display()));
    sys::contain().context("no job to keep the program in")?;
    explain(format_args!("a job holds the program, and all that it starts: they end with phantom-run"));
    let socket = options.socket.clone().unwrap_or_else(phantom_ipc::default_socket);
    let line = Line::open(&socket)?;
    explain(format_args!("a daemon answers at {}", socket.display()));
    // The program may be in another folder.
    let socket = socket.canonicalize().unwrap_or(socket);
    let (identity, publish) = (options.identity()?, options.publish()?);
    let follows = !options.quiet || options.publish_or_fail;
    let wanted = Wanted { socket, token: sys::token()?, identity, publish, follows };
    let session = Session::begin(line, &wanted)?;
    if !options.quiet {
        let kind = wanted.identity.as_ref().map_or("fresh for this run".to_owned(), |name| format!("identity {name}"));
        say(format_args!("runs as {}, {kind}; phantom.dll is in the program", session.name));
        session.published.iter().for_each(|sentence| say(format_args!("{sentence}")));
    }
    sys::leave_console_events_to_program()?;
    run(options, wanted, session)
}

fn run(options: &Options, wanted: Wanted, session: Session) -> Result<i32> {
    let (program, arguments) = options.command.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).env(ENV_SESSION, format_session(&wanted.token)).env(ENV_SOCKET, &wanted.socket);
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
    if options.explain {
        say(format_args!("{shown} runs as process {}", child.id()));
    }
    let attended = options.clone();
    // Ends with this process.
    thread::spawn(move || {
        attend::attend(session, &wanted, &attended);
    });
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
