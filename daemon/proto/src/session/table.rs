//! A server's sessions, as it finds them again: by the ids of attempts that their clients may make next. One table for each identity.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::gone::Tombstone;
use super::resume::proves;
use super::seal::Secret;
use crate::wire::session::AttemptId;

/// Attempts that a client may make without one of them reaching the server.
// protocol: S33
pub const AHEAD: u32 = 64;

/// How long a client may not have heard of an end.
// protocol: S39
const TOMBSTONE_LIFE: Duration = Duration::from_secs(120);

/// Ends that are remembered: each costs some 10 KB for its ids. Whoever ends more sessions within the time loses the oldest.
const TOMBSTONES: usize = 1024;

/// Signatures at once, and then one in so much time: who knows an address must not have its owner sign all day.
// protocol: S38
const GONE_AT_ONCE: u32 = 4;
const GONE_EVERY: Duration = Duration::from_secs(3);

/// How long a session that was said to be gone may not come about: longer than any server waits for a program's room and then for a proof.
// protocol: S44
const DENIED_LIFE: Duration = Duration::from_secs(300);

/// Names a session in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionNo(u64);

/// Whom an id belongs to.
#[derive(Debug)]
pub enum Found<T> {
    /// This session goes on, with this attempt, if its first message proves it.
    Lives(T, u32),
    /// It is over; this is to be said.
    Ended(Vec<u8>),
    /// Nobody: say so.
    Gone,
    /// Nobody who is to be answered: an attempt that was made already, or too many who ask.
    Nothing,
}

/// Sessions of one identity. `T` is how the caller reaches one.
pub struct Table<T> {
    next: u64,
    ids: BTreeMap<AttemptId, (SessionNo, u32)>,
    sessions: BTreeMap<SessionNo, Known<T>>,
    /// Those that ended, with when, oldest first.
    ended: VecDeque<(Duration, SessionNo)>,
    gone: Rate,
    /// Attempts that were answered with GONE, oldest first; the rate bounds them.
    denied: VecDeque<(Duration, AttemptId)>,
    /// The identity is gone.
    closed: bool,
}

struct Known<T> {
    secret: Secret,
    /// The last attempt that was proven, or answered.
    last: u32,
    state: State<T>,
}

enum State<T> {
    Lives(T),
    Ended(Tombstone),
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let (ids, sessions, ended, denied) = Default::default();
        let gone = Rate { left: GONE_AT_ONCE, since: Duration::ZERO };
        Self { next: 0, ids, sessions, ended, gone, denied, closed: false }
    }
}

impl<T: Clone> Table<T> {
    /// A session stands. `None`: its client was told that there is none, and may have asked elsewhere since; or the identity is gone.
    // protocol: S44
    pub fn enter(&mut self, secret: &Secret, to: T, now: Duration) -> Option<SessionNo> {
        self.age(now);
        let is_denied = |id: AttemptId| self.denied.iter().any(|(_, denied)| *denied == id);
        let denied = !self.denied.is_empty() && (1..=AHEAD).any(|attempt| is_denied(secret.id(attempt)));
        if denied || self.closed {
            return None;
        }
        self.next += 1;
        let no = SessionNo(self.next);
        self.sessions.insert(no, Known { secret: secret.clone(), last: 0, state: State::Lives(to) });
        self.watch(no, 1, AHEAD);
        Some(no)
    }

    /// A session goes on with this attempt.
    // protocol: S33
    pub fn moved(&mut self, no: SessionNo, attempt: u32) {
        let Some(known) = self.sessions.get_mut(&no).filter(|known| known.last < attempt) else { return };
        let before = std::mem::replace(&mut known.last, attempt);
        // Those of the last window stay, so that nobody has the server sign that they are gone.
        for old in before.saturating_sub(AHEAD)..attempt.saturating_sub(AHEAD) {
            let id = known.secret.id(old);
            self.ids.remove(&id);
        }
        self.watch(no, before.saturating_add(AHEAD + 1), attempt.saturating_add(AHEAD));
    }

    /// A session is over; without a tombstone, as if it had never been.
    pub fn end(&mut self, no: SessionNo, tombstone: Option<Tombstone>, now: Duration) {
        match (tombstone, self.sessions.get_mut(&no)) {
            (Some(tombstone), Some(known)) => {
                known.state = State::Ended(tombstone);
                self.ended.push_back((now, no));
            }
            _ => self.forget(no),
        }
        self.age(now);
    }

    /// Whose attempt it is; `said` came behind RESUME. `now` counts from anywhere and never goes back.
    // protocol: S34, S38, S39
    pub fn find(&mut self, id: &AttemptId, said: &[u8], now: Duration) -> Found<T> {
        self.age(now);
        let Some((no, attempt)) = self.ids.get(id).copied() else {
            return self.deny(id, now);
        };
        let is_new = |known: &&mut Known<T>| known.last < attempt && proves(&known.secret, attempt, said);
        let Some(known) = self.sessions.get_mut(&no).filter(is_new) else {
            return Found::Nothing;
        };
        match &known.state {
            State::Lives(to) => Found::Lives(to.clone(), attempt),
            State::Ended(tombstone) => {
                let answer = tombstone.answer(attempt);
                self.moved(no, attempt);
                Found::Ended(answer)
            }
        }
    }

    fn deny(&mut self, id: &AttemptId, now: Duration) -> Found<T> {
        if !self.gone.take(now) {
            return Found::Nothing;
        }
        self.denied.push_back((now, *id));
        Found::Gone
    }

    /// Forgets all, for ever: the identity goes.
    pub fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    fn watch(&mut self, no: SessionNo, from: u32, to: u32) {
        let Some(known) = self.sessions.get(&no) else { return };
        self.ids.extend((from..=to).map(|attempt| (known.secret.id(attempt), (no, attempt))));
    }

    fn age(&mut self, now: Duration) {
        while let Some((then, no)) = self.ended.front().copied()
            && (self.ended.len() > TOMBSTONES || now.saturating_sub(then) >= TOMBSTONE_LIFE)
        {
            self.ended.pop_front();
            self.forget(no);
        }
        while self.denied.front().is_some_and(|(then, _)| now.saturating_sub(*then) >= DENIED_LIFE) {
            self.denied.pop_front();
        }
    }

    fn forget(&mut self, no: SessionNo) {
        let Some(Known { secret, last, .. }) = self.sessions.remove(&no) else { return };
        for attempt in last.saturating_sub(AHEAD)..=last.saturating_add(AHEAD) {
            self.ids.remove(&secret.id(attempt));
        }
    }
}

/// So many at once, and then one in so much time.
struct Rate {
    left: u32,
    since: Duration,
}

impl Rate {
    fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.since).as_secs() / GONE_EVERY.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(GONE_AT_ONCE);
            self.since = now;
        }
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::seal::{End, Sealer};
    use crate::wire::session::Sealed;

    fn table() -> (Table<char>, Secret, SessionNo) {
        let (mut table, secret) = (Table::default(), Secret::test(1));
        let no = table.enter(&secret, 'a', T0).unwrap();
        (table, secret, no)
    }

    /// What the client of a session says behind RESUME.
    fn proof(secret: &Secret, attempt: u32) -> Vec<u8> {
        let mut said = Vec::new();
        Sealer::new(secret, attempt, End::Client).say(&Sealed::Ack { arrived: 0, taken: 0 }, &mut said);
        said
    }

    fn find<T: Clone>(table: &mut Table<T>, secret: &Secret, attempt: u32, now: Duration) -> Found<T> {
        table.find(&secret.id(attempt), &proof(secret, attempt), now)
    }

    fn tombstone(secret: &Secret) -> Tombstone {
        Tombstone::new(secret.clone(), Sealed::Ack { arrived: 1, taken: 0 }, None)
    }

    const T0: Duration = Duration::from_secs(1000);

    // protocol: S33, S34
    #[test]
    fn the_window_moves_with_attempts_that_were_proven_and_none_is_of_use_twice() {
        let (mut table, secret, no) = table();
        let found = |table: &mut Table<char>, attempt| find(table, &secret, attempt, T0);
        assert!(matches!(found(&mut table, AHEAD), Found::Lives('a', AHEAD)));
        assert!(matches!(found(&mut table, AHEAD), Found::Lives('a', AHEAD)), "asking moves nothing");
        assert!(matches!(found(&mut table, 0), Found::Gone), "nobody asks for the first tunnel");
        assert!(matches!(found(&mut table, AHEAD + 1), Found::Gone));
        table.moved(no, 3);
        assert!(matches!(found(&mut table, AHEAD + 3), Found::Lives('a', _)));
        for old in 1..=3 {
            assert!(matches!(found(&mut table, old), Found::Nothing), "{old} was made, and is not gone");
        }
        table.moved(no, 2);
        assert!(matches!(found(&mut table, 3), Found::Nothing), "it does not go back");
        for attempt in 4..500 {
            table.moved(no, attempt);
        }
        assert!(table.ids.len() <= 2 * AHEAD as usize + 1, "{}", table.ids.len());
        table.end(no, None, T0);
        assert!(table.ids.is_empty() && table.sessions.is_empty());
    }

    // protocol: S39
    #[test]
    fn an_end_is_remembered_for_a_while_and_each_answer_is_given_once() {
        let (mut table, secret, no) = table();
        let tombstone = tombstone(&secret);
        table.end(no, Some(tombstone.clone()), T0);
        let Found::Ended(answer) = find(&mut table, &secret, 2, T0) else { panic!("not found") };
        assert_eq!(answer, tombstone.answer(2));
        assert!(matches!(find(&mut table, &secret, 2, T0), Found::Nothing));
        assert!(matches!(find(&mut table, &secret, 1, T0), Found::Nothing));
        assert!(matches!(find(&mut table, &secret, 3, T0 + TOMBSTONE_LIFE), Found::Gone));
        assert!(table.ids.is_empty() && table.sessions.is_empty() && table.ended.is_empty());
    }

    /// I7: who opens and ends sessions all day.
    #[test]
    fn ends_that_are_remembered_are_bounded() {
        let mut table = Table::default();
        for number in 0..TOMBSTONES + 10 {
            let secret = Secret::of_number(number);
            let no = table.enter(&secret, (), T0).unwrap();
            table.end(no, Some(tombstone(&secret)), T0);
        }
        assert_eq!(table.sessions.len(), TOMBSTONES);
        assert_eq!(table.ids.len(), TOMBSTONES * AHEAD as usize);
        assert!(matches!(find(&mut table, &Secret::of_number(0), 1, T0), Found::Gone));
        assert!(matches!(find(&mut table, &Secret::of_number(11), 1, T0), Found::Ended(_)));
        table.close();
        assert!(table.ids.is_empty() && table.sessions.is_empty() && table.ended.is_empty());
    }

    /// A node on the way of an attempt knows its id, and no more.
    // protocol: S34, S39
    #[test]
    fn whoever_knows_an_id_and_not_the_session_comes_to_nothing_and_changes_nothing() {
        for ended in [false, true] {
            let (mut table, secret, no) = table();
            if ended {
                table.end(no, Some(tombstone(&secret)), T0);
            }
            for said in [Vec::new(), proof(&Secret::test(2), 1), proof(&secret, 2), proof(&secret, 1)[1..].to_vec()] {
                assert!(matches!(table.find(&secret.id(1), &said, T0), Found::Nothing));
            }
            assert!(!matches!(find(&mut table, &secret, 1, T0), Found::Nothing | Found::Gone));
        }
    }

    /// A client that hears GONE asks again elsewhere, while what it said first may still be on its way.
    // protocol: S44
    #[test]
    fn a_session_that_was_said_to_be_gone_does_not_come_about() {
        let (mut table, denied, other) = (Table::default(), Secret::test(2), Secret::test(3));
        assert!(matches!(find(&mut table, &denied, 2, T0), Found::Gone));
        assert!(table.enter(&other, 'o', T0).is_some());
        assert!(table.enter(&denied, 'd', T0).is_none());
        assert!(table.enter(&denied, 'd', T0 + DENIED_LIFE).is_some() && table.denied.is_empty());
        table.close();
        assert!(
            table.enter(&Secret::test(4), 'g', T0).is_none(),
            "nobody finds it, and GONE may have been said elsewhere"
        );
    }

    // protocol: S38
    #[test]
    fn few_who_ask_for_what_is_not_there_are_answered() {
        let (mut table, ..) = table();
        let mut answered = |now| matches!(table.find(&[9; 16], &[], now), Found::Gone);
        for _ in 0..GONE_AT_ONCE {
            assert!(answered(T0));
        }
        assert!(!answered(T0) && !answered(T0 + GONE_EVERY / 2));
        assert!(answered(T0 + GONE_EVERY) && !answered(T0 + GONE_EVERY));
        let later = T0 + Duration::from_secs(1_000_000);
        assert_eq!((0..10).filter(|_| answered(later)).count(), GONE_AT_ONCE as usize);
    }
}
