//! Votes: what the nodes of a region say about a key, and whether they keep a record.

use std::collections::BTreeMap;

use super::place::Table;
use super::request::Answer;
use super::{Key, NotKept, Value, admit, check};
use crate::ident::Operator;
use crate::record::NodeRecord;

/// "There is none" must be said by so many of ten operators, all of whose nodes say it.
const OF_TEN: usize = 9;

/// What a look-up ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The newest record that holds.
    Found(Box<(Value, Vec<u8>)>),
    /// There is none.
    Absent,
    /// Too few say that there is none.
    Unsure,
    /// A node signed different keys for one epoch: whoever uses one of them can be told by it.
    Contradicted,
}

/// What those of one operator said.
#[derive(Debug, Default)]
struct Votes {
    open: usize,
    nothing: usize,
    other: usize,
    silent: usize,
}

/// A look-up's answers.
#[derive(Debug)]
pub struct Tally {
    key: Key,
    votes: BTreeMap<Operator, Votes>,
    best: Option<(Value, Vec<u8>)>,
    /// Different ones of a node, at most as many as were asked.
    records: Vec<NodeRecord>,
    contradicted: bool,
    /// Whether those who are asked are the region, and not only some of it.
    is_whole: bool,
}

impl Tally {
    /// These are asked about `key`: whose each is. `is_whole`: the search for them has met enough of the region.
    pub fn new(key: Key, asked: impl Iterator<Item = Operator>, is_whole: bool) -> Self {
        let mut votes: BTreeMap<Operator, Votes> = BTreeMap::new();
        asked.for_each(|operator| votes.entry(operator).or_default().open += 1);
        Self { key, votes, best: None, records: Vec::new(), contradicted: false, is_whole }
    }

    /// What is known without asking: it counts as a record, and as nobody's word.
    pub fn know(&mut self, now: u64, record: Vec<u8>) {
        self.weigh(now, record);
    }

    /// One of an operator's nodes has answered. `None`: it has not, and will not.
    pub fn hear(&mut self, now: u64, operator: Operator, answer: Option<Answer>) {
        if let Some(Answer::Record(record)) = &answer {
            self.weigh(now, record.clone());
        }
        let Some(votes) = self.votes.get_mut(&operator) else { return };
        votes.open = votes.open.saturating_sub(1);
        match answer {
            Some(Answer::Nothing) => votes.nothing += 1,
            // Also a record that does not hold, or what is no answer to this question.
            Some(_) => votes.other += 1,
            None => votes.silent += 1,
        }
    }

    /// Takes note of a record, if it holds.
    // protocol: D6, D33
    fn weigh(&mut self, now: u64, bytes: Vec<u8>) {
        let Ok(value) = check(now, &self.key, &bytes) else { return };
        if let Value::Node(record) = &value
            && !self.records.contains(record)
        {
            self.contradicted |= self.records.iter().any(|other| other.contradicts(record));
            self.records.push(NodeRecord::clone(record));
        }
        let standing = self.best.as_ref().map(|(_, bytes)| bytes.as_slice());
        if admit(now, &self.key, &bytes, standing).is_ok() {
            self.best = Some((value, bytes));
        }
    }

    /// What comes out of it. `None`: more answers are waited for. An AP record is taken when more than half of the operators
    /// have answered, a node record when all have, since one may differ.
    // protocol: D7, D14, D33
    pub fn verdict(&self) -> Option<Verdict> {
        let over = self.votes.values().all(|votes| votes.open == 0);
        if self.contradicted {
            return Some(Verdict::Contradicted);
        }
        let answered = self.votes.values().filter(|votes| votes.nothing + votes.other > 0).count();
        let is_ap = Table::of(&self.key) == Some(Table::Addresses);
        match &self.best {
            Some(best) if over || is_ap && answered * 2 > self.votes.len() => {
                Some(Verdict::Found(Box::new(best.clone())))
            }
            None if over => Some(if self.is_absent() { Verdict::Absent } else { Verdict::Unsure }),
            _ => None,
        }
    }

    /// The region was met, nobody is silent, and nine of ten operators say that there is nothing.
    // protocol: D7, D40
    fn is_absent(&self) -> bool {
        let silent = self.votes.values().any(|votes| votes.silent > 0);
        let nothing = self.votes.values().filter(|votes| votes.nothing > 0 && votes.other == 0).count();
        self.is_whole && !silent && nothing > 0 && nothing * 10 >= self.votes.len() * OF_TEN
    }
}

/// How a record's publication ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// More than half of those who were asked keep it.
    Stands(Standing),
    /// More than half refuse it: it is not the newest, or does not hold.
    Refused(Standing),
    /// Neither: it is tried again.
    TooFew(Standing),
}

/// Who keeps a record, counted in operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who said that they do.
    pub keep: usize,
    /// Who were asked.
    pub asked: usize,
}

/// Who keeps a record that is being published.
#[derive(Debug)]
pub struct Ballot {
    votes: BTreeMap<Operator, Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    open: usize,
    stands: usize,
    refused: usize,
}

impl Ballot {
    /// These are asked to keep it: whose each is.
    pub fn new(asked: impl Iterator<Item = Operator>) -> Self {
        let mut votes: BTreeMap<Operator, Kept> = BTreeMap::new();
        asked.for_each(|operator| votes.entry(operator).or_default().open += 1);
        Self { votes }
    }

    /// One of an operator's nodes has answered. `None`: it has not, and will not.
    pub fn hear(&mut self, operator: Operator, answer: Option<&Answer>) {
        let Some(kept) = self.votes.get_mut(&operator) else { return };
        kept.open = kept.open.saturating_sub(1);
        match answer {
            Some(Answer::Stands) => kept.stands += 1,
            Some(_) => kept.refused += 1,
            None => {}
        }
    }

    /// How it ended. `None`: more answers are waited for.
    // protocol: D34
    pub fn outcome(&self) -> Option<Written> {
        if self.votes.values().any(|kept| kept.open > 0) {
            return None;
        }
        let of = |what: fn(&Kept) -> bool| self.votes.values().filter(|kept| what(kept)).count();
        let standing = Standing { keep: of(|kept| kept.stands > 0), asked: self.votes.len() };
        let refused = of(|kept| kept.stands == 0 && kept.refused > 0);
        Some(match standing {
            Standing { keep, asked } if keep * 2 > asked => Written::Stands(standing),
            Standing { asked, .. } if refused * 2 > asked => Written::Refused(standing),
            _ => Written::TooFew(standing),
        })
    }
}

/// What a storer answers to a record that it was brought.
impl From<Result<(), NotKept>> for Answer {
    fn from(put: Result<(), NotKept>) -> Self {
        if put.is_ok() { Self::Stands } else { Self::Refused }
    }
}

#[cfg(test)]
mod tests;
