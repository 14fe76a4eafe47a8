//! What people see of a wait: on a terminal, after a moment, what is waited for and for how long; elsewhere one line, once it is long.

use std::borrow::Cow;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use phantom_ipc::admin::Request;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::client::{Client, ClientError};

/// What takes less is no wait.
const NO_WAIT: Duration = Duration::from_millis(400);

/// What a log or a pipe is told of: a daemon that runs answers sooner.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// How often the seconds are drawn again.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// How long a daemon may take that is started anew; between two looks for it.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The next daemon, after a conversation that ended so.
///
/// # Errors
/// The same, when it was for another reason, or no daemon comes.
pub(super) async fn next_daemon(socket: &Path, ended: ClientError) -> Result<Client, ClientError> {
    let ClientError::Silent(_) = ended else { return Err(ended) };
    let found = async {
        loop {
            // Also before the first: a daemon that has no room ends each conversation so.
            sleep(LOOK_EVERY).await;
            if let Ok(client) = Client::connect(socket).await {
                return client;
            }
        }
    };
    let found = timeout(BACK_WITHIN, found);
    shown("the daemon has ended; waiting for the next one", found).await.map_err(|_| ended)
}

/// Asks the daemon.
pub(super) async fn answer<T: DeserializeOwned>(client: &mut Client, request: &Request) -> Result<T, ClientError> {
    let what = on(client.place());
    shown(what, client.ask(request)).await
}

/// What is waited for: there may be several daemons.
pub(super) fn on(socket: &Path) -> String {
    format!("waiting for the daemon at {}", socket.display())
}

/// Runs `work`; on standard error, since standard output is for the answer.
pub(super) async fn shown<T>(what: impl Into<Cow<'static, str>>, work: impl Future<Output = T>) -> T {
    let (what, mut work) = (what.into(), pin!(work));
    if !io::stderr().is_terminal() {
        if let Ok(done) = timeout(LONG_WAIT, &mut work).await {
            return done;
        }
        eprintln!("phantom: {what}, for {} s by now", LONG_WAIT.as_secs());
        return work.await;
    }
    if let Ok(done) = timeout(NO_WAIT, &mut work).await {
        return done;
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    // The template is ours; a wrong one falls back to the default look.
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(DRAW_EVERY);
    let done = work.await;
    bar.finish_and_clear();
    done
}
