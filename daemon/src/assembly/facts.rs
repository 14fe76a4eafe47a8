//! Gathers what warnings and checks are made from (`health`), and keeps what has become of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_ipc::admin::{Doctor, StartStep, Warning};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Running;
use super::answers::ready_tunnels;
use crate::config::Reachable;
use crate::driver::Snapshot;
use crate::health::{Around, Facts, Health, checks};
use crate::link::Clocks;
use crate::netdb::Known;

/// How old what was seen of this computer may be: a disk may take its time.
const AROUND_EVERY: Duration = Duration::from_secs(60);

/// What is remembered between two looks.
pub(super) struct Watched {
    clocks: Arc<Clocks>,
    health: Mutex<Health>,
    around: Mutex<Option<(Instant, Around)>>,
}

impl Watched {
    pub(super) fn new(clocks: Arc<Clocks>) -> Self {
        Self { clocks, health: Mutex::default(), around: Mutex::default() }
    }
}

impl Running {
    pub(super) async fn facts(&self, known: &Known, snapshot: &Snapshot) -> Facts {
        Facts {
            connected: known.connected,
            known: known.nodes.len(),
            exit_paths: snapshot.exit_paths,
            waits_for: snapshot.waiting_for.clone(),
            ready_tunnels: ready_tunnels(snapshot),
            relayed_paths: snapshot.relayed_paths,
            most_relayed: self.setup.config.limits.relayed_paths as usize,
            reachable: known.reachable,
            says_unreachable: self.setup.config.reachable == Reachable::No,
            router: self.router.forwarding(),
            port: self.contact().addr.port(),
            published: known.stands.map(|stands| stands.since.is_some()),
            clock_ahead: self.watched.clocks.ahead(),
            vitals: snapshot.vitals.clone(),
            around: self.around(AROUND_EVERY).await,
            commands: self.command_facts().await,
        }
    }

    async fn around(&self, at_most: Duration) -> Around {
        let last = self.watched.around.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, around)) = last
            && at.elapsed() < at_most
        {
            return around;
        }
        let setup = self.setup.clone();
        let around = spawn_blocking(move || Around::look(setup.data.path())).await.unwrap_or_default();
        *self.watched.around.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), around.clone()));
        around
    }

    /// What is to be told now, after a look at the facts.
    pub(super) fn watch(&self, facts: &Facts) -> (Vec<Warning>, Vec<StartStep>) {
        let now = Instant::now();
        let mut health = self.watched.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.look(now, facts);
        (health.warnings(now), health.start(now))
    }

    pub(super) async fn doctor_now(&self) -> Doctor {
        let known = self.database.known().borrow().clone();
        let snapshot = self.handle.snapshot().await.unwrap_or_default();
        let mut facts = self.facts(&known, &snapshot).await;
        // Whoever asks has perhaps just mended it.
        facts.around = self.around(Duration::ZERO).await;
        let (warnings, _) = self.watch(&facts);
        Doctor { checks: checks(&facts, self.setup.data.path(), &self.contact().addr.to_string()), warnings }
    }
}
