//! Networks without room for layers: one partition for all identities of a node, in the order of a secret that nobody else has.
//!
//! It hides the guards behind four nodes rather than behind whoever is drawn next. It cannot hide who never terminates a path.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{CryptoRng, RngExt};
use zeroize::Zeroizing;

use super::account::{Account, median};
use super::layers::{Drawn, LAYERS_MIN};
use super::pool::{Pool, View};
use crate::crypto::derive;
use crate::ident::NodeId;
use crate::path::plan::{Candidate, Operators};

/// Nodes that stand beside guards: one more than a circle takes.
// protocol: O18
const NEAR: usize = 4;

/// Builds in a row of which none stood, after which all is drawn anew. Where two of the four drop what they get, each circle has one of them,
/// and no account tells who it is, since nobody has earned anything.
// protocol: O18
const VAIN: u32 = 20;

/// Nodes with an account: as many as a network without layers has operators, twice.
const ACCOUNTS: usize = 2 * LAYERS_MIN;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Small {
    /// Drawn at first use, and never kept: a small network's partition need not outlast a run.
    secret: Option<Zeroizing<[u8; 32]>>,
    accounts: BTreeMap<NodeId, Account>,
    /// Builds that failed since the last one that stood.
    vain: u32,
}

impl Small {
    /// Draws the nodes beside the guards, whose operators are taken already; `convicted`: guards that kill builds would do so here, too.
    pub(super) fn draw(
        &mut self,
        rng: &mut dyn CryptoRng,
        View { pool, away, .. }: View<'_>,
        need: (usize, usize),
        operators: &mut Operators,
        convicted: &BTreeSet<NodeId>,
    ) -> Drawn {
        let secret = self.secret.get_or_insert_with(|| Zeroizing::new(rng.random())).clone();
        let mut nodes: Vec<_> =
            pool.nodes.iter().filter(|(id, node)| !away(id) && operators.free(&node.contact)).collect();
        nodes.sort_by_cached_key(|(id, _)| derive("phantom v1 choice order", &[&secret[..], &id.0]));
        // One node of each operator.
        nodes.retain(|(_, node)| operators.take(&node.contact));
        let (near, far) = nodes.split_at(NEAR.min(nodes.len()));
        let (mut near, mut far) = (self.order(rng, near, convicted), self.order(rng, far, convicted));
        let mut second: Vec<_> = near.drain(..need.0.min(near.len())).collect();
        let mut third: Vec<_> = far.drain(..need.1.min(far.len())).collect();
        // Better a path with a stranger beside a guard than none.
        let mut rest = near.into_iter().chain(far);
        second.extend(rest.by_ref().take(need.0 - second.len()));
        third.extend(rest.take(need.1 - third.len()));
        (second, third)
    }

    /// By chance; the poor and the convicted last.
    fn order(
        &self,
        rng: &mut dyn CryptoRng,
        nodes: &[(&NodeId, &Candidate)],
        convicted: &BTreeSet<NodeId>,
    ) -> Vec<Candidate> {
        let median = median(self.accounts.values());
        let mut nodes = nodes.to_vec();
        nodes.shuffle(rng);
        let poor = |id: &NodeId| self.accounts.get(id).is_some_and(|account| account.poor(median));
        nodes.sort_by_key(|(id, _)| convicted.contains(*id) || poor(id));
        nodes.into_iter().map(|(_, node)| node.clone()).collect()
    }

    /// How a build went. Whoever can make all of them fail stands in all of them, and is not kept for that.
    pub(super) fn built(&mut self, stands: bool) {
        self.vain = if stands { 0 } else { self.vain + 1 };
        if self.vain >= VAIN {
            (self.secret, self.vain) = (None, 0);
        }
    }

    pub(super) fn credit(&mut self, pool: &Pool, id: &NodeId, credit: u32) {
        if self.accounts.len() >= ACCOUNTS {
            self.accounts.retain(|id, _| pool.nodes.contains_key(id));
        }
        if self.accounts.len() < ACCOUNTS || self.accounts.contains_key(id) {
            self.accounts.entry(*id).or_default().add(credit);
        }
    }
}
