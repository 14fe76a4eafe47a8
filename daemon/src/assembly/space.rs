//! One open identity: what its programs reach, and what reaches them.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::errno;
use phantom_ipc::hook::{About, Call, Loopback, Note, Reply};
use phantom_ipc::publish::{MAX_PORTS, Ports};
use phantom_proto::ident::ApAddress;
use tokio::sync::{Mutex, OnceCell, broadcast};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::aliases::OWN_IPV4;
use crate::connections::{Network, Programs, Steps};
#[cfg(unix)]
use crate::control::Left;
use crate::control::{Beside, Descriptor, Lasting, Refusal, Space};
use crate::far::{self, ConnectError, Found, Network as _, Stream, Unanswered};
use crate::identity::ApIdentity;
use crate::names::{self, Names};
use crate::os::Owner;
use crate::resolver::{Dial, Resolver, ThisComputer};
use crate::startup::Setup;

use super::arrivals::{Arrivals, Taken};
use super::explain::{Explains, LONG, Trouble};
#[cfg(unix)]
use super::handover::SpaceLeft;
use super::published::{Own, Published, TooMany};
use super::sockets::Sockets;
use super::unpublished::{self, Listening, Look};
use super::visit::Visits;

/// How often a listener with a full queue is looked at: sooner than a kernel would repeat its SYN.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// Notes that wait for who follows: who is slower than this misses some.
const NOTES: usize = 32;

/// An identity's use of the network. A fresh one begins with the first sign that its programs want one: most programs
/// that a shell starts never do, and paths for them would be a burden on everybody. Nobody waits longer for that, as long
/// as there are spare paths, which an identity takes as they are.
struct Use {
    arrivals: Arc<Arrivals>,
    identity: Arc<ApIdentity>,
    programs: Arc<dyn Programs>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unused,
    Begun,
    Over,
}

impl Use {
    fn address(&self) -> ApAddress {
        self.identity.address()
    }

    fn network(&self) -> &Network {
        self.arrivals.network()
    }

    async fn begin(&self) {
        let mut stage = self.stage.lock().await;
        if *stage == Stage::Unused {
            self.arrivals.enter(&self.identity, self.programs.clone()).await;
            *stage = Stage::Begun;
        }
    }

    async fn end(&self) {
        let mut stage = self.stage.lock().await;
        if std::mem::replace(&mut *stage, Stage::Over) == Stage::Begun {
            self.arrivals.leave(self.address()).await;
        }
    }
}

/// What the gate needs of the network, for one identity.
struct Outside {
    usage: Arc<Use>,
    /// This identity's own, too.
    names: Names,
    /// Who is asked for names of the ordinary DNS; this identity's own.
    resolver: Option<Resolver>,
    /// For whoever started the run.
    notes: broadcast::Sender<Note>,
    explains: Explains,
}

impl Outside {
    /// Says what did not work, if anybody wants to know.
    async fn explain(&self, trouble: Trouble) {
        if self.notes.receiver_count() == 0 {
            return;
        }
        let Some(left_out) = self.explains.is_due(&trouble, Instant::now()) else { return };
        let waits_for = match trouble {
            Trouble::Connect { .. } | Trouble::Waits { .. } => {
                self.usage.network().handle().snapshot().await.and_then(|now| now.waiting_for)
            }
            _ => None,
        };
        let more = if left_out > 0 { format!(" ({left_out} others were left out)") } else { String::new() };
        let line = format!("{}{more}", trouble.line(waits_for.as_deref()));
        // Whoever followed may be gone.
        let _ = self.notes.send(Note::new(About::Hint, &line));
    }

    /// Says what a connection waits for when it waits long: its program says nothing meanwhile.
    async fn explain_waiting(&self, steps: &Steps) -> Infallible {
        sleep(LONG).await;
        self.explain(Trouble::Waits { step: steps.now() }).await;
        pending().await
    }

    async fn known(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        if let Some(address) = self.names.resolve(name) {
            // Who asks for an address is about to connect to it.
            self.usage.begin().await;
            return Ok(Some(Found { address, lifetime: OWN_LIFETIME }));
        }
        match &self.resolver {
            Some(resolver) => resolver.resolve(name).await,
            None => Ok(None),
        }
    }
}

/// How long a name of ours holds, in seconds: until the configuration changes, and the daemon is started again then.
const OWN_LIFETIME: u32 = 60;

/// Ports from which the resolver sees questions come, as from any program.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The way to the resolver, from one identity.
struct ToResolver {
    usage: Arc<Use>,
    to: names::Resolver,
}

#[async_trait]
impl Dial for ToResolver {
    async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let source_port = rand::random_range(SOURCE_PORTS);
        self.usage.begin().await;
        let (from, to) = (self.usage.address(), self.to.target.address());
        self.usage.network().connect(from, source_port, to, self.to.port).await
    }
}

#[async_trait]
impl far::Network for Outside {
    async fn connect(
        &self,
        from: ApAddress,
        source_port: u16,
        destination: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        self.usage.begin().await;
        let steps = Steps::default();
        let network = self.usage.network();
        let connected = tokio::select! {
            connected = network.connect_by(from, source_port, destination, port, &steps) => connected,
            never = self.explain_waiting(&steps) => match never {},
        };
        if let Err(error) = &connected {
            let to = self.names.name_of(destination).unwrap_or_else(|| destination.ipv6().to_string());
            self.explain(Trouble::Connect { to, port, step: steps.now(), cause: (*error).into() }).await;
        }
        connected
    }

    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        let found = self.known(name).await;
        match &found {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some(trouble) = Trouble::no_such_name(name, self.resolver.is_some()) {
                    self.explain(trouble).await;
                }
            }
            Err(Unanswered) => self.explain(Trouble::no_answer(name)).await,
        }
        found
    }

    async fn refused(&self, address: IpAddr) {
        self.explain(Trouble::Outside { address }).await;
    }

    async fn name_of(&self, address: ApAddress) -> Option<String> {
        self.names.name_of(address)
    }
}

/// The programs of an identity. Empty until it is open, and after it.
#[derive(Default)]
struct Inside(OnceCell<Weak<NodeSpace>>);

impl Inside {
    fn space(&self) -> Option<Arc<NodeSpace>> {
        self.0.get()?.upgrade()
    }
}

#[async_trait]
impl Programs for Inside {
    async fn listens(&self, port: u16) -> bool {
        while let Some(space) = self.space() {
            if let Some(listens) = space.sockets.listens(port).await {
                return listens;
            }
            drop(space);
            sleep(ROOM_EVERY).await;
        }
        false
    }

    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>) {
        let listener = self.space().and_then(|space| space.sockets.listener(port));
        if let Some(listener) = listener {
            listener.serve(peer, src_port, port, far).await;
        }
    }
}

/// See [`Space`].
struct NodeSpace {
    usage: Arc<Use>,
    outside: Arc<Outside>,
    inside: Arc<dyn Programs>,
    published: Arc<Published>,
    sockets: Sockets,
    /// For whoever started the run.
    notes: broadcast::Sender<Note>,
    visits: Visits,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// Opens an identity, and begins to keep paths for it if it has a name.
pub(super) async fn open(
    setup: &Setup,
    arrivals: &Arc<Arrivals>,
    identity: Arc<ApIdentity>,
    owner: Owner,
) -> Result<Arc<dyn Space>, Refusal> {
    Ok(make(setup, arrivals, identity, owner).await)
}

/// Goes on with one of the process before.
#[cfg(unix)]
pub(super) async fn go_on(
    setup: &Setup,
    arrivals: &Arc<Arrivals>,
    identity: Arc<ApIdentity>,
    owner: Owner,
    left: Left,
) -> Result<Arc<dyn Space>, Refusal> {
    let SpaceLeft { is_used, staying, serials, gate } = SpaceLeft::read(left)?;
    if identity.name.is_none() {
        arrivals.network().handle().follow_serials(identity.address(), serials).await;
    }
    let space = make(setup, arrivals, identity.clone(), owner).await;
    if let Some(gate) = gate {
        space.sockets.go_on(gate)?;
    }
    if is_used {
        space.usage.begin().await;
    }
    for (at, ports) in staying {
        let named = || setup.identities.all().into_iter().find(|one| one.address() == at);
        let Some(at) = Some(identity.clone()).filter(|own| own.address() == at).or_else(named) else { continue };
        if let Err(refusal) = space.publish(ports, &at, true).await {
            tracing::warn!("a port that was published is not any more: {refusal}");
        }
    }
    Ok(space)
}

async fn make(setup: &Setup, arrivals: &Arc<Arrivals>, identity: Arc<ApIdentity>, owner: Owner) -> Arc<NodeSpace> {
    let address = identity.address();
    let programs = Arc::new(Inside::default());
    let inside: Arc<dyn Programs> = programs.clone();
    let published = Arc::new(Published::default());
    let own = Arc::new(Own { address, inside: inside.clone(), published: published.clone() });
    let (name, is_named) = (identity.phantom_name(), identity.name.is_some());
    let usage = Arc::new(Use { arrivals: arrivals.clone(), identity, programs: own, stage: Mutex::new(Stage::Unused) });
    if is_named {
        // The exit path is on its way while the namespace is made.
        usage.begin().await;
    }
    let notes = broadcast::Sender::new(NOTES);
    let outside = Arc::new(outside(setup, &usage, notes.clone()));
    outside.names.remember(name);
    let hurry = setup.config.paths.hurry;
    let space = Arc::new(NodeSpace {
        sockets: Sockets::new(address, owner, outside.clone()),
        watch: Mutex::default(),
        visits: Visits::new(arrivals.clone(), inside.clone(), published.clone(), notes.clone(), hurry),
        notes: notes.clone(),
        usage,
        published,
        outside,
        inside,
    });
    // Set once, here.
    let _ = programs.0.set(Arc::downgrade(&space));
    let watch = async move { unpublished::tell(&*programs, &notes).await };
    *space.watch.lock().await = Some(tokio::spawn(watch));
    space
}

fn outside(setup: &Setup, usage: &Arc<Use>, notes: broadcast::Sender<Note>) -> Outside {
    let dial = |to| ToResolver { usage: usage.clone(), to };
    let resolver = setup.config.resolver.map(|to| Resolver::new(dial(to), ThisComputer::now()));
    let own = usage.identity.name.clone().map(|name| (name, usage.address()));
    let (usage, names) = (usage.clone(), setup.names.afresh_for(own));
    Outside { usage, names, resolver, notes, explains: Explains::default() }
}

#[async_trait]
impl Listening for Inside {
    async fn look(&self) -> Option<Look> {
        let space = self.space()?;
        let (listening, on_loopback) = (space.sockets.listening_ports().await, space.sockets.loopback_ports().await);
        Some(Look::of(&space.published, listening.into_iter().collect(), on_loopback.into_iter().collect()))
    }
}

#[async_trait]
impl Space for NodeSpace {
    async fn namespaces(&self, before: Option<Beside>) -> Result<(Descriptor, Option<Descriptor>), Refusal> {
        self.sockets.namespaces(before).await
    }

    async fn emulated(
        &self,
        socket: u64,
        call: &Call,
        beside: Option<Beside>,
    ) -> Result<(Reply, Option<Descriptor>), i32> {
        self.sockets.emulated(socket, call, beside).await
    }

    async fn loopback(&self, call: &Loopback) -> Result<(Reply, Option<Lasting>), i32> {
        self.sockets.loopback(call).await
    }

    async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<Descriptor> {
        self.sockets.socket(domain, kind, protocol).await
    }

    async fn line(&self, emulated: bool) -> io::Result<Descriptor> {
        self.sockets.line(emulated).await
    }

    fn ipv4(&self) -> Ipv4Addr {
        OWN_IPV4
    }

    fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.sockets.alias_of(address)
    }

    fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.sockets.behind_alias(alias)
    }

    async fn resolve(&self, name: &str) -> Result<Option<ApAddress>, Unanswered> {
        Ok(self.outside.resolve(name).await?.map(|found| found.address))
    }

    fn name_of(&self, address: ApAddress) -> Option<String> {
        self.outside.names.name_of(address)
    }

    async fn publish(&self, ports: Ports, at: &ApIdentity, stays: bool) -> Result<(), Refusal> {
        let address = at.address();
        // Before the first connection can arrive.
        if !stays {
            self.published.add(address, ports);
        } else if !self.published.keep(address, ports).map_err(|TooMany| too_many())? {
            return Ok(());
        }
        if address == self.usage.address() {
            self.usage.begin().await;
            self.usage.network().publish(address).await;
        } else if let Err(Taken) = self.usage.arrivals.publish(at, ports, self.usage.address(), &self.inside).await {
            self.published.remove(address, ports, stays);
            return Err(taken(ports));
        }
        self.visits.begin(at);
        Ok(())
    }

    async fn unpublish(&self, ports: Ports, at: ApAddress) {
        if at != self.usage.address() {
            self.usage.arrivals.unpublish(at, ports, self.usage.address()).await;
        }
        self.published.remove(at, ports, false);
        if !self.published.all().iter().any(|(address, _)| *address == at) {
            self.visits.end(Some(at));
        }
    }

    async fn published(&self) -> Vec<(ApAddress, u16)> {
        let mut reached = Vec::new();
        for (at, ports) in self.published.all() {
            match ports {
                Ports::One(port) => reached.push((at, port)),
                Ports::All => reached.extend(self.sockets.listening_ports().await.into_iter().map(|port| (at, port))),
            }
        }
        reached
    }

    fn notes(&self) -> broadcast::Receiver<Note> {
        let notes = self.notes.subscribe();
        // After a start anew nobody listens when the space is made again.
        self.visits.look_for_those_who_listen();
        notes
    }

    async fn in_use(&self) -> bool {
        self.sockets.in_use().await
            || self
                .usage
                .network()
                .connections()
                .iter()
                .any(|(_, one)| one.open && one.identity == self.usage.address())
    }

    fn is_broken(&self) -> bool {
        self.sockets.is_broken()
    }

    async fn breaks(&self) {
        self.sockets.breaks().await;
    }

    #[cfg(unix)]
    async fn leave(&self) -> Option<Left> {
        let gate = self.sockets.leave().await.ok()?;
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        let is_used = *self.usage.stage.lock().await == Stage::Begun;
        let serials = self.usage.network().handle().serials(self.usage.address()).await;
        SpaceLeft { is_used, staying: self.published.staying(), serials, gate }.write()
    }

    async fn close(&self) {
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        self.visits.end(None);
        for (at, ports) in self.published.staying() {
            self.usage.arrivals.unpublish(at, ports, self.usage.address()).await;
        }
        self.usage.end().await;
        self.sockets.cut();
    }
}

fn taken(ports: Ports) -> Refusal {
    Refusal {
        errno: errno::EADDRINUSE,
        message: format!("another program is reached on {ports} of that identity already"),
        hint: "end that program, or publish another port or at another identity".into(),
    }
}

fn too_many() -> Refusal {
    Refusal {
        errno: errno::EMFILE,
        message: format!("{MAX_PORTS} ports are the most that can be published"),
        hint: "publish `all`: whatever the programs listen on".into(),
    }
}
