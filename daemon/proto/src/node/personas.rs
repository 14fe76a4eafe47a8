//! The owner's policy: which personas there are, which paths each keeps, and when it builds them.
//!
//! Paths are built without a purpose, at the ticks of clocks that have nothing to do with what anybody does, and put to work from
//! the stock of spares (docs/protocol.md, section 4.7). Each class of each persona has a clock of its own.

use std::sync::Arc;

use rand::{CryptoRng, RngExt};

use super::build::LATE;
use super::ends::Mistrusted;
use super::paths::{Owned, Path};
use super::service::{Serials, Service};
use super::{Node, Note, Output, PathNo, Work};
use crate::chance::exponential;
use crate::crypto::SigningKey;
use crate::ident::ApAddress;
use crate::path::{Class, How, Persona, Sets};

/// Spare paths that class out keeps: what connects, what asks and what asks again, or two that may die while others take over their work. Class in
/// keeps as many as a service has entries: an owner that had to build one when it begins to listen would show its guards when that was.
// protocol: K4
pub const SPARES: usize = 3;

/// Mean time between two builds of a class, in milliseconds. They go on whatever the stock is: that a build happens says nothing.
const BUILD_MEAN: u64 = 600_000;

/// First and longest wait after a failed build that was out of turn, in milliseconds; it doubles in between.
// protocol: K6
const BACKOFF: (u64, u64) = (500, 10_000);

/// One set of own paths, and whose they are.
// protocol: K1
pub(super) struct Own {
    /// `None`: kept ready for the next identity.
    pub(super) identity: Option<ApAddress>,
    /// Its identity outlives this run.
    pub(super) lasts: bool,
    /// Since when nobody runs as its identity, in milliseconds since 1970; `None`: somebody does.
    pub(super) idle: Option<u64>,
    out: Stock,
    incoming: Stock,
    pub(super) service: Option<Service>,
    pub(super) mistrusted: Mistrusted,
}

/// What a class of a persona builds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Nothing,
    /// Spares, for work that may come.
    Spares,
    Work,
}

/// When a class of a persona builds.
pub(super) struct Stock {
    pub(super) aim: Aim,
    /// The next tick of its clock.
    tick: u64,
    /// When it may build out of turn, since nothing is in stock; drawn when that is seen.
    urgent: Option<u64>,
    /// After a sleep: when it may begin to see what it lacks.
    rest: u64,
    /// The last wait after a failure; 0 after a success.
    wait: u64,
    /// When that failure was.
    failed: u64,
}

impl Stock {
    #[cfg(test)]
    pub(super) fn next(&self) -> u64 {
        self.tick
    }

    #[cfg(test)]
    pub(super) fn wait(&self) -> u64 {
        self.wait
    }

    #[cfg(test)]
    pub(super) fn has_tried(&self) -> bool {
        self.wait > 0
    }

    /// Its clock ticks at this time next, and what it lacks is seen anew after `rest`.
    pub(super) fn redraw(&mut self, tick: u64, rest: u64) {
        (self.tick, self.urgent, self.rest) = (tick, None, rest);
    }

    fn new(rng: &mut dyn CryptoRng, now: u64) -> Self {
        Self { aim: Aim::Spares, tick: now + exponential(rng, BUILD_MEAN), urgent: None, rest: 0, wait: 0, failed: 0 }
    }
}

impl Own {
    pub(super) fn stocks(&mut self) -> [&mut Stock; 2] {
        [&mut self.out, &mut self.incoming]
    }

    fn stock(&mut self, class: Class) -> &mut Stock {
        match class {
            Class::Out => &mut self.out,
            Class::In => &mut self.incoming,
        }
    }

    fn aim(&self, class: Class) -> Aim {
        match class {
            Class::Out => self.out.aim,
            Class::In => self.incoming.aim,
        }
    }
}

/// Works of a class that a persona has when it is whole.
// protocol: K2
fn works(class: Class, entries: usize) -> Vec<(Work, usize)> {
    match class {
        Class::Out => vec![(Work::Connect, 1), (Work::Ask, 1), (Work::AskAgain, 1)],
        Class::In => vec![(Work::Serve, entries)],
    }
}

impl Node {
    /// An identity connects or listens.
    pub(super) fn want(&mut self, now: u64, identity: ApAddress, class: Class) -> Persona {
        let persona = self.persona_of(identity).unwrap_or_else(|| self.christen(now, identity));
        if let Some(own) = self.personas.get_mut(&persona) {
            own.stock(class).aim = Aim::Work;
            own.idle = None;
        }
        self.put_to_work(now, persona);
        self.pursue(now);
        persona
    }

    /// An identity listens: what it offers is served and published.
    // protocol: K16
    pub(super) fn want_entry(&mut self, now: u64, key: Arc<SigningKey>, serials: Serials) {
        let identity = ApAddress::of(&key.verifying_key());
        // Paths that lead out, too: its entries are looked at from outside.
        self.want(now, identity, Class::Out);
        let persona = self.want(now, identity, Class::In);
        let time = self.network_time(now);
        let first = time + self.rng.random_range(0..=self.settings.publish_within / 6);
        if let Some(own) = self.personas.get_mut(&persona) {
            own.service.get_or_insert_with(|| Service::new(key, serials, first));
        }
        self.serve(time);
    }

    pub(super) fn persona_of(&self, identity: ApAddress) -> Option<Persona> {
        self.personas.iter().find(|(_, own)| own.identity == Some(identity)).map(|(persona, _)| *persona)
    }

    /// The layers of an identity that outlives this run. What cannot be read is drawn anew, as for a new identity.
    pub(super) fn settle(&mut self, now: u64, identity: ApAddress, secret: &[u8; 32], sets: Option<Vec<u8>>) {
        if self.persona_of(identity).is_none() {
            let restored = sets.map(|bytes| Sets::restored(*secret, &bytes));
            if matches!(restored, Some(Err(_))) {
                self.note(now, Note::LayersLost);
            }
            let sets = restored.and_then(Result::ok).unwrap_or_else(|| Sets::persistent(*secret));
            self.settled.insert(identity, sets);
        }
    }

    /// Tells what is to be kept of identities that outlive this run.
    pub(super) fn keep_sets(&mut self) {
        for (persona, own) in &self.personas {
            if let (Some(identity), Some(sets)) = (own.identity, self.choice.changed(*persona)) {
                self.out.push_back(Output::Sets { identity, sets });
            }
        }
    }

    /// Tells whose records must not be lost from the sample: they are used for weeks.
    pub(super) fn pin(&mut self) {
        let pinned = self.choice.pinned();
        if pinned != self.pinned {
            self.pinned.clone_from(&pinned);
            self.out.push_back(Output::Pinned(pinned));
        }
    }

    /// Gives an identity the persona that was kept ready, spares included, or a new one. One with layers of its own has no use for
    /// spares that lead over others'.
    pub(super) fn christen(&mut self, now: u64, identity: ApAddress) -> Persona {
        let settled = self.settled.remove(&identity);
        let lasts = settled.is_some();
        let persona = match settled {
            Some(sets) => {
                let persona = self.conceive(now);
                self.choice.born(persona, sets);
                persona
            }
            None => {
                let unborn = self.personas.iter().find(|(_, own)| own.identity.is_none()).map(|(persona, _)| *persona);
                unborn.unwrap_or_else(|| self.conceive(now))
            }
        };
        if let Some(own) = self.personas.get_mut(&persona) {
            (own.identity, own.lasts) = (Some(identity), lasts);
            for stock in own.stocks() {
                (stock.aim, stock.urgent) = (Aim::Nothing, None);
            }
        }
        persona
    }

    // protocol: K7
    fn conceive(&mut self, now: u64) -> Persona {
        let persona = Persona(self.id());
        let (mut out, mut incoming) = (Stock::new(&mut *self.rng, now), Stock::new(&mut *self.rng, now));
        if self.started {
            // Long after the birth that made room for it: its first builds must not point there.
            out.urgent = Some(now + exponential(&mut *self.rng, self.settings.renewal_mean));
            incoming.urgent = Some(now + exponential(&mut *self.rng, self.settings.renewal_mean));
        }
        self.choice.born(persona, Sets::fresh());
        let (service, mistrusted) = Default::default();
        let own = Own { identity: None, lasts: false, idle: None, out, incoming, service, mistrusted };
        self.personas.insert(persona, own);
        persona
    }

    /// An identity is gone, and all that was its own.
    pub(super) fn dismiss(&mut self, now: u64, persona: Persona) {
        let Some(identity) = self.personas.get(&persona).and_then(|own| own.identity) else { return };
        // What was drawn for it since the last look would be drawn anew, and be others, when it comes back.
        self.keep_sets();
        self.personas.remove(&persona);
        self.choice.gone(persona);
        self.builds.retain(|_, building| building.whose.is_none_or(|(of, _)| of != persona));
        let of = |path: &Path| path.owned().is_some_and(|owned| owned.persona == persona);
        let gone: Vec<_> = self.paths.iter().filter(|(_, path)| of(path)).map(|(no, _)| *no).collect();
        for no in gone {
            self.say_farewell(now, identity, no);
        }
    }

    /// Starts the builds whose time has come.
    pub(super) fn pursue(&mut self, now: u64) {
        self.started |= self.personas.values().any(|own| own.identity.is_some() && own.idle.is_none());
        while self.personas.values().filter(|own| own.identity.is_none()).count() < self.settings.unborn {
            self.conceive(now);
        }
        let classes = [Class::Out, Class::In];
        let all: Vec<_> = self.personas.keys().flat_map(|persona| classes.map(|class| (*persona, class))).collect();
        for (persona, class) in all {
            if self.is_due(now, persona, class) && self.may_build(persona) {
                match self.build(now, persona, class) {
                    Ok(()) => self.problem = None,
                    Err(problem) => {
                        self.problem = Some(problem.to_string());
                        self.note(now, problem.into());
                        self.build_failed(now, now, persona, class);
                    }
                }
            }
        }
    }

    /// Whether a class builds now: at its clock's tick, or out of turn when it has nothing that it could put to work.
    fn is_due(&mut self, now: u64, persona: Persona, class: Class) -> bool {
        let in_stock =
            self.spares(persona, class).len() + self.unproven(now, persona, class) + self.building(now, persona, class);
        let lacks = in_stock < self.lacking(now, persona, class);
        let (mean, rng) = (self.settings.urgent_mean, &mut *self.rng);
        let Some(own) = self.personas.get_mut(&persona) else { return false };
        let stock = own.stock(class);
        if stock.aim == Aim::Nothing {
            return false;
        }
        if !lacks {
            stock.urgent = None;
        }
        let ticked = now >= stock.tick;
        if ticked {
            stock.tick = now + exponential(rng, BUILD_MEAN);
        }
        if !lacks {
            return ticked;
        }
        let at = *stock.urgent.get_or_insert_with(|| now.max(stock.rest) + exponential(rng, mean));
        if now < at {
            self.wake(at);
            return ticked;
        }
        // Drawn anew for the next one.
        stock.urgent = None;
        true
    }

    /// Paths that a class lacks for its work; one of a persona that nobody has yet lacks its spares. An identity that nobody runs as has
    /// time: its clock alone fills its stock.
    fn lacking(&self, now: u64, persona: Persona, class: Class) -> usize {
        match self.personas.get(&persona).map(|own| (own.identity, own.aim(class))) {
            None | Some((Some(_), Aim::Nothing | Aim::Spares)) => 0,
            Some((None, _)) => self.spares_kept(class),
            Some((Some(_), Aim::Work)) => {
                self.missing(now, persona, class).into_iter().map(|(_, missing)| missing).sum()
            }
        }
    }

    /// Paths that are missing at each work of a class.
    fn missing(&self, now: u64, persona: Persona, class: Class) -> Vec<(Work, usize)> {
        let missing = |(work, count): (Work, usize)| (work, count.saturating_sub(self.at_work(now, persona, work)));
        works(class, self.settings.entry_paths).into_iter().map(missing).collect()
    }

    /// Whether an identity lacks a path for its work. It may have to wait for one that asks again, and does without.
    pub(super) fn someone_lacks(&self, now: u64) -> bool {
        let at_work = |(_, own, class): &(Persona, &Own, Class)| own.identity.is_some() && own.aim(*class) == Aim::Work;
        let all =
            self.personas.iter().flat_map(|(persona, own)| [Class::Out, Class::In].map(|class| (*persona, own, class)));
        let lacks = |(work, missing): (Work, usize)| work != Work::AskAgain && missing > 0;
        all.filter(at_work).any(|(persona, _, class)| self.missing(now, persona, class).into_iter().any(lacks))
    }

    /// Paths of a persona that do this work and are not about to end.
    fn at_work(&self, now: u64, persona: Persona, work: Work) -> usize {
        let of = |owned: &Owned| owned.persona == persona && owned.work == work && now < owned.retires;
        self.paths.values().filter(|path| path.owned().is_some_and(of)).count()
    }

    /// Paths of a persona that do any work.
    pub(super) fn working(&self, persona: Persona) -> Vec<PathNo> {
        let of = |owned: &Owned| owned.persona == persona && !matches!(owned.work, Work::Spare | Work::Leaving);
        self.paths.iter().filter(|(_, path)| path.owned().is_some_and(of)).map(|(no, _)| *no).collect()
    }

    /// Spare paths of a class that work, the oldest first.
    pub(super) fn spares(&self, persona: Persona, class: Class) -> Vec<PathNo> {
        let of = |owned: &Owned| owned.persona == persona && owned.class == class && owned.work == Work::Spare;
        let spare = |path: &Path| path.proven && path.owned().is_some_and(of);
        self.paths.iter().filter(|(_, path)| spare(path)).map(|(no, _)| *no).collect()
    }

    /// Paths of a class that are built, wait for their first tunnel, and may be counted on.
    fn unproven(&self, now: u64, persona: Persona, class: Class) -> usize {
        let of = |owned: &Owned| owned.persona == persona && owned.class == class;
        let counts = |path: &&Path| !path.proven && now < path.since() + LATE && path.owned().is_some_and(of);
        self.paths.values().filter(counts).count()
    }

    /// Puts spares to the work that nobody does.
    // protocol: K5
    pub(super) fn put_to_work(&mut self, now: u64, persona: Persona) {
        let Some(own) = self.personas.get(&persona) else { return };
        let Some(identity) = own.identity else { return };
        let aims = [(Class::Out, own.out.aim), (Class::In, own.incoming.aim)];
        for (class, _) in aims.into_iter().filter(|(_, aim)| *aim == Aim::Work) {
            for (work, missing) in self.missing(now, persona, class) {
                for no in self.spares_for(now, persona, class, work).into_iter().take(missing) {
                    if let Some(owned) = self.paths.get_mut(&no).and_then(Path::owned_mut) {
                        owned.work = work;
                        self.look_at = 0;
                        self.ready.works(no, identity, work);
                        self.out.push_back(Output::PathWorks { path: no, identity, work });
                        self.note(now, Note::PathWorks(work));
                    }
                }
            }
        }
    }

    fn spares_kept(&self, class: Class) -> usize {
        match class {
            Class::Out => SPARES,
            Class::In => SPARES.max(self.settings.entry_paths),
        }
    }

    /// More spares than are kept: the oldest goes, some time later.
    pub(super) fn thin_spares(&mut self, now: u64, persona: Persona, class: Class) {
        let spares = self.spares(persona, class);
        for no in &spares[..spares.len().saturating_sub(self.spares_kept(class))] {
            self.let_go(now, *no);
        }
    }

    /// Work passes from paths that are about to end to spares; spares that have grown old go.
    pub(super) fn relieve(&mut self, now: u64) {
        let old = |owned: &Owned| owned.work == Work::Spare && now >= owned.retires;
        let over: Vec<_> =
            self.paths.iter().filter(|(_, path)| path.owned().is_some_and(old)).map(|(no, _)| *no).collect();
        for no in over {
            self.let_go(now, no);
        }
        let all: Vec<_> = self.personas.keys().copied().collect();
        for persona in all {
            self.put_to_work(now, persona);
        }
        self.retire(now);
        self.expect_no_more(now);
    }

    /// Paths whose time at work is over take nothing new, once another does their work: who kills builds must not silence an
    /// identity sooner than its paths end. Entries go on, since records name them.
    // protocol: K11
    fn retire(&mut self, now: u64) {
        let over = |(no, path): (&PathNo, &Path)| {
            let owned = path.owned().filter(|owned| now >= owned.retires)?;
            matches!(owned.work, Work::Connect | Work::Ask | Work::AskAgain).then_some((*no, owned.persona, owned.work))
        };
        for (path, persona, work) in self.paths.iter().filter_map(over).collect::<Vec<_>>() {
            if self.at_work(now, persona, work) > 0 && self.ready.retire(path) {
                self.out.push_back(Output::PathRetired { path });
            }
        }
    }

    /// A build that began at `since` failed, at once or as a path that never carried a tunnel.
    pub(super) fn build_failed(&mut self, now: u64, since: u64, persona: Persona, class: Class) {
        let Some(own) = self.personas.get_mut(&persona) else { return };
        self.failures = self.failures.saturating_add(1);
        let stock = own.stock(class);
        // Of several that were under way together, as where one node dies, the first alone says that waiting did not help.
        if since < stock.failed && stock.failed <= now {
            return;
        }
        stock.failed = now;
        stock.wait = (stock.wait * 2).clamp(BACKOFF.0, BACKOFF.1);
        // As random as the first: a build that follows a failure at a fixed distance tells whose it was.
        stock.urgent = Some(now + stock.wait / 2 + self.rng.random_range(0..=stock.wait));
    }

    /// When the next build may begin, as far as that is drawn already.
    pub(super) fn next_build(&self) -> Option<u64> {
        self.next_builds().min()
    }

    pub(super) fn next_builds(&self) -> impl Iterator<Item = u64> {
        let stocks =
            self.personas.values().flat_map(|own| [&own.out, &own.incoming]).filter(|stock| stock.aim != Aim::Nothing);
        stocks.flat_map(|stock| [Some(stock.tick), stock.urgent]).flatten()
    }

    pub(super) fn build_worked(&mut self, persona: Persona, class: Class) {
        self.failures = 0;
        if let Some(own) = self.personas.get_mut(&persona) {
            own.stock(class).wait = 0;
        }
    }

    /// An own path ended; one that never carried a tunnel counts as a failed build.
    pub(super) fn path_ended(&mut self, now: u64, since: u64, owned: &Owned, how: How) {
        self.choice.went(now / 1000, &owned.case, how);
        if how == How::Failed {
            self.build_failed(now, since, owned.persona, owned.class);
        }
        self.put_to_work(now, owned.persona);
    }
}
