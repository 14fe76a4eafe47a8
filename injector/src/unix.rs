//! The launcher of Linux: a phantom namespace, or the nearest to it that the computer can make.

#[macro_use]
pub(crate) mod say;

pub(crate) mod activation;
pub(crate) mod anew;
pub(crate) mod apart;
pub(crate) mod awaited;
pub(crate) mod control;
pub(crate) mod crashes;
pub(crate) mod deputies;
pub(crate) mod devices;
pub(crate) mod dispositions;
pub(crate) mod doors;
pub(crate) mod enclose;
pub(crate) mod execute;
pub(crate) mod exposed;
pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod host;
pub(crate) mod isolate;
pub(crate) mod kernel_files;
pub(crate) mod likeness;
pub(crate) mod link;
pub(crate) mod local;
pub(crate) mod mountinfo;
pub(crate) mod mounts;
pub(crate) mod named_folders;
pub(crate) mod notes;
pub(crate) mod options;
pub(crate) mod own_names;
pub(crate) mod pathless_socket;
pub(crate) mod place;
pub(crate) mod preload;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod program_socket;
pub(crate) mod proxies;
pub(crate) mod publish;
pub(crate) mod reason;
pub(crate) mod resolver;
pub(crate) mod resume;
pub(crate) mod run_folder;
pub(crate) mod scratch;
pub(crate) mod seccomp;
pub(crate) mod secrets;
pub(crate) mod service;
pub(crate) mod services;
pub(crate) mod stdio;
pub(crate) mod supervise;
pub(crate) mod sys;
pub(crate) mod twins;
pub(crate) mod unix_diag;
pub(crate) mod ways;
pub(crate) mod working_folder;

use std::fs::{self, OpenOptions};
use std::process::exit;

use anyhow::{Context, Result, bail};
use clap::Parser;

use control::Contact;
use notes::Notes;
use options::Options;
use process::FAILED;
use ways::Launch;

/// See the crate.
pub(crate) fn main() {
    // Of a function of its own: the next one's frame is what there may be no room for.
    if let Some(why) = reason::of_stack() {
        eprintln!("phantom-run: {why}");
        exit(FAILED);
    }
    run();
}

fn run() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == anew::ARGUMENT) {
        exit(anew::main(arguments));
    }
    dispositions::ours();
    sys::look_at_limits();
    let options = Options::try_parse().unwrap_or_else(|error| {
        let status = if error.use_stderr() { FAILED } else { 0 };
        say::wrong(error);
        exit(status);
    });
    if let Err(error) = launch(&options) {
        eprintln!("phantom-run: {}", reason::explained(&error));
        exit(FAILED);
    }
}

/// What every step needs, and a folder that somebody made a root of may lack: each would fail at it in words of its own.
fn look_around() -> Result<()> {
    fs::metadata("/proc/self/ns/net").context("no /proc is to be seen here (`mount -t proc proc /proc` makes one)")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.context("no /dev/null can be opened here (`mknod -m 666 /dev/null c 1 3` makes one)")?;
    Ok(())
}

fn launch(options: &Options) -> Result<()> {
    look_around()?;
    let socket = options.socket.clone().unwrap_or_else(phantom_ipc::default_socket);
    let identity = control::identity(options.identity()?)?;
    let contact = Contact { socket, identity };
    let mut session = control::enter(&contact, ways::wanted(options.isolation), options.quiet)?;
    if session.spaces.is_none() && !options.allow_local.is_empty() {
        bail!(
            "--allow-local needs a phantom namespace, and none can be had here or is wanted: leave it out, or take another \
             --isolation than emulate"
        );
    }
    let ports = local::open(&mut session.line, &contact.identity, &options.allow_local)?;
    // Before anything is published, so that nothing about it is missed.
    let notes = Notes::wanted(options, &contact.socket, &session.identity)?;
    session.published = publish::open(&mut session.line, &contact.identity, &options.publish()?)?;
    process::run(&Launch::new(options, contact, &session, &ports)?, notes)
}
