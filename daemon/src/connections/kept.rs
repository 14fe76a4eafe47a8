//! Sessions that outlive this process: what the next one needs to go on with them, and how it does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::record::ApRecord;
use phantom_proto::session::{Carried, Session};
use phantom_proto::wire::frame::Handle as EntryHandle;
use rand::RngExt;
use tokio::time::{Instant, timeout};

use super::pump;
use super::redial::{self, Redial};
use super::sessions::Share;
use super::{Connection, ConnectionEntry, Identity, Network, lock};
use crate::far::Parked;

/// Each session is told at once, and has nothing to wait for.
const LEAVING_TIME: Duration = Duration::from_secs(5);

/// What all sessions are told.
#[derive(Clone, Default)]
pub(super) enum Course {
    #[default]
    Goes,
    /// The daemon stops: they reset.
    Stops,
    /// The next process goes on with them; each leaves what it is here, and ends without a word to its other end.
    HandsOver(Estate),
}

/// Where all of them are left: as many as there are sessions.
pub(super) type Estate = Arc<Mutex<Vec<Kept>>>;

/// A connection of a program, as the next process goes on with it.
pub struct Kept {
    /// As the list shows it.
    pub line: Line,
    /// None: the session is over, and the program has not taken all that came before.
    pub session: Option<Carried>,
    /// A client's: its other end's entry node, that led on last, unless it looks for one.
    pub entry: Option<EntryHandle>,
    /// What comes behind the last byte for the program is a reset.
    pub is_reset: bool,
    /// The program's connection.
    pub parked: Parked,
}

/// A connection, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Own identity.
    pub identity: ApAddress,
    /// The other end.
    pub peer: ApAddress,
    /// Destination port.
    pub port: u16,
    /// Whether it came from there.
    pub incoming: bool,
    /// How often it went on another way.
    pub moves: u32,
    /// Bytes from the program, and to it.
    pub traffic: [u64; 2],
}

impl Line {
    fn of(one: &Connection) -> Self {
        let traffic = [one.traffic.sent(), one.traffic.received()];
        Self {
            identity: one.identity,
            peer: one.peer,
            port: one.port,
            incoming: one.incoming,
            moves: one.moves,
            traffic,
        }
    }

    fn connection(&self) -> Connection {
        let connection = Connection::new(self.identity, self.peer, self.port, self.incoming, None);
        connection.traffic.sent.store(self.traffic[0], Ordering::Relaxed);
        connection.traffic.received.store(self.traffic[1], Ordering::Relaxed);
        Connection { moves: self.moves, ..connection }
    }
}

impl ConnectionEntry {
    /// What the list says of it.
    pub(super) fn line(&self) -> Option<Line> {
        lock(&self.connections).list.get(&self.id).map(Line::of)
    }
}

impl Network {
    /// Has all sessions end without a word to their other ends, and gives what the next process goes on with. Those that cannot outlive
    /// this one are reset.
    pub async fn hand_over(&self) -> Vec<Kept> {
        let estate = Estate::default();
        self.course_tx.send_replace(Course::HandsOver(estate.clone()));
        // A task that does not come to an end loses its connection, and no other.
        let _ = timeout(LEAVING_TIME, self.course_tx.closed()).await;
        std::mem::take(&mut *lock(&estate))
    }

    /// Those of the process before are to come: [`Self::go_on`].
    pub fn expect(&self) {
        self.expects.store(true, Ordering::Relaxed);
    }

    /// Goes on with the connections that the process before has left, as far as their identities are in use; how many those are.
    pub fn go_on(self: &Arc<Self>, all: impl IntoIterator<Item = Kept>) -> usize {
        let (mut begins, mut count) = (BTreeMap::new(), 0);
        for kept in all {
            let Some(identity) = self.identity(kept.line.identity) else { continue };
            // What two identities do in one moment shows that they are one owner's.
            let wait = || redial::AGAIN.mul_f64(crate::random().random_range(0.0..1.0));
            let begin = *begins.entry(kept.line.identity).or_insert_with(|| Instant::now() + wait());
            self.go_on_with(kept, &identity, begin);
            count += 1;
        }
        self.expects.store(false, Ordering::Relaxed);
        count
    }

    // protocol: S51
    fn go_on_with(self: &Arc<Self>, kept: Kept, identity: &Arc<Identity>, begin: Instant) {
        let Kept { line, session, entry, is_reset, parked } = kept;
        let listed = self.remember(line.connection());
        let Some(session) = session.map(Session::of_carried) else {
            return pump::deliver_rest(parked, is_reset, listed);
        };
        // Whoever dialed is a client, also while it looks for another way, when no entry node is the present one.
        let redial = session
            .owner()
            .map(|owner| self.redial(identity, line.identity, owner, entry.unwrap_or_default()).not_before(begin));
        let (share, course_rx) = (Share::of(self.budget.clone()), self.course_tx.subscribe());
        let program = pump::Continued { entry: listed, redial, share, course_rx };
        pump::go_on(session, parked, program, identity, line.identity, self);
    }

    /// Nothing is known of the other end but its key, and the entry node that led on: the rest is looked up.
    fn redial(&self, identity: &Identity, from: ApAddress, key: VerifyingKey, entry: EntryHandle) -> Redial {
        let record = ApRecord { key, serial: 0, issued: 0, expires: 0, entries: Vec::new() };
        Redial::new(self.handle.clone(), &identity.records, from, record, entry)
    }
}
