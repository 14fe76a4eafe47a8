//! What people see of a wait: on a terminal, after a moment, what is waited for and for how long.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

/// What takes less is no wait.
const NO_WAIT: Duration = Duration::from_millis(400);

/// How often the seconds are drawn again.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Runs `work`; on standard error, since standard output is for the answer.
pub(super) async fn shown<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !io::stderr().is_terminal() {
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
