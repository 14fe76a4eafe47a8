//! `phantom-run`: starts a program so that its only network is Phantom.

mod control;
mod isolate;
mod mounts;
mod options;
mod preload;
mod privileges;
mod process;
mod sys;

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::Result;
use clap::Parser;

use control::Session;
use options::{Isolation, Options};
use process::FAILED;

/// Exit statuses that shells use for the same.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

fn main() {
    let options = Options::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        exit(if error.use_stderr() { FAILED } else { 0 });
    });
    if let Err(error) = launch(&options) {
        complain(&error);
        exit(FAILED);
    }
}

fn complain(error: &anyhow::Error) {
    eprintln!("phantom-run: {error:#}");
}

fn launch(options: &Options) -> Result<()> {
    let socket = options.socket.clone().unwrap_or_else(phantom_ipc::default_socket);
    let way = match options.isolation {
        Isolation::Preload => Way::Preload(preload::library()?),
        Isolation::Emulate => Way::Emulate(preload::library()?),
        Isolation::Auto | Isolation::Namespace => Way::Namespace,
    };
    let identity = control::identity(options.identity.as_deref().filter(|name| !name.is_empty()))?;
    let session = match way {
        Way::Emulate(_) => control::hold(&socket, &identity)?,
        _ => control::enter(&socket, &identity)?,
    };
    if !options.quiet {
        let how = match way {
            Way::Namespace => "in a namespace of its own",
            Way::Preload(_) => "by preloading, which is best effort: static programs get past it",
            Way::Emulate(_) => {
                "by emulated sockets, which are best effort: static programs get past them; there is no UDP, and not all \
                 of TCP's details are the kernel's"
            }
        };
        eprintln!("phantom-run: {}, {how}", session.who);
    }
    let Session { connection, spaces, .. } = session;
    process::run(connection, || {
        let mut command = Command::new(&options.command[0]);
        command.args(&options.command[1..]);
        let ready = match &way {
            Way::Namespace => match &spaces {
                Some(spaces) => isolate::enter(spaces, &socket, &|step| explain(options, step)),
                None => Err(anyhow::anyhow!("the daemon gave no namespace")),
            },
            Way::Preload(library) | Way::Emulate(library) => {
                let emulate = matches!(way, Way::Emulate(_));
                preload::prepare(&mut command, library, &socket, &identity, emulate);
                Ok(())
            }
        };
        match ready {
            Ok(()) => execute(command, &options.command[0]),
            Err(error) => {
                complain(&error);
                FAILED
            }
        }
    })?;
    Ok(())
}

/// How the program is kept from other networks.
enum Way {
    Namespace,
    Preload(PathBuf),
    Emulate(PathBuf),
}

fn explain(options: &Options, step: &str) {
    if options.explain {
        eprintln!("phantom-run: {step}");
    }
}

/// Becomes the program; returns only if that fails.
fn execute(mut command: Command, name: &OsStr) -> i32 {
    let error = command.exec();
    let name = Path::new(name).display();
    if error.kind() == ErrorKind::NotFound {
        eprintln!("phantom-run: {name}: not found");
        NOT_FOUND
    } else {
        eprintln!("phantom-run: {name}: {error}");
        NOT_EXECUTABLE
    }
}
