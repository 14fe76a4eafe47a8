//! What must be true of each life of a network, whatever its steps: who is reached within which time, which connections live and carry
//! the right bytes, what becomes public, and that nothing is left.
//!
//! It knows nothing of paths, tunnels or links: only what a user could know.

use std::collections::{BTreeMap, BTreeSet};

use phantom_daemon::far::ConnectError;
use phantom_proto::ident::ApAddress;

use super::books::Publication;
use super::hostile::Conduct;

/// After the last trouble, and the last change at either end, an identity is reached again within so many milliseconds: builds that
/// failed are repeated within 15 s, a record out of turn follows after some seconds, a node that did not answer is left out for a
/// minute.
const SETTLED: u64 = 180_000;

/// How long an attempt may then take.
const QUICK: u64 = 30_000;

/// How long an attempt may take at all: a minute for a tunnel and a minute for an answer, and what is under way then.
const PATIENCE: u64 = 125_000;

/// Records that an identity publishes in one step when nothing happens to its paths: one that was sent ahead, or the two of a beginning.
const RECORDS_PER_STEP: usize = 2;

/// A time in which something happened that may end paths and connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trouble {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A program under an identity.
#[derive(Debug, Clone)]
pub(crate) struct Player {
    pub(crate) node: usize,
    pub(crate) address: ApAddress,
    pub(crate) lasting: bool,
    pub(crate) listens: bool,
    pub(crate) closed: bool,
    /// When it was there.
    pub(crate) spans: Vec<(u64, Option<u64>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Whether the port is one on which the other listens.
    pub(crate) listened: bool,
    pub(crate) begun: u64,
    pub(crate) ended: Option<u64>,
    pub(crate) outcome: Option<Result<(), ConnectError>>,
}

/// How something that was said was echoed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Echoed,
    Wrong,
    Broken,
    Silent,
}

#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) attempt: usize,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) told: Told,
}

/// All that happened, with times in milliseconds since the beginning.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) hostile: Vec<Conduct>,
    pub(crate) players: Vec<Player>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) talks: Vec<Talk>,
    pub(crate) publications: Vec<Publication>,
    /// What nodes held when all was over.
    pub(crate) left: Vec<String>,
    pub(crate) panics: Vec<String>,
}

impl Player {
    fn open(&self) -> bool {
        self.spans.last().is_some_and(|(_, to)| to.is_none())
    }

    /// Whether it was there all the time from `from` to `to`.
    fn there(&self, from: u64, to: u64) -> bool {
        self.spans.iter().any(|(begun, ended)| *begun <= from && ended.is_none_or(|ended| ended >= to))
    }

    /// Whether it was there at some moment of that time.
    fn at_all(&self, from: u64, to: u64) -> bool {
        self.spans.iter().any(|(begun, ended)| *begun <= to && ended.is_none_or(|ended| ended >= from))
    }
}

impl History {
    /// A node ends, and with it what runs there.
    pub(crate) fn ended(&mut self, node: usize, now: u64) {
        for player in self.players.iter_mut().filter(|player| player.node == node && player.open()) {
            player.spans.last_mut().expect("it is open").1 = Some(now);
        }
    }

    /// An identity that is there is closed, for good.
    pub(crate) fn close(&mut self, number: usize, now: u64) -> Option<(usize, ApAddress)> {
        let count = self.players.len();
        let player = self.players.get_mut(number.checked_rem(count)?)?;
        player.closed = true;
        if !player.open() {
            return None;
        }
        player.spans.last_mut().expect("it is open").1 = Some(now);
        Some((player.node, player.address))
    }

    /// An identity that is there connects to another: number of the attempt, node, both addresses.
    pub(crate) fn attempt(
        &mut self,
        from: usize,
        to: usize,
        listened: bool,
        begun: u64,
    ) -> Option<(usize, usize, ApAddress, ApAddress)> {
        let count = self.players.len();
        let (from, to) = (from.checked_rem(count)?, to.checked_rem(count)?);
        let own = &self.players[from];
        if !own.open() {
            return None;
        }
        let attempt = Attempt { from, to, listened, begun, ended: None, outcome: None };
        self.attempts.push(attempt);
        Some((self.attempts.len() - 1, own.node, own.address, self.players[to].address))
    }

    /// Whether nothing troubled the network from `from` to `to`.
    fn calm(&self, from: u64, to: u64) -> bool {
        !self.troubles.iter().any(|trouble| trouble.from <= to && trouble.to >= from)
    }

    /// All promises that were broken.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken: Vec<String> = self.panics.iter().map(|panic| format!("panic: {panic}")).collect();
        broken.extend(self.attempts.iter().filter_map(|attempt| self.attempt_broken(attempt)));
        broken.extend(self.talks.iter().filter_map(|talk| self.talk_broken(talk)));
        broken.extend(self.left.iter().map(|left| format!("left over: {left}")));
        broken.extend(self.public_broken());
        broken
    }

    fn attempt_broken(&self, attempt: &Attempt) -> Option<String> {
        let (own, far) = (&self.players[attempt.from], &self.players[attempt.to]);
        let Some(ended) = attempt.ended else { return Some(format!("never answered: {attempt:?}")) };
        let (took, since) = (ended - attempt.begun, attempt.begun.saturating_sub(SETTLED));
        if took > PATIENCE {
            return Some(format!("it took too long: {attempt:?}"));
        }
        let answer = attempt.outcome?;
        if answer.is_ok() && (!attempt.listened || !far.at_all(attempt.begun, ended)) {
            return Some(format!("nobody was there: {attempt:?}"));
        }
        if answer.is_ok() && !far.listens && far.address != own.address {
            return Some(format!("it never listened: {attempt:?}"));
        }
        // With hostile nodes beside it an owner needs time to find out which; the scenes say how much.
        let bound = self.hostile.is_empty()
            && far.listens
            && attempt.begun >= SETTLED
            && self.calm(since, ended)
            && own.there(since, ended)
            && far.there(since, ended);
        let wanted = if attempt.listened { Ok(()) } else { Err(ConnectError::Refused) };
        (bound && (answer != wanted || took > QUICK)).then(|| format!("it was calm: {attempt:?}"))
    }

    fn talk_broken(&self, talk: &Talk) -> Option<String> {
        let attempt = &self.attempts[talk.attempt];
        if talk.told == Told::Wrong {
            return Some(format!("wrong bytes: {talk:?} of {attempt:?}"));
        }
        let (own, far) = (&self.players[attempt.from], &self.players[attempt.to]);
        let since = attempt.begun;
        let bound = self.hostile.is_empty()
            && self.calm(since, talk.ended)
            && own.there(since, talk.ended)
            && far.there(since, talk.ended);
        let late = talk.ended - talk.begun > QUICK;
        (bound && (talk.told != Told::Echoed || late)).then(|| format!("it was calm: {talk:?} of {attempt:?}"))
    }

    /// What a reader of all records sees.
    fn public_broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut handles: BTreeMap<[u8; 16], ApAddress> = BTreeMap::new();
        let mut steps: BTreeMap<(ApAddress, u64), BTreeSet<u64>> = BTreeMap::new();
        for publication in &self.publications {
            let (record, address) = (&publication.record, publication.record.address());
            for entry in &record.entries {
                if *handles.entry(entry.handle).or_insert(address) != address {
                    broken.push(format!("two identities share an entry of node {}", publication.node));
                }
            }
            if self.players.iter().any(|player| player.address == address && player.node == publication.node) {
                broken.push(format!("node {} is an entry of its own identity", publication.node));
            }
            steps.entry((address, record.step_of())).or_default().insert(record.serial);
        }
        let many = steps.iter().filter(|(_, serials)| serials.len() > RECORDS_PER_STEP);
        if self.troubles.is_empty() && self.hostile.is_empty() {
            broken.extend(many.map(|(_, serials)| format!("{} records in one step", serials.len())));
        }
        broken
    }

    /// For whoever wonders whether anything was demanded at all: attempts and echoes, and those of them that came about.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let came = self.attempts.iter().filter(|attempt| matches!(attempt.outcome, Some(Ok(())))).count();
        let echoed = self.talks.iter().filter(|talk| talk.told == Told::Echoed).count();
        [self.attempts.len(), came, self.talks.len(), echoed]
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;

    use super::*;

    fn player(number: u8, node: usize) -> Player {
        let address = ApAddress::of(&SigningKey::from_seed(&[number; 32]).verifying_key());
        Player { node, address, lasting: false, listens: true, closed: false, spans: vec![(0, None)] }
    }

    fn history(outcome: Result<(), ConnectError>, told: Told) -> History {
        let (begun, ended) = (2 * SETTLED, 2 * SETTLED + 500);
        let attempt = Attempt { from: 0, to: 1, listened: true, begun, ended: Some(ended), outcome: Some(outcome) };
        let talk = Talk { attempt: 0, begun: ended, ended: ended + 500, told };
        let players = vec![player(1, 1), player(2, 2)];
        History { players, attempts: vec![attempt], talks: vec![talk], ..History::default() }
    }

    #[test]
    fn a_calm_network_owes_more_than_a_troubled_one() {
        let failed = || history(Err(ConnectError::TimedOut), Told::Broken);
        assert!(history(Ok(()), Told::Echoed).broken().is_empty());
        assert_eq!(failed().broken().len(), 2);
        let mut troubled = failed();
        troubled.troubles.push(Trouble { from: SETTLED + 1000, to: 2 * SETTLED });
        assert!(troubled.broken().is_empty());
        let mut long_ago = failed();
        long_ago.troubles.push(Trouble { from: 0, to: SETTLED - 1 });
        assert_eq!(long_ago.broken().len(), 2);
        let mut away = failed();
        away.ended(2, SETTLED);
        assert!(away.broken().is_empty());
    }

    #[test]
    fn wrong_bytes_and_answers_of_nobody_are_never_right() {
        let mut wrong = history(Ok(()), Told::Wrong);
        wrong.troubles.push(Trouble { from: 0, to: 9 * SETTLED });
        assert_eq!(wrong.broken().len(), 1);
        let mut nobody = history(Ok(()), Told::Echoed);
        nobody.ended(2, SETTLED);
        assert_eq!(nobody.broken().len(), 1);
        let mut closed = history(Ok(()), Told::Echoed);
        closed.attempts[0].listened = false;
        assert_eq!(closed.broken().len(), 1);
    }
}
