//! The local socket's server: what hook, launcher and command line ask, and what they are told.
//!
//! One Unix socket, two dialects told apart by the first byte (see `phantom_ipc`). This level does the talking, the
//! bounds and the life of open identities; the node behind it is a [`Daemon`].

mod admin;
mod hook;
mod kept;
mod people;
mod spaces;
#[cfg(unix)]
#[cfg(test)]
pub(crate) mod tests;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::admin::{
    Bundle, Commands, Connection as ConnectionInfo, Doctor, Failure, Forward, Lookup, Path, Peer, Status,
};
use phantom_ipc::hook::Note;
use phantom_ipc::publish::Ports;
use phantom_ipc::{Dialect, errno};
use phantom_proto::ident::ApAddress;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

pub use crate::os::Owner;
pub use here::{Beside, Connection, Descriptor, Kind, Listener};
use kept::KeptConversation;
pub use kept::{KeptPrograms, Left};
pub use phantom_ipc::hook::IdentityRef;
pub use spaces::{GRACE, Hold, MAX_OPEN, MAX_OPEN_BY_ALL_OTHERS, MAX_OPEN_BY_OTHERS, Open, Spaces, Which};
#[cfg(unix)]
pub use unix::{BURY_ARGUMENT, MAX_DESCRIPTORS, RECEIVE_ARGUMENT, bury_the_last, end_last, take_in};
#[cfg(unix)]
pub(crate) use unix::{adopt, bury_unknown};

use crate::datadir::DataError;
use crate::far::Unanswered;
use crate::identity::{ApIdentity, Identities, Whose};
use crate::names::Names;
use here::ProgramSockets;

/// Programs at the socket at one time: every phantom-run and every process with libphantom may keep one connection.
pub const MAX_CONNECTIONS: usize = 4096;

/// Programs of one user at the socket, other than the daemon's own user and root: nobody can keep the others out.
pub const MAX_CONNECTIONS_OF_OTHERS: usize = MAX_CONNECTIONS / 8;

/// Programs of all such users together, for the same reason as [`MAX_OPEN_BY_ALL_OTHERS`].
pub const MAX_CONNECTIONS_OF_ALL_OTHERS: usize = MAX_CONNECTIONS / 4 * 3;

/// How long a program may take from the first byte of a request to its last, and to take an answer. Local and small:
/// only a stopped or hostile program needs longer.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long the node may think about an answer. Look-ups go over paths; opening an identity makes devices.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);

/// How long conversations of the process before may take until they have what they had, before others are served.
const GO_ON_TIME: Duration = Duration::from_secs(5);

/// How long conversations may take to be left: each is told at once, and has nothing to wait for but its turn.
const LEAVING_TIME: Duration = Duration::from_secs(5);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the socket cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers there.
    #[error("another phantomd listens on {0}\n  stop it with `phantom stop`, or give this one its own --socket")]
    InUse(PathBuf),
    /// Its folder.
    #[error("{0}\n  give another path with --socket (and tell it to the others by PHANTOM_SOCKET)")]
    Folder(#[from] DataError),
    /// The system refused.
    #[error("cannot offer the socket {0}: {1}\n  give another path with --socket")]
    Io(PathBuf, io::Error),
}

/// What a program has as long as its connection: gone when dropped.
pub type Lasting = Box<dyn Send>;

/// The node, as the local socket sees it.
#[async_trait]
pub trait Daemon: Send + Sync + 'static {
    /// How it is; what is published, others know.
    async fn status(&self) -> Status;
    /// What is as it should be, and what is not.
    async fn doctor(&self) -> Doctor;
    /// How what is published is seen from outside, in words.
    async fn seen_from_outside(&self) -> BTreeMap<ApAddress, String>;
    /// Its own routing paths.
    async fn paths(&self) -> Vec<Path>;
    /// The nodes that it knows.
    async fn peers(&self) -> Vec<Peer>;
    /// Some of the nodes that it would name to anybody, signed.
    async fn export_peers(&self) -> String;
    /// Joins through nodes of a bundle, by its text.
    ///
    /// # Errors
    /// When it is damaged, or the disk does not take it.
    async fn import_peers(&self, text: &str) -> Result<Bundle, Failure>;
    /// Connections of programs and their way.
    async fn connections(&self) -> Vec<ConnectionInfo>;
    /// What the network database holds about an address.
    async fn lookup(&self, address: ApAddress) -> Result<Lookup, Failure>;
    /// Takes a maintainers' command, by the text of its file.
    ///
    /// # Errors
    /// Why it is not taken.
    async fn command(&self, text: &str) -> Result<(), Failure>;
    /// Maintainers' commands, and what they do here.
    async fn commands(&self) -> Commands;
    /// The operator's word for a command that waits for it.
    ///
    /// # Errors
    /// When none of that serial does.
    async fn allow_command(&self, serial: u64) -> Result<(), Failure>;
    /// A persistent identity was made, or has another name; it is on disk already.
    async fn created(&self, identity: Arc<ApIdentity>);
    /// A persistent identity is gone, from disk as well.
    async fn removed(&self, address: ApAddress);
    /// Whether a program, or a service that is offered, uses this identity.
    async fn uses(&self, address: ApAddress) -> bool;
    /// Offers a service of this computer at an identity, until the process ends or, with `keep`, until it is taken back.
    ///
    /// # Errors
    /// When it is none of this computer's alone, or others have that port there.
    async fn forward(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal>;
    /// What is offered so.
    async fn forwards(&self) -> Vec<Forward>;
    /// Takes it back, at that identity or, where there is only one, at whichever offers it; as it was.
    ///
    /// # Errors
    /// When there is none or it is not clear which, or it cannot be forgotten for good.
    async fn unforward(&self, port: u16, at: Option<ApAddress>) -> Result<Forward, Refusal>;
    /// A program wants to be `identity`: makes its phantom namespace, which `owner` may enter, and begins to keep paths for
    /// it. Not called again for the same identity before the [`Space`] was closed.
    async fn open(&self, identity: Arc<ApIdentity>, owner: Owner) -> Result<Arc<dyn Space>, Refusal>;
    /// Goes on with the phantom namespace of a process before, as its [`Space::leave`] left it.
    ///
    /// # Errors
    /// When it is not whole, or has ended meanwhile.
    async fn go_on(&self, _identity: Arc<ApIdentity>, _owner: Owner, _left: Left) -> Result<Arc<dyn Space>, Refusal> {
        Err(Refusal {
            errno: errno::EOPNOTSUPP,
            message: "nothing outlives a daemon here".into(),
            hint: "start the programs anew".into(),
        })
    }
    /// Ends all connections of programs without a word to their other ends: another process goes on with them. Before their spaces are left.
    async fn leave_sessions(&self) -> Left {
        Left { state: Vec::new(), descriptors: Vec::new() }
    }
    /// Those of the process before are to come: nobody who asks for one is told that it is lost.
    fn expect_sessions(&self) {}
    /// Goes on with them; their spaces are open again.
    async fn go_on_with_sessions(&self, _left: Left) {}
    /// The process ends: says good-bye. All spaces were closed before.
    async fn stop(&self);
}

/// The phantom namespace of an open identity (the gate's part of it).
#[async_trait]
pub trait Space: Send + Sync + 'static {
    /// The network namespace, and the user namespace that owns it if one had to be made; descriptors of their own. It is the one
    /// that its programs have from a daemon `before`, if they have one.
    ///
    /// # Errors
    /// EOPNOTSUPP when there can be none here; EBUSY when it is another than they have, EPERM or EINVAL when that is none for them;
    /// whatever, when no descriptors are left.
    async fn namespaces(&self, before: Option<Beside>) -> Result<(Descriptor, Option<Descriptor>), Refusal>;
    /// A call on an emulated socket, `beside` being the descriptor that came with it; the reply, and a descriptor for it.
    ///
    /// # Errors
    /// The errno for the program.
    async fn emulated(
        &self,
        socket: u64,
        call: &phantom_ipc::hook::Call,
        beside: Option<Beside>,
    ) -> Result<(phantom_ipc::hook::Reply, Option<Descriptor>), i32>;
    /// A call on a socket that stays the program's own; the reply, and what lasts as long as the program's connection.
    ///
    /// # Errors
    /// The errno for the program.
    async fn loopback(
        &self,
        call: &phantom_ipc::hook::Loopback,
    ) -> Result<(phantom_ipc::hook::Reply, Option<Lasting>), i32>;
    /// A socket there, as socket(2) would make it; an emulated one where there can be no phantom namespace.
    ///
    /// # Errors
    /// What socket(2) says there.
    async fn socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<Descriptor>;
    /// A line of a process's own to who makes such sockets, emulated ones if it says so; it ends with the space.
    ///
    /// # Errors
    /// When there are enough.
    async fn line(&self, emulated: bool) -> io::Result<Descriptor>;
    /// The identity's own address in the IPv4 view.
    fn ipv4(&self) -> Ipv4Addr;
    /// The IPv4 address that stands for `address` here.
    fn alias_of(&self, address: ApAddress) -> Ipv4Addr;
    /// The address that an IPv4 address stands for here.
    fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress>;
    /// The name of an address, if its programs may know it: from the configuration, or because they named it themselves.
    fn name_of(&self, address: ApAddress) -> Option<String>;
    /// The address behind a name, if it has one; asked from the identity's own path where others must be asked.
    ///
    /// # Errors
    /// When they do not answer.
    async fn resolve(&self, name: &str) -> Result<Option<ApAddress>, Unanswered>;
    /// Makes ports of the programs reachable at an identity, theirs or another, until as many calls of `unpublish`; with
    /// `stays` until [`Space::close`], however often it is called. Nothing else is reachable.
    ///
    /// # Errors
    /// When others have that port there, or too many stay.
    async fn publish(&self, ports: Ports, at: &ApIdentity, stays: bool) -> Result<(), Refusal>;
    /// Takes one `publish` back, not one that stays.
    async fn unpublish(&self, ports: Ports, at: ApAddress);
    /// Where others reach the programs: at which identity, on which port.
    async fn published(&self) -> Vec<(ApAddress, u16)>;
    /// What the person who started the programs should know, from now on.
    fn notes(&self) -> broadcast::Receiver<Note>;
    /// Whether a program still has a listening or connected socket here.
    async fn in_use(&self) -> bool;
    /// Whether it serves nobody any more: to be closed, and opened anew for whoever comes.
    fn is_broken(&self) -> bool;
    /// Returns once that is so of what programs are in.
    async fn breaks(&self) {
        std::future::pending().await
    }
    /// What another process needs to go on with it; from now on it serves nobody. `None`: it cannot outlive this one.
    async fn leave(&self) -> Option<Left> {
        None
    }
    /// Ends it: sockets are aborted, paths are given up.
    async fn close(&self);
}

/// Where a service listens that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// On the loopback device.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why a program does not get what it asked for: an errno for it, a sentence and advice for people. Neither address nor
/// name stands in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// As Linux counts.
    pub errno: i32,
    /// What went wrong, without a full stop.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Joins the node with what the socket's programs may ask.
pub struct Control {
    daemon: Arc<dyn Daemon>,
    identities: Arc<Identities>,
    names: Arc<Names>,
    spaces: Arc<Spaces>,
    /// Tokens that stand for named identities, whose they are beside; each as long as a connection.
    lent: Mutex<HashMap<[u8; 16], (Which, Owner)>>,
    program_sockets: ProgramSockets,
    /// Held while an identity is sealed or opened, which takes much memory.
    sealing: tokio::sync::Mutex<()>,
    /// Who waits for that: of one user one request at a time does, or they could have everybody wait.
    sealing_for: Mutex<BTreeSet<Whose>>,
    /// Who came by them; taken by the one who serves.
    from_programs: Mutex<Option<mpsc::Receiver<Connection>>>,
    stop: Notify,
    restart: Notify,
    /// Of this process, for the next.
    left: Mutex<Vec<KeptConversation>>,
    /// Of the process before, until they are served.
    continued: Mutex<Vec<hook::Continued>>,
    /// Turns true when the process hands over to the next.
    leaving_tx: watch::Sender<bool>,
}

impl Control {
    /// With nothing open.
    pub fn new(daemon: Arc<dyn Daemon>, identities: Arc<Identities>, names: Arc<Names>) -> Arc<Self> {
        let spaces = Spaces::new(Arc::clone(&daemon), Arc::clone(&identities));
        let (program_sockets, from_programs) = ProgramSockets::new();
        let (lent, from_programs) = (Mutex::default(), Mutex::new(Some(from_programs)));
        let (sealing, sealing_for, stop) = (tokio::sync::Mutex::default(), Mutex::default(), Notify::new());
        let leaving_tx = watch::Sender::new(false);
        Arc::new(Self {
            daemon,
            identities,
            names,
            spaces,
            lent,
            program_sockets,
            sealing,
            sealing_for,
            from_programs,
            stop,
            restart: Notify::new(),
            left: Mutex::default(),
            continued: Mutex::default(),
            leaving_tx,
        })
    }

    /// The open identities.
    pub fn spaces(&self) -> &Arc<Spaces> {
        &self.spaces
    }

    /// What the next process goes on with, once nobody is served any more.
    pub async fn leave(&self) -> KeptPrograms {
        let spaces = self.spaces.leave().await;
        let mut conversations = std::mem::take(&mut *lock(&self.left));
        conversations.retain(|conversation| conversation.fits(&spaces));
        KeptPrograms { spaces, conversations }
    }

    /// And with those programs of theirs that came meanwhile.
    pub fn leave_late(&self, kept: &mut KeptPrograms) {
        let Some(mut from_programs) = lock(&self.from_programs).take() else { return };
        while let Ok(connection) = from_programs.try_recv() {
            let late = hook::leave_unbegun(connection, self).filter(|late| late.fits(&kept.spaces));
            kept.conversations.extend(late);
        }
    }

    /// Goes on with what the process before has left, before anybody is served.
    pub async fn go_on(self: &Arc<Self>, kept: KeptPrograms) {
        for space in kept.spaces {
            self.spaces.go_on(space).await;
        }
        let (done_tx, mut done_rx) = mpsc::channel(1);
        for conversation in kept.conversations {
            match hook::go_on(conversation, self, done_tx.clone()) {
                Ok(continued) => lock(&self.continued).push(continued),
                // Its program takes it up anew, as when a daemon was lost.
                Err(error) => tracing::debug!("a program of the process before was left: {error}"),
            }
        }
        drop(done_tx);
        // Sessions go on at identities that somebody has again; who has asked for so much that it takes longer loses those, and nobody else.
        let _ = timeout(GO_ON_TIME, done_rx.recv()).await;
    }

    /// Has [`serve`] end, for the process to be started anew.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Closes every open identity: the daemon ends.
    pub async fn close(&self) {
        self.spaces.close_all().await;
        self.program_sockets.end().await;
    }
}

/// Serves programs until one asks to stop; connections end when this returns or is dropped.
pub async fn serve(listener: Listener, control: Arc<Control>) -> Served {
    serve_at_most(MAX_CONNECTIONS, listener, control).await
}

async fn serve_at_most(most: usize, mut listener: Listener, control: Arc<Control>) -> Served {
    let mut tasks = JoinSet::new();
    // Who the programs of other users are, to give each user a share only.
    let mut others: HashMap<tokio::task::Id, u32> = HashMap::new();
    let spaces = Arc::clone(&control.spaces);
    let from_programs = control.from_programs.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut from_programs) = from_programs else { return Served::Stops };
    let reaper = async move { spaces.keep_tidy().await };
    tokio::pin!(reaper);
    // Dropped before the conversations, which have such sockets.
    let ending = control.program_sockets.ending();
    for continued in std::mem::take(&mut *lock(&control.continued)) {
        let (uid, control) = (continued.user_of_share(), Arc::clone(&control));
        let task = tasks.spawn(continued.converse(control));
        others.extend(uid.map(|uid| (task.id(), uid)));
    }
    loop {
        tokio::select! {
            accepted = next(&mut listener, &mut from_programs) => match accepted {
                Ok(connection) if tasks.len() < most => {
                    let uid = Some(connection.peer().uid).filter(|_| !connection.may_administer());
                    if uid.is_some_and(|uid| is_crowded(&others, uid, most)) {
                        // Not worth a line each: who writes the log full is no better off.
                        tracing::debug!("a user has too many programs at the local socket; one more was refused");
                        continue;
                    }
                    let task = tasks.spawn(converse(connection, Arc::clone(&control)));
                    others.extend(uid.map(|uid| (task.id(), uid)));
                }
                Ok(_) => tracing::debug!("{most} programs are at the local socket; one more was refused"),
                Err(error) => {
                    tracing::warn!("the local socket takes nobody: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = tasks.join_next_with_id() => {
                others.remove(&ended.map_or_else(|error| error.id(), |(id, _)| id));
            }
            () = &mut reaper => {}
            () = control.stop.notified() => return Served::Stops,
            () = control.restart.notified() => break,
        }
    }
    drop(ending);
    control.leaving_tx.send_replace(true);
    let came = listener.leave().into_iter();
    let mut left: Vec<_> = came.filter_map(|connection| hook::leave_unbegun(connection, &control)).collect();
    let gathered = async {
        while let Some(ended) = tasks.join_next().await {
            left.extend(ended.ok().flatten());
        }
    };
    let _ = timeout(LEAVING_TIME, gathered).await;
    *lock(&control.left) = left;
    *lock(&control.from_programs) = Some(from_programs);
    Served::Restarts
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why nobody is served any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The daemon stops.
    Stops,
    /// It is to be started anew in place.
    Restarts,
}

/// The next program, by whichever way it comes.
async fn next(listener: &mut Listener, from_programs: &mut mpsc::Receiver<Connection>) -> io::Result<Connection> {
    tokio::select! {
        accepted = listener.accept() => accepted,
        Some(connection) = from_programs.recv() => Ok(connection),
    }
}

/// Whether one more program of this user, who is neither root nor the daemon's own, is one too many.
fn is_crowded(others: &HashMap<tokio::task::Id, u32>, uid: u32, most: usize) -> bool {
    let own = others.values().filter(|other| **other == uid).count();
    own >= MAX_CONNECTIONS_OF_OTHERS || others.len() >= MAX_CONNECTIONS_OF_ALL_OTHERS.min(most)
}

/// One connection from its first byte to its end. Whatever goes wrong concerns only this program.
async fn converse(mut connection: Connection, control: Arc<Control>) -> Option<KeptConversation> {
    let mut leaving_rx = control.leaving_tx.subscribe();
    let first = tokio::select! {
        biased;
        Ok(_) = leaving_rx.wait_for(|leaving| *leaving) => return hook::leave_unbegun(connection, &control),
        first = timeout(REQUEST_TIME, connection.peek()) => first,
    };
    let Ok(Ok(Some(first))) = first else { return None };
    let ended = match Dialect::of(first)? {
        Dialect::Admin if connection.only().is_some() => return None,
        Dialect::Admin => admin::converse(connection, &control).await.map(|()| None),
        Dialect::Hook => hook::converse(connection, &control).await,
    };
    ended.unwrap_or_else(|error| {
        tracing::debug!("a program at the local socket was left: {error}");
        None
    })
}

/// Bounds one step of a conversation.
async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(REQUEST_TIME, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
