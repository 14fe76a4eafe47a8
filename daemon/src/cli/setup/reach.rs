//! Whether others reach the node that was just set up: it runs for a moment, joins, and its own doctor is asked.
//!
//! ```text
//!  phantom setup ── starts ──> phantomd, whose socket is in a folder that no program knows
//!                ── phantom doctor, again and again ──> `peers`, then `port`: others have tried to open a link to it
//!                ── TERM ──> phantomd
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use phantom_ipc::admin::{Check, CheckState, Doctor};
use rustix::process::{Pid, Signal, Uid, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::super::room::Room;
use super::super::{print, wait};
use super::Whose;
use crate::os::Owner;
use crate::say::plain;

/// How often the doctor is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long nodes that it knows may take to answer: twice what the warning `no-peers` waits.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

/// How long they may take to try: the first that is connected is asked to, at once.
const TRIED_WITHIN: Duration = Duration::from_secs(120);

/// How long it may take to end, of the two seconds that it promises, on a loaded computer.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What was found, in words; when somebody would not wait for it, what shells say of whom such a signal has ended.
pub(super) async fn tried(whose: Whose, phantomd: &Path, phantom: &Path) -> Result<Result<String, u8>> {
    let mut ends = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut ends;
    let mut trial = Trial::start(whose, phantomd, phantom)?;
    print("trying         whether others reach this node: for two minutes at most, Ctrl-C leaves it at that\n")?;
    let found = tokio::select! {
        found = wait::shown("waiting for other nodes", trial.found()) => Ok(found),
        _ = interrupt.recv() => Err(130),
        _ = terminate.recv() => Err(143),
        _ = hangup.recv() => Err(129),
    };
    trial.end().await;
    match found {
        Ok(found) => found.map(Ok),
        Err(status) => Ok(Err(status)),
    }
}

/// What was looked at, and what helps.
fn in_words(check: &Check) -> String {
    let advice = check.advice.as_ref().map_or_else(String::new, |advice| format!("\n  {advice}"));
    format!("{}{advice}", check.text)
}

/// A daemon that serves nobody.
struct Trial {
    daemon: Child,
    phantom: PathBuf,
    whose: Whose,
    room: Room,
}

impl Trial {
    fn start(whose: Whose, phantomd: &Path, phantom: &Path) -> Result<Self> {
        let room = Room::make("setup")?;
        if let Whose::System(Owner { uid, .. }) = whose {
            room.let_in(Uid::from_raw(uid), &[])?;
        }
        let log = File::create(room.at("log")).context("making its log")?;
        let mut command = whose.daemon(phantomd, &room.at("daemon.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut command = Command::from(command);
        // Ctrl-C is for us, who end it then.
        command.process_group(0).kill_on_drop(true);
        let daemon = command.spawn().with_context(|| format!("starting {}", phantomd.display()))?;
        Ok(Self { daemon, phantom: phantom.to_owned(), whose, room })
    }

    async fn found(&mut self) -> Result<String> {
        let (begun, mut has_joined) = (Instant::now(), false);
        loop {
            sleep(ASK_EVERY).await;
            if let Some(status) = self.daemon.try_wait()? {
                return Ok(format!("not known: phantomd ended by itself ({status})\n  {}", self.last_words()));
            }
            let doctor = self.doctor().await;
            let check = |name: &str| doctor.as_ref()?.checks.iter().find(|check| check.name == name);
            let is_good = |name: &str| check(name).is_some_and(|check| check.state == CheckState::Good);
            has_joined |= is_good("peers");
            let name = if has_joined { "port" } else { "peers" };
            let is_late = begun.elapsed() >= if has_joined { TRIED_WITHIN } else { JOINED_WITHIN };
            match check(name) {
                Some(port) if is_good("port") => return Ok(in_words(port)),
                Some(check) if is_late => {
                    let later = "once it runs, `phantom doctor` says it, under `port`";
                    return Ok(format!("not known yet: {}\n  {later}", in_words(check)));
                }
                None if is_late => {
                    return Ok("not known: phantomd says nothing; once it runs, ask `phantom doctor`".into());
                }
                _ => {}
            }
        }
    }

    /// What the daemon's doctor says, asked as the daemon's own user: nobody else's is believed at a socket like this.
    async fn doctor(&self) -> Option<Doctor> {
        let mut command = Blocking::new(&self.phantom);
        command.arg("--daemon").arg(self.room.at("daemon.sock")).args(["--json", "doctor"]);
        self.whose.becomes(&mut command);
        let mut command = Command::from(command);
        let said = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
        serde_json::from_slice(&said.stdout).ok()
    }

    /// Why it ended, as far as it said so.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.room.at("log")).unwrap_or_default();
        // What was wrong, with what helps, which stands on lines below.
        let last = log.rfind("phantomd: ").filter(|at| *at == 0 || log[..*at].ends_with('\n'));
        plain(last.map_or_else(|| log.lines().last().unwrap_or_default(), |at| log[at..].trim_end()))
    }

    async fn end(&mut self) {
        let pid = self.daemon.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        // It has not been waited for: the number is still its own.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        if timeout(ENDS_WITHIN, self.daemon.wait()).await.is_err() {
            let _ = self.daemon.kill().await;
        }
    }
}
