//! The admin dialect's server: JSON lines of the command line and of scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use phantom_ipc::admin::{
    Address, BadLine, Failure, Forward, LogLine, MAX_REPLY, MAX_REQUEST, Published, Reply, Request, Status,
};
use phantom_ipc::errno;
use phantom_proto::ident::ApAddress;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::people::refused;
use super::{ANSWER_TIME, Connection, Control, Owner, Refusal, Target, in_time};
use crate::identity::{ApIdentity, Whose};
use crate::logging::journal;
use crate::random::system_rng;

/// How long the programs of one identity may take to say where they are reached: who asks for the status is not to wait
/// for a namespace that hangs.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// How long who has asked may take to read the answer when the process becomes another one.
const LAST_TIME: Duration = Duration::from_millis(300);

/// What is offered as long as a connection lasts.
type Offered = (u16, ApAddress);

/// Answers requests until the program closes or asks to stop; what it offered ends with it.
pub(super) async fn converse(mut connection: Connection, control: &Control) -> io::Result<()> {
    let mut offered = Vec::new();
    let ended = talk(&mut connection, control, &mut offered).await;
    for (port, at) in offered {
        // There is nothing to be forgotten for good.
        let _ = control.daemon.unforward(port, Some(at)).await;
    }
    ended
}

async fn talk(connection: &mut Connection, control: &Control, offered: &mut Vec<Offered>) -> io::Result<()> {
    let mut leaving_rx = control.leaving_tx.subscribe();
    loop {
        // Between requests a person may think as long as they like; within one, time is short.
        let some = tokio::select! {
            biased;
            Ok(_) = leaving_rx.wait_for(|leaving| *leaving) => None,
            some = connection.peek() => some?,
        };
        if some.is_none() {
            return Ok(());
        }
        let line = match in_time(connection.line(MAX_REQUEST)).await {
            // A passphrase may be in it.
            Ok(Some(line)) => Zeroizing::new(line),
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let refusal = line_of::<()>(Err(not_understood(&BadLine::Long(MAX_REQUEST))))?;
                return in_time(connection.send(refusal.as_bytes())).await;
            }
            Err(error) => return Err(error),
        };
        let request = match Request::from_line(&line) {
            Ok(request) => request,
            Err(bad) => {
                in_time(connection.send(line_of::<()>(Err(not_understood(&bad)))?.as_bytes())).await?;
                continue;
            }
        };
        let may = connection.may_administer() || is_about_names(&request);
        let Some(whose) = connection.whose().filter(|_| may) else {
            return in_time(connection.send(line_of::<()>(Err(not_yours(&request)))?.as_bytes())).await;
        };
        let (stop, restart) = (matches!(request, Request::Stop), matches!(request, Request::Restart));
        let owner = connection.owner_of_new();
        let answer = async {
            match request {
                Request::Offer { port, socket, identity } => {
                    let made = control.forward(port, Target::Unix(socket), identity.as_deref(), false).await;
                    let at = made.as_ref().ok().and_then(|made| ApAddress::from_ipv6(made.address));
                    offered.extend(at.map(|at| (port, at)));
                    line_of(made.map_err(said))
                }
                request => control.answer(request, owner, whose).await,
            }
        };
        let answer = tokio::select! {
            biased;
            // Who asks for nothing else has it.
            Ok(_) = leaving_rx.wait_for(|leaving| *leaving) => line_of(if restart { Ok(()) } else { Err(leaving()) }),
            answer = timeout(ANSWER_TIME, answer) => answer.unwrap_or_else(|_| line_of::<()>(Err(late()))),
        }?;
        let restart = restart && answer == line_of(Ok(()))?;
        // Who does not read is not to keep a process that becomes the next one.
        let sent = in_time(connection.send(answer.as_bytes()));
        let late = async {
            let _ = leaving_rx.wait_for(|leaving| *leaving).await;
            sleep(LAST_TIME).await;
        };
        tokio::select! {
            sent = sent => sent?,
            () = late => return Ok(()),
        }
        if stop {
            control.stop.notify_one();
            return Ok(());
        }
        if restart {
            control.restart();
            return Ok(());
        }
    }
}

fn leaving() -> Failure {
    Failure { message: "the daemon was started anew before it had an answer".into(), hint: Some("ask again".into()) }
}

/// Whether the next process would start.
#[cfg(unix)]
async fn may_restart() -> Result<(), Failure> {
    crate::successor::check().await.map_err(|why| Failure {
        message: format!("the daemon goes on as it is, for the next one would not start: {why}"),
        hint: Some("mend that, then say `phantom restart` again".into()),
    })
}

/// See the other.
#[cfg(windows)]
async fn may_restart() -> Result<(), Failure> {
    Err(Failure {
        message: "nothing outlives a daemon on Windows".into(),
        hint: Some("stop it with `phantom stop`, and start it again".into()),
    })
}

impl Control {
    /// The line that answers a request of somebody to whom programs of `owner` belong, and names as `whose`.
    async fn answer(&self, request: Request, owner: Owner, whose: Whose) -> io::Result<String> {
        match request {
            Request::Status => {
                let published = self.published(owner).await;
                line_of(Ok(Status { published, ..self.daemon.status().await }))
            }
            Request::Doctor => line_of(Ok(self.daemon.doctor().await)),
            Request::Log { after } => line_of(Ok(journal::after(after).into_iter().map(log_line).collect::<Vec<_>>())),
            Request::PathList => line_of(Ok(self.daemon.paths().await)),
            Request::PeerList => line_of(Ok(self.daemon.peers().await)),
            Request::PeerExport => line_of(Ok(self.daemon.export_peers().await)),
            Request::PeerImport { bundle } => line_of(self.daemon.import_peers(&bundle).await),
            Request::Connections => line_of(Ok(self.daemon.connections().await)),
            Request::AddressNew { name } => line_of(self.new_address(whose, &name).await),
            Request::AddressList => {
                line_of(Ok(self.identities.list(whose).iter().map(|one| address_of(one)).collect::<Vec<_>>()))
            }
            Request::AddressShow { name } => {
                line_of(self.identities.find(whose, &name).map(|found| address_of(&found)).ok_or_else(no_such_name))
            }
            Request::IdentityExport { name, passphrase } => line_of(self.export(whose, &name, passphrase).await),
            Request::IdentityImport { sealed, passphrase, name } => {
                line_of(self.import(whose, sealed, passphrase, name).await)
            }
            Request::IdentityRename { name, to } => line_of(self.rename(whose, &name, &to).await),
            Request::IdentityRemove { name } => line_of(self.remove(whose, &name).await),
            Request::NetdbLookup { address } => line_of(match self.address(&address) {
                Some(address) => self.daemon.lookup(address).await,
                None => Err(no_such_address()),
            }),
            Request::ForwardNew { port, to, identity, keep } => {
                line_of(self.forward(port, Target::Tcp(to), identity.as_deref(), keep).await.map_err(said))
            }
            // Its life is that of the connection, which is not known here.
            Request::Offer { .. } => line_of::<()>(Err(late())),
            Request::ForwardList => line_of(Ok(self.daemon.forwards().await)),
            Request::ForwardRemove { port, identity } => line_of(match identity.map(|name| self.address(&name)) {
                Some(None) => Err(no_such_name()),
                at => self.daemon.unforward(port, at.flatten()).await.map_err(said),
            }),
            Request::CommandSend { command } => line_of(self.daemon.command(&command).await),
            Request::CommandList => line_of(Ok(self.daemon.commands().await)),
            Request::CommandAllow { serial } => line_of(self.daemon.allow_command(serial).await),
            Request::Stop => line_of(Ok(())),
            Request::Restart => line_of(may_restart().await),
        }
    }

    /// Where others reach the owner's programs, by identity.
    async fn published(&self, owner: Owner) -> Vec<Published> {
        let open = self.spaces.of(owner);
        let look = open.iter().map(|one| timeout(LOOK_TIME, one.space.published()));
        let mut ports: BTreeMap<ApAddress, BTreeSet<u16>> = BTreeMap::new();
        for (address, port) in futures::future::join_all(look).await.into_iter().flatten().flatten() {
            ports.entry(address).or_default().insert(port);
        }
        let forwards = self.daemon.forwards().await;
        for one in &forwards {
            let at = ApAddress::from_ipv6(one.address);
            at.map(|at| ports.entry(at).or_default().insert(one.port));
        }
        let mut seen = self.daemon.seen_from_outside().await;
        // A program may be reached at a persistent identity that nobody runs as.
        let identities = self.identities.list(Whose::Operator);
        let all = identities.iter().chain(open.iter().map(|one| &one.identity).filter(|one| one.name.is_none()));
        let one = |identity: &Arc<ApIdentity>| {
            let address = identity.address();
            Some(published(identity, ports.get(&address)?, seen.remove(&address).unwrap_or_default()))
        };
        let mut list: Vec<_> = all.filter_map(one).collect();
        let fresh = forwards.into_iter().filter(|one| one.identity.is_none());
        list.extend(fresh.map(|Forward { address, phantom_name, port, .. }| {
            let at = ApAddress::from_ipv6(address);
            let seen = at.and_then(|at| seen.remove(&at)).unwrap_or_default();
            Published { identity: None, address, phantom_name, ports: vec![port], seen }
        }));
        list
    }

    async fn forward(&self, port: u16, to: Target, name: Option<&str>, keep: bool) -> Result<Forward, Refusal> {
        let (at, new_identity) = match name {
            Some(name) => self.persistent(Whose::Operator, name).await?,
            None => (Arc::new(ApIdentity::fresh(&mut crate::random())), false),
        };
        let address = at.address();
        if let Err(refusal) = self.daemon.forward(Arc::clone(&at), port, to, keep).await {
            self.take_back_if(new_identity, &at).await;
            return Err(refusal);
        }
        let mut forwards = self.daemon.forwards().await.into_iter();
        let made = forwards.find(|one| one.port == port && one.address == address.ipv6()).ok_or_else(|| Refusal {
            errno: errno::EIO,
            message: "it was taken back at once".to_owned(),
            hint: "see `phantom forward list`".to_owned(),
        })?;
        Ok(Forward { new_identity, ..made })
    }

    async fn new_address(&self, whose: Whose, name: &str) -> Result<Address, Failure> {
        let mut rng = system_rng().map_err(|error| failure(error.to_string(), "see the daemon's log"))?;
        let identity = self.identities.create(whose, name, &mut rng).map_err(refused)?;
        self.daemon.created(Arc::clone(&identity)).await;
        Ok(address_of(&identity))
    }

    /// An AP address, a full name, an alias, or the name of an own identity.
    fn address(&self, text: &str) -> Option<ApAddress> {
        let literal = text.parse::<Ipv6Addr>().ok().and_then(ApAddress::from_ipv6);
        let own = || self.identities.find(Whose::Operator, text).map(|identity| identity.address());
        literal.or_else(|| self.names.resolve(text)).or_else(own)
    }
}

/// What every user may ask: it is about their own names alone.
fn is_about_names(request: &Request) -> bool {
    matches!(
        request,
        Request::AddressNew { .. }
            | Request::AddressList
            | Request::AddressShow { .. }
            | Request::IdentityExport { .. }
            | Request::IdentityImport { .. }
            | Request::IdentityRename { .. }
            | Request::IdentityRemove { .. }
    )
}

fn log_line(journal::Line { number, at, level, text }: journal::Line) -> LogLine {
    LogLine { number, at, level, text }
}

pub(super) fn address_of(identity: &ApIdentity) -> Address {
    Address {
        name: identity.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        address: identity.address().ipv6(),
        phantom_name: identity.phantom_name().to_string(),
    }
}

fn published(identity: &ApIdentity, ports: &BTreeSet<u16>, seen: String) -> Published {
    Published {
        identity: identity.name.as_ref().map(ToString::to_string),
        address: identity.address().ipv6(),
        phantom_name: identity.phantom_name().to_string(),
        ports: ports.iter().copied().collect(),
        seen,
    }
}

/// The reply as a line; a list that is too long for one becomes a failure.
fn line_of<T: Serialize>(result: Result<T, Failure>) -> io::Result<String> {
    let line = Reply::from(result).to_line().map_err(io::Error::other)?;
    if line.len() <= MAX_REPLY {
        return Ok(line);
    }
    let too_long = failure("the answer is too long for one line", "ask for something smaller");
    Reply::<()>::Error(too_long).to_line().map_err(io::Error::other)
}

pub(super) fn failure(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure { message: message.into(), hint: Some(hint.into()) }
}

fn said(refusal: Refusal) -> Failure {
    failure(refusal.message, refusal.hint)
}

fn not_understood(bad: &BadLine) -> Failure {
    failure(
        format!("the daemon does not understand what was asked: {bad}"),
        "use the `phantom` of the daemon's release; after an upgrade the daemon is to be started anew",
    )
}

/// Of whoever asks what root alone may; what they can do themselves is said.
fn not_yours(request: &Request) -> Failure {
    let at = |identity: &Option<String>| identity.as_ref().map_or_else(String::new, |name| format!(":{name}"));
    let hint = match request {
        Request::ForwardNew { port, to, identity, .. } => format!(
            "it is the daemon that would connect there; a program of yours may: phantom-run --publish {port}{} --allow-local {} \
             socat TCP6-LISTEN:{port},fork,reuseaddr TCP:127.0.0.1:{}",
            at(identity),
            to.port(),
            to.port()
        ),
        Request::Offer { port, identity, .. } => format!(
            "a program of yours may show the folder (files that begin with a dot, too): phantom-run --publish {port}{} python3 -m \
             http.server {port} --directory FOLDER",
            at(identity)
        ),
        _ => "`phantom-run` and `phantom identity` work without".to_owned(),
    };
    failure(
        "only root may ask this of a daemon that serves every user of the computer",
        format!("{hint}; else use sudo, or a daemon of your own (`phantom setup --own`)"),
    )
}

fn late() -> Failure {
    failure(format!("the daemon found no answer in {} s", ANSWER_TIME.as_secs()), "see `phantom status`, try again")
}

pub(super) fn no_such_name() -> Failure {
    failure(
        "there is no identity of that name",
        "`phantom identity list` shows them, `phantom identity new NAME` makes one",
    )
}

fn no_such_address() -> Failure {
    failure(
        "this is no AP address (fd70:…), no full name (56 characters which check each other, then .phantom) and no name known here",
        "`phantom identity list` shows the names of this daemon",
    )
}
