//! An identity visits one of its own entries, as any client of it would: over a path of its own that leads out, with a key that nobody
//! knows. What it says must come in along the entry path, and its own answer back: no node on the way can make that up. Or it looks its
//! record up, as any client would.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use phantom_proto::crypto::SigningKey;
use phantom_proto::node::{Heard, PathNo};
use phantom_proto::session::Session;
use tokio::time::{Instant, timeout};

use super::{Identity, lock, open, opening, pump, records};
use crate::driver::{Handle, LookUp, Visit};
use crate::far::ConnectError;

/// On this port no program listens: the answer is "refused", and nobody but the two ends sees it.
const PORT: u16 = 0;

/// How long the path's next tunnel may take.
const TUNNEL_LIMIT: Duration = Duration::from_secs(20);

/// How long the answer may take: what a client allows an entry node while it knows another, and the time of a look-up of its record.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

/// A session's first bytes that tell it from all others: HELLO with its random id.
const TELLING: usize = 22;

/// Own visits of one identity that are under way.
#[derive(Default)]
pub(super) struct Visits(Mutex<Vec<UnderWay>>);

struct UnderWay {
    path: PathNo,
    first: Vec<u8>,
    /// The path that it came in along.
    came: Option<PathNo>,
}

impl Visits {
    /// A connection arrives; if it is a visit, that is noted.
    pub(super) fn arrived(&self, along: PathNo, first: &[u8]) {
        let Some(first) = first.get(..TELLING) else { return };
        lock(&self.0).iter_mut().filter(|visit| visit.first == first).for_each(|visit| visit.came = Some(along));
    }

    fn begin(&self, path: PathNo, first: &[u8]) {
        lock(&self.0).push(UnderWay { path, first: first.get(..TELLING).unwrap_or_default().to_vec(), came: None });
    }

    /// The path along which the visit over `path` came in.
    fn end(&self, path: PathNo) -> Option<PathNo> {
        let mut all = lock(&self.0);
        let index = all.iter().position(|visit| visit.path == path)?;
        all.swap_remove(index).came
    }
}

/// Goes the way, and tells the node how it ended, unless it could not begin.
// protocol: K12, K14
pub(super) async fn visit(handle: Handle, identity: Option<Arc<Identity>>, visit: Visit) {
    let Some(identity) = identity else { return };
    let Some(mut tunnel) = handle.tunnel_of(visit.path, TUNNEL_LIMIT).await else { return };
    let stranger = SigningKey::generate(&mut crate::random());
    let own = identity.key.verifying_key();
    let Ok(mut session) = Session::connect(&mut crate::random(), &stranger, &own, PORT, PORT) else { return };
    let (opening, rest) = opening(&mut session, visit.node, visit.handle);
    // Before it leaves: over a short way it comes in at once.
    identity.visits.begin(visit.path, &opening.first);
    let answer = async {
        open(&mut tunnel, opening, &rest).await.map_err(|_| ConnectError::Unreachable)?;
        let over = pump::Over { handle: handle.clone(), path: visit.path };
        pump::connect(session, tunnel, Some(over), None).await
    };
    let answer = timeout(ANSWER_LIMIT, answer).await;
    let came = identity.visits.end(visit.path);
    let reached = came == Some(visit.entry) && matches!(answer, Ok(Err(ConnectError::Refused)));
    handle.visited(visit.path, reached).await;
}

/// Looks a record up over a path that asks for nothing else, and tells the node what was found, if there was an answer.
// protocol: K27
pub(super) async fn look_up(handle: Handle, look: LookUp) {
    let Some(tunnel) = handle.tunnel_of(look.path, TUNNEL_LIMIT).await else { return };
    match records::ask(tunnel, look.identity, Instant::now() + ANSWER_LIMIT).await {
        Some(Heard::Record(record)) => handle.looked_up(look.path, Some(record.serial)).await,
        Some(Heard::Nothing | Heard::Unsure) => handle.looked_up(look.path, None).await,
        Some(Heard::Noise) => handle.noise(look.path).await,
        // What broke off, or came too late, says nothing of the record.
        Some(Heard::Refused | Heard::Silence) | None => {}
    }
}
