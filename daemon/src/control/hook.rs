//! The hook dialect's server: sockets, namespaces and names for programs, as binary frames with descriptors beside them.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use phantom_ipc::hook::{HEADER, IdentityRef, Malformed, PREAMBLE, Reply, Request, body_length};
use phantom_proto::ident::ApAddress;
use tokio::time::timeout;

use super::{ANSWER_TIME, Connection, Control, Hold, Open, Refusal, in_time};
use crate::service::system_rng;

/// Identities that one connection may hold: phantom-run holds one.
const MAX_HOLDS: usize = 8;

/// What a request gets: the reply, and the descriptors beside it.
type Answer = (Reply, Vec<OwnedFd>);

/// Answers requests until the program closes. What it entered stays open as long.
pub(super) async fn converse(mut connection: Connection, control: &Control) -> io::Result<()> {
    let preamble = in_time(connection.take(PREAMBLE.len())).await?;
    if preamble != PREAMBLE {
        // Another version of ours deserves a word, anything else none.
        if preamble[..3] == PREAMBLE[..3] {
            let text = "the daemon is of another release; use programs of one release";
            refuse(&mut connection, text).await?;
        }
        return Ok(());
    }
    let mut holds = Vec::new();
    while connection.peek().await?.is_some() {
        let body = match in_time(read_frame(&mut connection)).await? {
            Ok(body) => body,
            Err(malformed) => return refuse(&mut connection, &malformed.to_string()).await,
        };
        let request = match Request::decode(&body) {
            Ok(request) => request,
            Err(malformed) => return refuse(&mut connection, &malformed.to_string()).await,
        };
        let answer = timeout(ANSWER_TIME, control.serve_program(&request, &mut holds)).await;
        let (reply, descriptors) = answer.unwrap_or_else(|_| failed(&late()));
        let frame = reply.encode().map_err(io::Error::other)?;
        in_time(connection.send_with(&frame, descriptors)).await?;
    }
    Ok(())
}

async fn read_frame(connection: &mut Connection) -> io::Result<Result<Vec<u8>, Malformed>> {
    let header = connection.take(HEADER).await?;
    let mut length = [0; HEADER];
    length.copy_from_slice(&header);
    match body_length(length) {
        Ok(length) => connection.take(length).await.map(Ok),
        Err(malformed) => Ok(Err(malformed)),
    }
}

async fn refuse(connection: &mut Connection, text: &str) -> io::Result<()> {
    let frame = Reply::failed(libc::EPROTO, text).encode().map_err(io::Error::other)?;
    in_time(connection.send(&frame)).await
}

impl Control {
    async fn serve_program(&self, request: &Request, holds: &mut Vec<(IdentityRef, Hold)>) -> Answer {
        let which = request.identity();
        let open = match self.open(which).await {
            Ok(open) => open,
            Err(refusal) => return failed(&refusal),
        };
        match request {
            Request::Socket { domain, kind, protocol, .. } => {
                match open.space.socket(*domain, *kind, *protocol).await {
                    Ok(descriptor) => (Reply::Descriptor, vec![descriptor]),
                    Err(error) => os_failed(&error, "the phantom namespace gives no such socket"),
                }
            }
            Request::Enter { .. } => self.enter(which, &open, holds),
            Request::Resolve { name, .. } => (self.resolve(name, &open), Vec::new()),
            Request::Reverse { address, .. } => (self.reverse(*address, &open), Vec::new()),
            Request::Info { .. } => {
                let (address, ipv4, name) = who(&open);
                (Reply::Info { address, ipv4, name }, Vec::new())
            }
        }
    }

    async fn open(&self, which: &IdentityRef) -> Result<Open, Refusal> {
        let mut rng = system_rng().map_err(|error| Refusal {
            errno: libc::EIO,
            message: error.to_string(),
            hint: "see the daemon's log".to_owned(),
        })?;
        self.spaces.open(which, &mut rng).await
    }

    fn enter(&self, which: &IdentityRef, open: &Open, holds: &mut Vec<(IdentityRef, Hold)>) -> Answer {
        if !holds.iter().any(|(held, _)| held == which) {
            let hold = self.spaces.hold(which).filter(|_| holds.len() < MAX_HOLDS);
            let Some(hold) = hold else {
                return (Reply::failed(libc::EMFILE, "this connection holds too many identities"), Vec::new());
            };
            holds.push((which.clone(), hold));
        }
        match open.space.namespaces() {
            Ok((network, user)) => {
                let (address, ipv4, name) = who(open);
                let entered = Reply::Entered { address, ipv4, name, has_user_namespace: user.is_some() };
                (entered, [Some(network), user].into_iter().flatten().collect())
            }
            Err(error) => os_failed(&error, "the namespaces cannot be passed on"),
        }
    }

    fn resolve(&self, name: &str, open: &Open) -> Reply {
        match self.names.resolve(name) {
            Some(address) => {
                Reply::Addresses { v6: Some(address.octets()), v4: Some(open.space.alias_of(address).octets()) }
            }
            None => Reply::NotFound,
        }
    }

    fn reverse(&self, address: IpAddr, open: &Open) -> Reply {
        let address = match address {
            IpAddr::V6(v6) => ApAddress::from_ipv6(v6),
            IpAddr::V4(v4) => open.space.behind_alias(v4),
        };
        let own = |address| (address == open.identity.address()).then(|| open.identity.phantom_name().to_string());
        let name = address.and_then(|address| own(address).or_else(|| self.names.name_of(address)));
        name.map_or(Reply::NotFound, Reply::Name)
    }
}

/// AP address, IPv4 view and full name of an open identity.
fn who(open: &Open) -> ([u8; 16], [u8; 4], String) {
    let identity = &open.identity;
    (identity.address().octets(), open.space.ipv4().octets(), identity.phantom_name().to_string())
}

fn failed(refusal: &Refusal) -> Answer {
    (Reply::failed(refusal.errno, &format!("{}: {}", refusal.message, refusal.hint)), Vec::new())
}

fn os_failed(error: &io::Error, text: &str) -> Answer {
    (Reply::failed(error.raw_os_error().unwrap_or(libc::EIO), text), Vec::new())
}

fn late() -> Refusal {
    Refusal {
        errno: libc::ETIMEDOUT,
        message: format!("the daemon found no answer in {} s", ANSWER_TIME.as_secs()),
        hint: "see `phantom status`".to_owned(),
    }
}
