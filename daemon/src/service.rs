//! The life of the daemon process: start, serve the local socket, tell the operator how it is, end on a signal or on request.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use phantom_ipc::admin::{Severity, Status};
use tokio::time::{Instant, sleep, timeout};

use crate::control::{self, Control, Daemon, Listener, Served};
use crate::health;
use crate::os::{self, Signals};
use crate::startup::Setup;

/// How long the node gets to say good-bye. With [`ABORT_TIME`] it stays below the two seconds that are promised.
pub const STOP_TIME: Duration = Duration::from_millis(1400);

/// How long tasks get that do not end by themselves.
pub const ABORT_TIME: Duration = Duration::from_millis(300);

/// How often the daemon looks whether programs can be served.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// And while programs can be served: each look asks every part of the daemon.
const LOOK_EVERY_WHEN_READY: Duration = Duration::from_secs(5);

/// The same while it starts, when people look on.
const LOOK_EVERY_AT_START: Duration = Duration::from_millis(200);

/// How long they may not be before the log says why; each time that it says so it waits four times longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest of these.
const MOST_PATIENCE: Duration = Duration::from_secs(3600);

/// Target of warnings in the log: how it is around the daemon is told apart from what the daemon itself cannot do.
const WARNINGS: &str = "phantom_daemon::health";

#[cfg(unix)]
pub use crate::handover::Left;

/// On Windows nothing is left.
#[cfg(windows)]
#[derive(Debug)]
pub enum Left {}

/// What comes after the daemon.
pub enum After {
    /// Nothing.
    Nothing,
    /// The next process, in its place.
    #[cfg(unix)]
    Next(Box<crate::handover::Handover>, crate::handover::Asked),
    /// The one that the service manager starts.
    #[cfg(unix)]
    OfManager(Box<crate::handover::Handover>),
}

/// Runs a prepared node until a signal or a request to stop, going on with what the process before has left. `start` makes the node itself.
///
/// # Errors
/// When the local socket cannot be offered or the node does not start.
pub async fn run<F, Started>(setup: Setup, left: Option<Left>, start: F) -> anyhow::Result<After>
where
    F: FnOnce(Arc<Setup>) -> Started,
    Started: Future<Output = anyhow::Result<Arc<dyn Daemon>>>,
{
    os::raise_descriptor_limit();
    #[cfg(unix)]
    os::outlive_file_limit();
    // Before anything else runs: a signal during start must end it too.
    let mut signals = Signals::new()?;
    let listener = Listener::bind(&setup.config.socket, &setup.listening)?;
    let setup = Arc::new(setup);
    tracing::info!(
        node = %setup.node.node_id(),
        listen = %setup.contact.addr,
        socket = %setup.config.socket.display(),
        "starting"
    );
    let daemon = tokio::select! {
        started = start(Arc::clone(&setup)) => started?,
        // What was left is gone over to somebody before the daemon ends, who may be the next process again.
        name = signals.next(), if left.is_none() => {
            tracing::info!("stopped by {name} while starting");
            return Ok(After::Nothing);
        }
    };
    let forgotten = setup.listening.forget();
    #[cfg(unix)]
    control::bury_unknown(forgotten.local.into_iter().map(|(socket, _)| socket.into()));
    #[cfg(windows)]
    drop(forgotten);
    let control = Control::new(Arc::clone(&daemon), Arc::clone(&setup.identities), Arc::clone(&setup.names));
    #[cfg(unix)]
    if let Some(left) = left {
        daemon.expect_sessions();
        control.go_on(left.programs).await;
        daemon.go_on_with_sessions(left.sessions).await;
    }
    let mut is_managed = false;
    let served = {
        let (serve, tell) = (control::serve(listener, Arc::clone(&control)), tell(&*daemon, &setup));
        tokio::pin!(serve, tell);
        loop {
            tokio::select! {
                served = &mut serve => break served,
                name = signals.next() => {
                    if is_managed || !starts_anew(name).await {
                        tracing::info!("stopped by {name}");
                        break Served::Stops;
                    }
                    is_managed = true;
                    control.restart();
                }
                never = &mut tell => match never {},
            }
        }
    };
    #[cfg(unix)]
    if served == Served::Restarts {
        tracing::info!("starts anew{}", if is_managed { " by the service manager" } else { "" });
        let left = tokio::select! {
            left = leave(&setup, &*daemon, &control) => Some(left),
            name = signals.next() => {
                tracing::info!("stopped by {name} while starting anew");
                None
            }
        };
        // Until the process becomes the next one, whoever ends it ends it.
        let asked = os::Asked::since_now()?;
        let stopped = signals.next().now_or_never().is_some();
        if let Some(left) = left.filter(|_| !stopped) {
            let left = Box::new(left);
            return Ok(if is_managed {
                After::OfManager(left)
            } else {
                After::Next(left, crate::handover::Asked(asked))
            });
        }
    }
    let ended = timeout(STOP_TIME, async {
        control.close().await;
        daemon.stop().await;
    });
    if ended.await.is_err() {
        tracing::warn!("some connections did not close in time and were cut");
    }
    Ok(After::Nothing)
}

/// Whether whoever sent that signal has the daemon ended only to start it anew.
#[cfg(unix)]
async fn starts_anew(signal: &str) -> bool {
    signal == "SIGTERM" && crate::service_manager::starts_anew().await
}

/// See the other.
#[cfg(windows)]
async fn starts_anew(_: &str) -> bool {
    false
}

/// Ends the node, and what its programs have not.
#[cfg(unix)]
async fn leave(setup: &Setup, daemon: &dyn Daemon, control: &Control) -> crate::handover::Handover {
    // First the sessions, for the way between them and their programs leads through the gates.
    let sessions = daemon.leave_sessions().await;
    let mut programs = control.leave().await;
    // What could not be left.
    let ended = timeout(STOP_TIME, async {
        control.close().await;
        daemon.stop().await;
    });
    if ended.await.is_err() {
        tracing::warn!("some connections did not close in time and were cut");
    }
    control.leave_late(&mut programs);
    crate::handover::Handover { listening: setup.listening.leave(), left: Left { programs, sessions } }
}

/// Tells the operator when programs can be served, and what they wait for as long as they cannot be: nobody should have to ask.
async fn tell(daemon: &dyn Daemon, setup: &Setup) -> Infallible {
    let (mut was_ready, mut patience, mut since) = (false, PATIENCE, Instant::now());
    let mut told = Told::default();
    loop {
        let status = daemon.status().await;
        told.tell(&status);
        if status.ready {
            if !was_ready {
                let (socket, port) = (setup.config.socket.display(), setup.contact.addr.port());
                tracing::info!(
                    "ready: `phantom-run --daemon {socket} PROGRAM` starts programs; other nodes use port {port}"
                );
            }
            (was_ready, patience, since) = (true, PATIENCE, Instant::now());
        } else if since.elapsed() >= patience {
            tracing::warn!("programs cannot be served: waiting for {}", status.waiting_for);
            (patience, since) = (MOST_PATIENCE.min(patience * 4), Instant::now());
        }
        let starting = status.start.iter().any(|step| !step.done) && told.since.elapsed() < PATIENCE;
        sleep(match status.ready {
            _ if starting => LOOK_EVERY_AT_START,
            true => LOOK_EVERY_WHEN_READY,
            false => LOOK_EVERY,
        })
        .await;
    }
}

/// What the log has said of steps of the start and of warnings.
struct Told {
    since: Instant,
    steps: usize,
    warnings: BTreeSet<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self { since: Instant::now(), steps: 0, warnings: BTreeSet::new() }
    }
}

impl Told {
    /// A line for each step that is done, each warning that is to be seen now, and each that is gone. Titles only: what a warning
    /// says beside may name a node.
    fn tell(&mut self, status: &Status) {
        let done: Vec<_> = status.start.iter().take_while(|step| step.done).collect();
        for step in done.iter().skip(self.steps) {
            tracing::info!(
                "start: {} after {}.{} s",
                step.what,
                step.milliseconds / 1000,
                step.milliseconds % 1000 / 100
            );
        }
        self.steps = self.steps.max(done.len());
        let roots = status.warnings.iter().filter(|warning| warning.caused_by.is_none());
        let now: BTreeSet<String> = roots.map(|warning| warning.code.clone()).collect();
        for about in now.difference(&self.warnings).filter_map(|code| health::about(code)) {
            let (code, title, advice) = (about.code, about.title, about.help());
            match about.severity {
                Severity::Info => tracing::info!(target: WARNINGS, "{title} ({code}): {advice}"),
                Severity::Warning => tracing::warn!(target: WARNINGS, "{title} ({code}): {advice}"),
                Severity::Error => tracing::error!(target: WARNINGS, "{title} ({code}): {advice}"),
            }
        }
        for code in self.warnings.difference(&now) {
            // An effect whose cause shows now is not over.
            if status.warnings.iter().all(|warning| warning.code != *code) {
                tracing::info!(target: WARNINGS, "over: {code}");
            }
        }
        self.warnings = now;
    }
}

/// Runs `work` on a runtime of many threads and ends the runtime within [`ABORT_TIME`].
///
/// # Errors
/// What `work` says, or that the system gives no threads.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(ABORT_TIME);
    result
}

/// Says an error with its causes on standard error.
pub fn complain(program: &str, error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{program}: {}", explain(error));
    ExitCode::from(code)
}

/// Whether somebody who read our output has seen enough (`phantom peer list | head`).
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// An error and those of its causes that it does not mention itself.
fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut text, cause| {
        if !text.contains(&cause) {
            let join = if text.is_empty() { "" } else { ": " };
            text.push_str(join);
            text.push_str(&cause);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let cause = io::Error::other("disk on fire");
        let error = anyhow::Error::new(cause).context("cannot write: disk on fire\n  get water");
        assert_eq!(explain(&error), "cannot write: disk on fire\n  get water");
        let error = Err::<(), _>(io::Error::other("disk on fire")).context("cannot write").unwrap_err();
        assert_eq!(explain(&error), "cannot write: disk on fire");
    }
}
