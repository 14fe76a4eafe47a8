//! The hook dialect's server: sockets, namespaces and names for programs, as binary frames with descriptors beside them.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use phantom_ipc::errno;
use phantom_ipc::hook::{Call, HEADER, IdentityRef, Loopback, Malformed, Note, PREAMBLE, Reply, Request, body_length};
use phantom_ipc::publish::{MAX_PORTS, Ports};
use phantom_proto::ident::ApAddress;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::here::{Grave, MAX_OF_RUN, ProgramSocket};
use super::kept::{KeptConversation, Said};
use super::{
    ANSWER_TIME, Beside, Connection, Control, Descriptor, Hold, Kind, Lasting, Open, Owner, Refusal, Space, Which,
    in_time,
};
use crate::far::{CONNECT_PATIENCE, Unanswered};
use crate::identity::{ApIdentity, IdentityError, Whose};
use crate::random::system_rng;

/// Identities that one connection may hold: phantom-run holds one.
const MAX_HOLDS: usize = 8;

/// How long a conversation with a descriptor in hand is waited for when all are left to the next process.
const IN_HAND_TIME: Duration = Duration::from_millis(500);

/// Between two looks at it.
const IN_HAND_PAUSE: Duration = Duration::from_millis(1);

/// Said to another version of ours.
const ANOTHER_RELEASE: &str =
    "the daemon is of another release: use programs of one; after an upgrade the daemon is to be started anew";

/// What lasts as long as a connection.
#[derive(Default)]
struct Session {
    holds: Vec<(Which, Hold)>,
    published: Vec<Publication>,
    lent: Vec<[u8; 16]>,
    /// By which its programs come.
    program_sockets: Vec<ProgramSocket>,
    /// A listener on loopback.
    listening: Option<Lasting>,
    /// What it follows: from then on it says nothing.
    notes: Option<broadcast::Receiver<Note>>,
    /// The requests that all of this comes from, as often as it has grown.
    said: Vec<Said>,
}

impl Session {
    /// Grows with each request whose effect lasts.
    fn size(&self) -> usize {
        let lists = [self.holds.len(), self.published.len(), self.lent.len(), self.program_sockets.len()];
        lists.iter().sum::<usize>() + usize::from(self.notes.is_some())
    }
}

/// A port of a space that is reachable at an identity.
struct Publication {
    space: Arc<dyn Space>,
    ports: Ports,
    at: ApAddress,
}

/// What a request gets: the reply, and the descriptors beside it.
type Answer = (Reply, Vec<Descriptor>);

/// Answers requests until the program closes. What it entered stays open as long.
pub(super) async fn converse(mut connection: Connection, control: &Control) -> io::Result<Option<KeptConversation>> {
    let mut leaving_rx = control.leaving_tx.subscribe();
    let preamble = tokio::select! {
        biased;
        Ok(_) = leaving_rx.wait_for(|leaving| *leaving) => return Ok(leave_unbegun(connection, control)),
        preamble = in_time(connection.take(PREAMBLE.len())) => preamble?,
    };
    if preamble != PREAMBLE {
        // Another version of ours deserves a word, anything else none.
        if preamble[..3] == PREAMBLE[..3] {
            refuse(&mut connection, ANOTHER_RELEASE).await?;
        }
        return Ok(None);
    }
    begin(connection, control, Session::default()).await
}

/// Goes on where it is: at its beginning, or where another process has left it.
async fn begin(
    mut connection: Connection,
    control: &Control,
    mut session: Session,
) -> io::Result<Option<KeptConversation>> {
    let mut leaving_rx = control.leaving_tx.subscribe();
    let in_hand = connection.in_hand();
    let left = async {
        if leaving_rx.wait_for(|leaving| *leaving).await.is_err() {
            return std::future::pending().await;
        }
        // What has a descriptor in hand cannot be left, and has it for a moment.
        let begun = Instant::now();
        while in_hand.load(Ordering::Relaxed) && begun.elapsed() < IN_HAND_TIME {
            sleep(IN_HAND_PAUSE).await;
        }
    };
    let ended = tokio::select! {
        biased;
        () = left => None,
        ended = talk(&mut connection, control, &mut session) => Some(ended),
    };
    let Some(ended) = ended else { return Ok(leave(connection, control, session, true)) };
    for Publication { space, ports, at } in session.published {
        space.unpublish(ports, at).await;
    }
    control.take_back(&session.lent);
    ended.map(|()| None)
}

/// What another process goes on with. `None`: something of it cannot outlive this one.
fn leave(connection: Connection, control: &Control, mut session: Session, is_begun: bool) -> Option<KeptConversation> {
    // Who has emulated sockets has lost them, and is to hear of it as when a daemon is lost.
    let emulates = connection.is_emulating() || session.program_sockets.iter().any(ProgramSocket::is_emulating);
    if session.listening.is_some() || emulates {
        return None;
    }
    let mut concerns: Vec<Which> = session.holds.iter().map(|(which, _)| which.clone()).collect();
    if let Some(IdentityRef::Session(token)) = connection.only() {
        let lent = control.lent.lock().unwrap_or_else(PoisonError::into_inner);
        concerns.push(lent.get(token).map_or(Which::Session(*token), |(which, _)| which.clone()));
    }
    let (peer, only, said) = (connection.peer(), connection.only().cloned(), std::mem::take(&mut session.said));
    let (socket, unread) = connection.leave()?;
    let socket = Grave::for_any(peer.uid, socket);
    Some(KeptConversation { peer, only, concerns, is_begun, said, unread, socket })
}

/// The same of one that has said nothing yet.
pub(super) fn leave_unbegun(connection: Connection, control: &Control) -> Option<KeptConversation> {
    leave(connection, control, Session::default(), false)
}

/// Goes on with a conversation of the process before. It asks again for what lasts as long as it does, in a task of its own, since whoever has
/// asked for much is to keep nobody waiting; `done` is dropped when it has that.
pub(super) fn go_on(kept: KeptConversation, control: &Arc<Control>, done: mpsc::Sender<()>) -> io::Result<Continued> {
    let KeptConversation { peer, only, is_begun, said, unread, socket, .. } = kept;
    let socket = socket.take().ok_or(io::ErrorKind::InvalidData)?;
    let connection = Connection::go_on(socket, peer, only, unread)?;
    let user_of_share = Some(connection.peer().uid).filter(|_| !connection.may_administer());
    let control = Arc::clone(control);
    let asks = async move {
        let _done = done;
        let why = match timeout(ANSWER_TIME, ask_again(said, &connection, &control)).await {
            Ok(Ok(session)) => return Some((connection, session)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it has asked for too much".to_owned(),
        };
        // It takes that up anew, as when a daemon was lost.
        tracing::debug!("a program of the process before was left: {why}");
        None
    };
    Ok(Continued { asks: AbortOnDropHandle::new(tokio::spawn(asks)), user_of_share, is_begun })
}

/// One that has all that it had, or soon.
pub(super) struct Continued {
    asks: AbortOnDropHandle<Option<(Connection, Session)>>,
    user_of_share: Option<u32>,
    is_begun: bool,
}

impl Continued {
    /// Whose share it counts to, if its user has one.
    pub(super) fn user_of_share(&self) -> Option<u32> {
        self.user_of_share
    }

    /// Until it ends, or is left again.
    pub(super) async fn converse(self, control: Arc<Control>) -> Option<KeptConversation> {
        let (connection, session) = self.asks.await.ok()??;
        if !self.is_begun {
            return super::converse(connection, control).await;
        }
        begin(connection, &control, session).await.ok().flatten()
    }
}

async fn ask_again(said: Vec<Said>, connection: &Connection, control: &Control) -> io::Result<Session> {
    let mut session = Session::default();
    for Said { body, beside } in said {
        let request = Request::decode(&body).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let beside = beside.and_then(Grave::take).map(Beside::from);
        let (reply, _) = control.serve_lasting(&request, body, beside, connection, &mut session).await;
        if let Reply::Failed { message, .. } = reply {
            return Err(io::Error::other(message));
        }
    }
    Ok(session)
}

async fn talk(connection: &mut Connection, control: &Control, session: &mut Session) -> io::Result<()> {
    loop {
        if let Some(notes) = session.notes.take() {
            return tell(connection, notes).await;
        }
        let some = tokio::select! {
            some = connection.peek() => some?,
            // Whoever started the program takes it up again, as when a daemon was lost.
            () = any_breaks(&session.holds) => {
                session.program_sockets.iter().for_each(ProgramSocket::spare);
                None
            }
        };
        if some.is_none() {
            return Ok(());
        }
        let whole = match in_time(read_frame(connection)).await? {
            Ok(whole) => whole,
            Err(malformed) => return refuse(connection, &not_understood(malformed)).await,
        };
        let body = whole[HEADER..].to_vec();
        let request = match Request::decode(&body) {
            Ok(request) => request,
            Err(malformed) => return refuse(connection, &not_understood(malformed)).await,
        };
        // A connection takes the time that the kernel would give it.
        let waits = matches!(
            request,
            Request::Emulated { call: Call::Connect { wait: true, .. }, .. }
                | Request::Loopback { call: Loopback::Connect { .. }, .. }
        );
        let patience = if waits { CONNECT_PATIENCE + ANSWER_TIME } else { ANSWER_TIME };
        let beside = connection.take_descriptor();
        // Until it is answered it is unread, for a process that takes over. What comes beside one cannot be: that one is not left.
        connection.hold(whole, beside.is_some());
        let answer = timeout(patience, control.serve_lasting(&request, body, beside, connection, session)).await;
        let (reply, descriptors) = answer.unwrap_or_else(|_| failed(&late()));
        let frame = reply.encode().map_err(io::Error::other)?;
        say(connection, &frame, descriptors).await?;
    }
}

async fn any_breaks(holds: &[(Which, Hold)]) {
    match holds {
        [] => std::future::pending().await,
        holds => drop(futures::future::select_all(holds.iter().map(|(_, hold)| Box::pin(hold.breaks()))).await),
    }
}

/// Half of an answer cannot be taken over.
async fn say(connection: &mut Connection, frame: &[u8], descriptors: Vec<Descriptor>) -> io::Result<()> {
    connection.hold(Vec::new(), true);
    in_time(connection.send_with(frame, descriptors)).await?;
    connection.release();
    Ok(())
}

/// Passes notes on until the identity is closed or the program says something, if only that it wants no more: what there
/// was to say before that is said.
async fn tell(connection: &mut Connection, mut notes: broadcast::Receiver<Note>) -> io::Result<()> {
    loop {
        let note = tokio::select! {
            biased;
            note = notes.recv() => note,
            said = connection.peek() => return said.map(drop),
        };
        match note {
            Ok(note) => {
                let frame = Reply::Note(note).encode().map_err(io::Error::other)?;
                say(connection, &frame, Vec::new()).await?;
            }
            // Whoever does not read misses some.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn read_frame(connection: &mut Connection) -> io::Result<Result<Vec<u8>, Malformed>> {
    let header = connection.take(HEADER).await?;
    connection.hold(header.clone(), false);
    let mut length = [0; HEADER];
    length.copy_from_slice(&header);
    match body_length(length) {
        Ok(length) => Ok(Ok([header, connection.take(length).await?].concat())),
        Err(malformed) => Ok(Err(malformed)),
    }
}

fn not_understood(malformed: Malformed) -> String {
    format!("the daemon does not understand what was asked ({malformed}): is it of another release?")
}

async fn refuse(connection: &mut Connection, text: &str) -> io::Result<()> {
    let frame = Reply::failed(errno::EPROTO, text).encode().map_err(io::Error::other)?;
    in_time(connection.send(&frame)).await
}

impl Control {
    /// As [`Self::serve_program`], and remembers what lasts.
    async fn serve_lasting(
        &self,
        request: &Request,
        body: Vec<u8>,
        beside: Option<Beside>,
        program: &Connection,
        session: &mut Session,
    ) -> Answer {
        let before = session.size();
        let answer = self.serve_program(request, beside, program, session).await;
        if session.size() > before {
            let beside = match request {
                Request::ProgramSocket { .. } => session.program_sockets.last().and_then(ProgramSocket::another),
                _ => None,
            };
            let beside = beside.map(|beside| Grave::for_any(program.peer().uid, beside));
            session.said.push(Said { body, beside });
        }
        answer
    }

    async fn serve_program(
        &self,
        request: &Request,
        beside: Option<Beside>,
        program: &Connection,
        session: &mut Session,
    ) -> Answer {
        // Whoever came by a socket for programs is a program of one identity, perhaps a hostile one.
        if program.only().is_some_and(|only| only != request.identity() || !request.is_of_programs()) {
            return failed(&not_for_programs());
        }
        let opened = async {
            let (which, owner) = self.meant(request.identity(), program)?;
            let open = self.spaces.open(&which, owner, &mut rng()?).await?;
            Ok((which, open))
        };
        let (which, open) = match opened.await {
            Ok(opened) => opened,
            Err(refusal) => return failed(&refusal),
        };
        let which = &which;
        if matches!(request, Request::Emulated { .. } | Request::Line { emulated: true, .. }) {
            program.emulates();
        }
        match request {
            Request::Socket { domain, kind, protocol, .. } => {
                match open.space.socket(*domain, *kind, *protocol).await {
                    Ok(descriptor) => (Reply::Descriptor, vec![descriptor]),
                    Err(error) => os_failed(&error, "the phantom namespace gives no such socket"),
                }
            }
            Request::Line { emulated, .. } => match open.space.line(*emulated).await {
                Ok(line) => (Reply::Descriptor, vec![line]),
                Err(error) => os_failed(&error, "no line is to be had"),
            },
            // Whoever knows a session may use it, as a server's worker does that gave root up; its namespaces open to its
            // user and to root only, and what outlasts the session or changes it for others is theirs.
            Request::Enter { .. } | Request::Publish { .. } | Request::Follow { .. } | Request::Lend { .. }
                if !program.may_administer() && program.peer().uid != open.owner.uid =>
            {
                failed(&not_their_session())
            }
            Request::Emulated { socket, call, .. } => match open.space.emulated(*socket, call, beside).await {
                Ok((reply, descriptor)) => (reply, descriptor.into_iter().collect()),
                Err(errno) => (Reply::failed(errno, "the emulated socket"), Vec::new()),
            },
            Request::Loopback { call: Loopback::Listen { .. }, .. } if session.listening.is_some() => {
                (Reply::failed(errno::EMFILE, "one connection, one listener: open another"), Vec::new())
            }
            Request::Loopback { call, .. } => match open.space.loopback(call).await {
                Ok((reply, lasting)) => {
                    if lasting.is_some() {
                        session.listening = lasting;
                    }
                    (reply, Vec::new())
                }
                Err(errno) => (Reply::failed(errno, "the socket on loopback"), Vec::new()),
            },
            Request::Enter { .. } => self.enter(which, &open, beside, &mut session.holds).await,
            Request::Hold { .. } => match self.hold(which, &mut session.holds) {
                Ok(()) => info(&open),
                Err(refusal) => failed(&refusal),
            },
            Request::Resolve { name, .. } => (resolve(name, &open).await, Vec::new()),
            Request::Reverse { address, .. } => (reverse(*address, &open), Vec::new()),
            Request::Info { .. } => info(&open),
            Request::Lend { token, .. } => match self.lend(which, *token, open.owner, session) {
                Ok(()) => info(&open),
                Err(refusal) => failed(&refusal),
            },
            Request::ProgramSocket { identity } => {
                let listening = match beside {
                    Some(beside) => beside.take(Kind::Listening).await,
                    None => None,
                };
                match self.program_socket(which, identity, listening, program, session) {
                    Ok(()) => info(&open),
                    Err(refusal) => failed(&refusal),
                }
            }
            Request::Publish { ports, at, stays, .. } => {
                let session = (!stays).then_some(session);
                let at = at.as_deref().map(|name| (program.whose(), name));
                match self.publish(which, &open, *ports, at, session).await {
                    Ok(reply) => (reply, Vec::new()),
                    Err(refusal) => failed(&refusal),
                }
            }
            Request::Follow { .. } => {
                session.notes = Some(open.space.notes());
                (Reply::Done, Vec::new())
            }
        }
    }

    /// Which identity that is, and for whom it is opened if it is not open: keys stand behind names that only their user may
    /// speak for, and whoever has a token that was lent.
    fn meant(&self, said: &IdentityRef, program: &Connection) -> Result<(Which, Owner), Refusal> {
        let which = match said {
            IdentityRef::Named(name) => Which::Named(program.whose().ok_or_else(not_their_name)?, name.clone()),
            IdentityRef::Session(token) => match self.lent.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
                Some(lent) => return Ok(lent.clone()),
                None => Which::Session(*token),
            },
        };
        Ok((which, program.owner_of_new()))
    }

    /// Lets whoever knows the token be the identity, as long as this connection.
    fn lend(&self, which: &Which, token: [u8; 16], owner: Owner, session: &mut Session) -> Result<(), Refusal> {
        let refused =
            |errno, message: &str, hint: &str| Err(Refusal { errno, message: message.into(), hint: hint.into() });
        if matches!(which, Which::Session(_)) {
            return refused(errno::EINVAL, "a fresh identity has a token already", "use that");
        }
        if !session.holds.iter().any(|(held, _)| held == which) {
            return refused(errno::EPERM, "this connection has not entered that identity", "enter it first");
        }
        if session.lent.len() >= MAX_HOLDS {
            return refused(errno::EMFILE, "this connection has lent too many tokens", "use one of them again");
        }
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if lent.contains_key(&token) {
            return refused(errno::EEXIST, "the token is in use", "take another, at random");
        }
        lent.insert(token, (which.clone(), owner));
        session.lent.push(token);
        Ok(())
    }

    /// Serves the programs of an identity at a listening socket of their own, as long as this connection.
    fn program_socket(
        &self,
        which: &Which,
        said: &IdentityRef,
        listening: Option<Descriptor>,
        program: &Connection,
        session: &mut Session,
    ) -> Result<(), Refusal> {
        let refused =
            |errno, message: &str, hint: &str| Err(Refusal { errno, message: message.into(), hint: hint.into() });
        if !session.holds.iter().any(|(held, _)| held == which) {
            return refused(errno::EPERM, "this connection has not entered that identity", "enter it first");
        }
        if session.program_sockets.len() >= MAX_OF_RUN {
            return refused(errno::EMFILE, "this connection has offered enough sockets already", "use those");
        }
        let Some(listening) = listening else {
            return refused(errno::ENOTSOCK, "no listening socket came with the request", "pass one");
        };
        match self.program_sockets.open(listening, said, program) {
            Ok(program_socket) => session.program_sockets.push(program_socket),
            Err(error) => {
                return refused(errno::EAGAIN, &error.to_string(), "end some of the programs under phantom-run");
            }
        }
        Ok(())
    }

    fn take_back(&self, tokens: &[[u8; 16]]) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().for_each(|token| drop(lent.remove(token)));
    }

    /// Keeps the identity open as long as this connection.
    fn hold(&self, which: &Which, holds: &mut Vec<(Which, Hold)>) -> Result<(), Refusal> {
        if !holds.iter().any(|(held, _)| held == which) {
            let hold = self.spaces.hold(which).filter(|_| holds.len() < MAX_HOLDS);
            let Some(hold) = hold else {
                return Err(Refusal {
                    errno: errno::EMFILE,
                    message: "this connection holds too many identities".to_owned(),
                    hint: "open another connection".to_owned(),
                });
            };
            holds.push((which.clone(), hold));
        }
        Ok(())
    }

    async fn enter(
        &self,
        which: &Which,
        open: &Open,
        before: Option<Beside>,
        holds: &mut Vec<(Which, Hold)>,
    ) -> Answer {
        if let Err(refusal) = self.hold(which, holds) {
            return failed(&refusal);
        }
        match open.space.namespaces(before).await {
            Ok((network, user)) => {
                let (address, ipv4, name) = who(open);
                let entered = Reply::Entered { address, ipv4, name, has_user_namespace: user.is_some() };
                (entered, [Some(network), user].into_iter().flatten().collect())
            }
            Err(refusal) => failed(&refusal),
        }
    }

    /// Publishes as long as the session, or, without one, as long as the identity is open.
    async fn publish(
        &self,
        which: &Which,
        open: &Open,
        ports: Ports,
        name: Option<(Option<Whose>, &str)>,
        session: Option<&mut Session>,
    ) -> Result<Reply, Refusal> {
        let refused =
            |errno, message: &str, hint: &str| Err(Refusal { errno, message: message.into(), hint: hint.into() });
        if session.as_ref().is_some_and(|session| !session.holds.iter().any(|(held, _)| held == which)) {
            return refused(errno::EPERM, "this connection has not entered that identity", "enter it first");
        }
        if session.as_ref().is_some_and(|session| session.published.len() >= MAX_PORTS) {
            let hint = "publish `all`: whatever the program listens on";
            return refused(errno::EMFILE, &format!("{MAX_PORTS} ports are the most that can be published"), hint);
        }
        let (at, is_new) = match name {
            Some((whose, name)) => self.persistent(whose.ok_or_else(not_their_name)?, name).await?,
            None => (Arc::clone(&open.identity), false),
        };
        if let Err(refusal) = open.space.publish(ports, &at, session.is_none()).await {
            self.take_back_if(is_new, &at).await;
            return Err(refusal);
        }
        if let Some(session) = session {
            session.published.push(Publication { space: Arc::clone(&open.space), ports, at: at.address() });
        }
        let (address, name) = (at.address().octets(), at.phantom_name().to_string());
        Ok(Reply::Published { address, name, is_new })
    }

    /// The persistent identity that they call so, made when there is none, and whether it was.
    pub(super) async fn persistent(&self, whose: Whose, name: &str) -> Result<(Arc<ApIdentity>, bool), Refusal> {
        if let Some(identity) = self.identities.find(whose, name) {
            return Ok((identity, false));
        }
        let identity = self.identities.create(whose, name, &mut rng()?).map_err(|error| Refusal {
            errno: errno::EINVAL,
            message: error.to_string(),
            hint: match error {
                IdentityError::Full(_) => "`phantom identity remove` makes room; or publish without a name",
                IdentityError::Store(_) => {
                    "free some space on the disk of its folder, and try again: `phantom doctor` says how much there is"
                }
                _ => "choose another name, or give none for an address that does not last",
            }
            .to_owned(),
        })?;
        self.daemon.created(Arc::clone(&identity)).await;
        Ok((identity, true))
    }

    /// An identity that was made for what did not come about is nobody's.
    pub(super) async fn take_back_if(&self, is_new: bool, identity: &ApIdentity) {
        let name = identity.name.as_ref().filter(|_| is_new);
        if name.is_some_and(|name| self.identities.remove(identity.whose, name.as_str()).is_ok()) {
            self.daemon.removed(identity.address()).await;
        }
    }
}

fn reverse(address: IpAddr, open: &Open) -> Reply {
    let address = match address {
        IpAddr::V6(v6) => ApAddress::from_ipv6(v6),
        IpAddr::V4(v4) => open.space.behind_alias(v4),
    };
    let own = |address| (address == open.identity.address()).then(|| open.identity.phantom_name().to_string());
    let name = address.and_then(|address| own(address).or_else(|| open.space.name_of(address)));
    name.map_or(Reply::NotFound, Reply::Name)
}

async fn resolve(name: &str, open: &Open) -> Reply {
    match open.space.resolve(name).await {
        Ok(Some(address)) => {
            Reply::Addresses { v6: Some(address.octets()), v4: Some(open.space.alias_of(address).octets()) }
        }
        Ok(None) => Reply::NotFound,
        Err(Unanswered) => Reply::failed(errno::EAGAIN, "the resolver does not answer; try again"),
    }
}

fn rng() -> Result<impl rand::CryptoRng + Send, Refusal> {
    system_rng().map_err(|error| Refusal {
        errno: errno::EIO,
        message: error.to_string(),
        hint: "see the daemon's log".to_owned(),
    })
}

/// AP address, IPv4 view and full name of an open identity.
fn who(open: &Open) -> ([u8; 16], [u8; 4], String) {
    let identity = &open.identity;
    (identity.address().octets(), open.space.ipv4().octets(), identity.phantom_name().to_string())
}

fn info(open: &Open) -> Answer {
    let (address, ipv4, name) = who(open);
    (Reply::Info { address, ipv4, name }, Vec::new())
}

fn failed(refusal: &Refusal) -> Answer {
    (Reply::failed(refusal.errno, &format!("{}: {}", refusal.message, refusal.hint)), Vec::new())
}

fn os_failed(error: &io::Error, text: &str) -> Answer {
    (Reply::failed(error.raw_os_error().unwrap_or(errno::EIO), text), Vec::new())
}

fn not_for_programs() -> Refusal {
    Refusal {
        errno: errno::EPERM,
        message: "a program under phantom-run is one identity and may ask for nothing else".to_owned(),
        hint: "ask from outside of phantom-run".to_owned(),
    }
}

fn not_their_name() -> Refusal {
    Refusal {
        errno: errno::ENETDOWN,
        message:
            "whoever asks here has no names: a program of another identity's, or the user nobody, who is no one person"
                .to_owned(),
        hint: "leave the name out for a fresh identity, or ask as a user of your own".to_owned(),
    }
}

fn not_their_session() -> Refusal {
    Refusal {
        errno: errno::ENETDOWN,
        message: "this session belongs to another user".to_owned(),
        hint: "unset PHANTOM_SESSION and start the program anew".to_owned(),
    }
}

fn late() -> Refusal {
    Refusal {
        errno: errno::ETIMEDOUT,
        message: format!("the daemon found no answer in {} s", ANSWER_TIME.as_secs()),
        hint: "see `phantom status`".to_owned(),
    }
}
