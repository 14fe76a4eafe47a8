//! Names of the ordinary DNS whose address is an AP address: asked over Phantom, of a resolver that has an AP address too.
//!
//! ```text
//!  gate, hook ── resolve(name) ── special name? ── cache ── DNS over TCP (RFC 7766) ── network ── the resolver
//! ```
//! One [`Resolver`] belongs to one identity and asks from that identity's own exit path: neither answers nor questions
//! join two identities. One connection carries one question, so that what it costs ends with it.

mod cache;
mod message;
mod public;
mod this_computer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::far::{ConnectError, Found, Stream, Unanswered};
use cache::{Cache, Look, Outcome};
use message::Heard;
pub use this_computer::ThisComputer;

/// From the question to the end of its answer; a fresh identity may build its first path within. The hook waits for 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// Longest answer that is read, in bytes: addresses of one name and its aliases are far below.
const MAX_ANSWER: u16 = 8_192;

/// The way to the resolver, for one identity.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection to it.
    async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError>;
}

/// See the module.
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    dial: Box<dyn Dial>,
    this_computer: ThisComputer,
    cache: Mutex<Cache>,
}

impl Resolver {
    /// Asks over `dial`, but never for names that are made of `this_computer`'s; nothing is known yet.
    pub fn new(dial: impl Dial, this_computer: ThisComputer) -> Self {
        Self { shared: Arc::new(Shared { dial: Box::new(dial), this_computer, cache: Mutex::default() }) }
    }

    /// The AP address of a name, if it has one. Names that are not of the public DNS have none, and nobody is asked.
    ///
    /// # Errors
    /// When the resolver does not answer in time, or not what was asked.
    pub async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        let Some(name) = public::public(name, &self.shared.this_computer) else { return Ok(None) };
        let looked = self.shared.cache().look(&name, Instant::now());
        let hear = match looked {
            Look::Known(found) => return Ok(found),
            Look::Full => return Err(Unanswered),
            Look::Asked(hear) => hear,
            Look::Ask(tell, hear) => {
                // A task of its own: the program may give up and come back for the answer.
                tokio::spawn(ask(Arc::clone(&self.shared), name.clone(), tell));
                hear
            }
        };
        wait(hear).await
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn converse(&self, name: &Name) -> Result<Heard, Unanswered> {
        let id = rand::random();
        let question = message::question(id, name)?;
        let length = u16::try_from(question.len()).map_err(|_| Unanswered)?;
        let mut stream = self.dial.dial().await.map_err(|_| Unanswered)?;
        let broken = |_| Unanswered;
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let length = stream.read_u16().await.map_err(broken)?;
        if length > MAX_ANSWER {
            return Err(Unanswered);
        }
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.map_err(broken)?;
        // The answer is there: an end that does not go through is the resolver's loss.
        let _ = stream.shutdown().await;
        message::read(&answer, id, name)
    }
}

async fn wait(mut hear: watch::Receiver<Option<Outcome>>) -> Outcome {
    hear.wait_for(Option::is_some).await.map_err(|_| Unanswered)?.unwrap_or(Err(Unanswered))
}

async fn ask(shared: Arc<Shared>, name: Name, tell: watch::Sender<Option<Outcome>>) {
    let heard = timeout(PATIENCE, shared.converse(&name)).await.unwrap_or(Err(Unanswered));
    if heard.is_err() {
        tracing::debug!("the resolver gave no answer");
    }
    let outcome = shared.cache().put(&name, heard, Instant::now());
    tell.send_replace(Some(outcome));
}

#[cfg(test)]
mod tests;
