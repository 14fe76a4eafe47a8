//! `phantom-run`: starts a program so that its only network is Phantom.

#[macro_use]
mod say;

mod activation;
mod apart;
mod control;
mod deputies;
mod dispositions;
mod doors;
mod enclose;
mod execute;
mod exposed;
mod filter;
mod groups;
mod host;
mod isolate;
mod kernel_files;
mod likeness;
mod link;
mod local;
mod mountinfo;
mod mounts;
mod notes;
mod options;
mod own_names;
mod pathless_socket;
mod place;
mod preload;
mod privileges;
mod process;
mod program_socket;
mod proxies;
mod publish;
mod reason;
mod resolver;
mod resume;
mod run_folder;
mod scratch;
mod seccomp;
mod service;
mod services;
mod stdio;
mod supervise;
mod sys;
mod twins;
mod ways;

use std::process::exit;

use anyhow::{Result, bail};
use clap::Parser;

use control::Contact;
use notes::Notes;
use options::Options;
use process::FAILED;
use ways::Launch;

fn main() {
    dispositions::ours();
    let options = Options::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        exit(if error.use_stderr() { FAILED } else { 0 });
    });
    if let Err(error) = launch(&options) {
        eprintln!("phantom-run: {}", reason::explained(&error));
        exit(FAILED);
    }
}

fn launch(options: &Options) -> Result<()> {
    let socket = options.socket.clone().unwrap_or_else(phantom_ipc::default_socket);
    let identity = control::identity(options.identity()?)?;
    let contact = Contact { socket, identity };
    let mut session = control::enter(&contact, ways::wanted(options.isolation))?;
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
    process::run(&Launch::new(options, contact, &session, &ports), notes)
}
