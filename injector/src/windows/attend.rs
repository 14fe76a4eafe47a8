//! Beside the program, as long as it runs: hears what the daemon says of it, and what becomes of the daemon.

use std::process::exit;
use std::thread;
use std::time::Duration;

use phantom_ipc::hook::{About, Note};

use super::options::{OnLoss, Options};
use super::session::{Line, Notes, Session, Wanted};
use super::{FAILED, say};

/// Between two looks for a daemon: short for a person, and an attempt costs little.
const PAUSE: Duration = Duration::from_millis(500);

/// Attends a session, and those with the daemons that come after. Never returns: it ends with the process, and where the options say
/// so, the process by it, and with that the program.
pub(super) fn attend(mut session: Session, wanted: &Wanted, options: &Options) -> ! {
    loop {
        if let Some(notes) = session.notes.take() {
            hear(notes, options);
        }
        session.over();
        lost(options.on_daemon_loss);
        session = next(wanted);
        resumed(&session, wanted);
    }
}

/// Hears notes in a thread of their own, which ends with them.
fn hear(notes: Notes, options: &Options) {
    let (quiet, publish_or_fail) = (options.quiet, options.publish_or_fail);
    thread::spawn(move || notes.tell(|note| heard(note, quiet, publish_or_fail)));
}

fn heard(note: &Note, quiet: bool, publish_or_fail: bool) {
    let text = &note.text;
    if note.about == About::Unreached && publish_or_fail {
        say(format_args!("{text}; the program is ended"));
        exit(FAILED);
    }
    if !quiet {
        say(format_args!("{text}"));
    }
}

fn lost(on_loss: OnLoss) {
    let what = match on_loss {
        OnLoss::Exit => "it is ended",
        OnLoss::Wait => {
            "what it has open ends, and what it opens anew goes by the next daemon, when one runs; to have it ended instead, use \
             --on-daemon-loss exit"
        }
    };
    say(format_args!("the daemon is gone, and with it the network of the program: {what}"));
    if on_loss == OnLoss::Exit {
        // The job is closed with this process.
        exit(FAILED);
    }
}

/// Waits for a daemon that gives the session what it needs.
fn next(wanted: &Wanted) -> Session {
    let mut is_said = false;
    loop {
        thread::sleep(PAUSE);
        let Ok(line) = Line::open(&wanted.socket) else { continue };
        match Session::begin(line, wanted) {
            Ok(session) => return session,
            // The end of one that is just going, maybe; the same each time, if not.
            Err(error) if !is_said => {
                say(format_args!("a daemon is there, and the program has no network: {error:#}"));
                is_said = true;
            }
            Err(_) => {}
        }
    }
}

fn resumed(session: &Session, wanted: &Wanted) {
    let fresh = ": a new address, since no daemon keeps those of fresh identities";
    let why = if wanted.identity.is_none() { fresh } else { "" };
    let name = &session.name;
    say(format_args!("a daemon is back: what the program opens from now on goes by it, as {name}{why}"));
}
