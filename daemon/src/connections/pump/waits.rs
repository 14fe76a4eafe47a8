//! What a turn of a pump may wait for, each only if it is there.

use std::future::pending;
use std::io;

use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::super::kept::Course;
use super::super::redial::{self, Redial};
use super::super::sessions::{Listed, Resumption};
use super::super::unproven::Place;
use super::Searching;
use super::role::{Asked, Verdict};
use crate::relay::RelayError;

/// What has come from either side.
pub(super) enum Came<F, A> {
    Far(F),
    App(A),
}

/// The first of both that is there; when both are, this one.
pub(super) async fn either<F, A>(
    far_is_next: bool,
    far: impl Future<Output = F>,
    app: impl Future<Output = A>,
) -> Came<F, A> {
    tokio::pin!(far, app);
    if far_is_next {
        tokio::select! { biased; came = far => Came::Far(came), came = app => Came::App(came) }
    } else {
        tokio::select! { biased; came = app => Came::App(came), came = far => Came::Far(came) }
    }
}

pub(super) async fn when<T>(wanted: bool, what: impl Future<Output = T>) -> T {
    if wanted { what.await } else { pending().await }
}

/// Some of these bytes; without any, the end of the stream.
pub(super) async fn write(write: Option<&mut WriteHalf<DuplexStream>>, bytes: &[u8]) -> io::Result<usize> {
    match write {
        Some(write) if bytes.is_empty() => write.shutdown().await.map(|()| 0),
        Some(write) => write.write(bytes).await,
        None => pending().await,
    }
}

pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

pub(super) async fn until_known(verdict: Option<&mut Verdict>) -> Result<bool, RelayError> {
    match verdict {
        Some(verdict) => verdict.await,
        None => pending().await,
    }
}

pub(super) async fn search(searching: Option<&mut Searching>) -> (Box<Redial>, Option<redial::Found>) {
    match searching {
        Some(searching) => searching.await,
        None => pending().await,
    }
}

/// A client comes over another tunnel. `None`: none will.
pub(super) async fn until_resumed(listed: Option<&mut Listed>) -> Option<Resumption> {
    match listed {
        Some(listed) => listed.resumption().await,
        None => pending().await,
    }
}

/// Nobody waits for the answer any more. Once it is there, a program that goes away resets the session.
pub(super) async fn until_given_up(asked: Option<&mut Asked>) {
    match asked {
        Some(answer_tx) => answer_tx.closed().await,
        None => pending().await,
    }
}

/// Too many sessions wait for their clients, and this one has waited longest.
// protocol: S43
pub(super) async fn until_evicted(waiting: Option<&mut (Place, oneshot::Receiver<()>)>) {
    match waiting {
        // Only with its place, which is held beside it, the other end goes without a word.
        Some((_, evicted_rx)) => drop(evicted_rx.await),
        None => pending().await,
    }
}

/// The daemon stops, or hands over.
pub(super) async fn until_stopped(course_rx: Option<&mut watch::Receiver<Course>>) -> Course {
    if let Some(course_rx) = course_rx
        && let Ok(course) = course_rx.wait_for(|course| !matches!(course, Course::Goes)).await
    {
        return course.clone();
    }
    pending().await
}
