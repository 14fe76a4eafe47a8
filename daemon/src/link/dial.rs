//! Opening a link: TCP, TLS, an ordinary-looking request with the token, then both proofs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::wire::link::{EXPORTER_LABEL, Exporter, Opening, Proof, Role, token_cookie, websocket_key};
use phantom_proto::wire::{NodeContact, Wire};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::gulp::Gulps;
use super::place::{Place, Placed};
use super::records::Records;
use super::tls::{is_post_quantum, prepare};
use super::{Clocks, Link, LinkError, Purpose};

/// Longest head of an answer. A web server's is far shorter.
const HEAD_MAX: usize = 8 * 1024;

/// Headers in it.
const HEADERS_MAX: usize = 32;

type Tls = TlsStream<Gulps<Placed>>;

pub(super) struct Dialer {
    /// Where this node listens.
    pub(super) local: SocketAddr,
    pub(super) place: Arc<Place>,
    pub(super) identity: Arc<SigningKey>,
    pub(super) tls: TlsConnector,
    pub(super) clocks: Arc<Clocks>,
    /// Longest wait for each step.
    pub(super) step: Duration,
    /// Bytes that are sent on a link.
    pub(super) key_bytes: u64,
}

impl Dialer {
    pub(super) async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        if !self.place.may_dial(peer.addr.ip()) {
            return Err(LinkError::Refused);
        }
        let tcp = self.step(self.connect(peer.addr)).await?.and_then(|tcp| self.place.hold(tcp));
        let tcp = tcp.map_err(LinkError::Unreachable)?;
        // An IP address as name means that no name is sent.
        let name = ServerName::IpAddress(peer.addr.ip().into());
        let mut tls = self.step(self.tls.connect(name, Gulps::new(tcp))).await?.map_err(no_tls)?;
        if !is_post_quantum(tls.get_ref().1) {
            return Err(LinkError::NotTheNode("it agrees to no post-quantum key exchange"));
        }
        let exporter = exporter(tls.get_ref().1)?;
        let date = self.step(request(&mut tls, peer, &exporter)).await??;
        let server = self.step(server_proof(&mut tls, &exporter)).await??;
        // protocol: L17
        if server != peer.identity {
            return Err(LinkError::Misbehaved("it has another identity key"));
        }
        self.clocks.heard(peer.addr.ip(), &date);
        let proof = Proof::new(&self.identity, Role::Client(server), &exporter);
        let opening = Opening { proof, purpose }.to_bytes();
        self.step(send(&mut tls, &opening)).await?.map_err(LinkError::Unreachable)?;
        let retires = Some(super::retirement());
        let (gulps, tls) = tls.into_inner();
        let records = Records::after(gulps, tls.into(), self.key_bytes).map_err(LinkError::Unreachable)?;
        Ok(Link { peer: server, remote: peer.addr, purpose, retires, stream: Box::new(records) })
    }

    async fn step<T>(&self, work: impl Future<Output = T>) -> Result<T, LinkError> {
        timeout(self.step, work).await.map_err(|_| LinkError::TimedOut)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // In private networks on one machine each node has a loopback address of its own, and is known by it.
        if self.local.is_ipv4() == to.is_ipv4() && self.local.ip().is_loopback() && to.ip().is_loopback() {
            socket.bind(SocketAddr::new(self.local.ip(), 0))?;
        }
        let tcp = socket.connect(to).await?;
        prepare(&tcp)?;
        Ok(tcp)
    }
}

/// What speaks no TLS 1.3 is not the node; what breaks off may be one that is overloaded.
fn no_tls(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::InvalidData => LinkError::NotTheNode("it does not speak our TLS"),
        _ => LinkError::Unreachable(error),
    }
}

/// Sends the request and waits for the switch to our protocol; gives the Date of the answer, which may be missing.
// protocol: L13
async fn request(tls: &mut Tls, peer: &NodeContact, exporter: &Exporter) -> Result<Vec<u8>, LinkError> {
    send(tls, head(peer, exporter).as_bytes()).await.map_err(LinkError::Unreachable)?;
    let answer = read_head(tls).await?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&answer) {
        Ok(httparse::Status::Complete(_)) if response.code == Some(101) => {}
        _ => return Err(LinkError::NotTheNode("it answers as a web server")),
    }
    let date = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("date"));
    Ok(date.map_or_else(Vec::new, |date| date.value.to_vec()))
}

/// The key that the accepting node proves to have.
async fn server_proof(tls: &mut Tls, exporter: &Exporter) -> Result<VerifyingKey, LinkError> {
    let mut proof = [0; Proof::LEN];
    tls.read_exact(&mut proof).await.map_err(LinkError::Unreachable)?;
    let proof = Proof::from_bytes(&proof).map_err(|_| LinkError::Misbehaved("its proof is malformed"))?;
    proof.check(Role::Server, exporter).map_err(|_| LinkError::Misbehaved("its proof is wrong"))
}

async fn send(tls: &mut Tls, bytes: &[u8]) -> io::Result<()> {
    tls.write_all(bytes).await?;
    tls.flush().await
}

/// The head of a browser's request for a websocket.
// protocol: L7, L9
fn head(peer: &NodeContact, exporter: &Exporter) -> String {
    let host = match (peer.addr.ip(), peer.addr.port()) {
        (IpAddr::V4(ip), 443) => ip.to_string(),
        (IpAddr::V6(ip), 443) => format!("[{ip}]"),
        _ => peer.addr.to_string(),
    };
    let (key, cookie) = (websocket_key(exporter), token_cookie(&peer.link_secret, exporter));
    format!(
        "GET /live HTTP/1.1\r\nHost: {host}\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nSec-WebSocket-Version: 13\r\nOrigin: https://{host}\r\n\
         Sec-WebSocket-Key: {key}\r\nConnection: keep-alive, Upgrade\r\nCookie: {cookie}\r\n\
         Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n"
    )
}

/// Reads the head of the answer, and not one byte more. rustls holds what arrived, so single bytes cost no system call.
async fn read_head(tls: &mut Tls) -> Result<Vec<u8>, LinkError> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(LinkError::NotTheNode("its answer is too long"));
        }
        head.push(tls.read_u8().await.map_err(LinkError::Unreachable)?);
    }
    Ok(head)
}

/// The value that everything inside is bound to.
pub(super) fn exporter<D>(connection: &rustls::ConnectionCommon<D>) -> Result<Exporter, LinkError> {
    connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|error| LinkError::Local(format!("no TLS exporter: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: L7
    #[test]
    fn the_request_names_the_host_as_browsers_do() {
        let host = |addr: &str| {
            let addr = addr.parse().unwrap();
            let peer = NodeContact { identity: VerifyingKey([1; 32]), addr, link_secret: [2; 32] };
            let head = head(&peer, &[3; 32]);
            head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap().to_owned()
        };
        assert_eq!(host("192.0.2.1:443"), "192.0.2.1");
        assert_eq!(host("[2001:db8::1]:443"), "[2001:db8::1]");
        assert_eq!(host("[2001:db8::1]:8443"), "[2001:db8::1]:8443");
    }

    // protocol: L7
    #[test]
    fn what_the_upgrade_needs_is_there_once() {
        let addr = "192.0.2.1:443".parse().unwrap();
        let peer = NodeContact { identity: VerifyingKey([1; 32]), addr, link_secret: [2; 32] };
        let head = head(&peer, &[3; 32]);
        assert!(head.starts_with("GET /live HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let needed = ["Host", "Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Cookie"];
        for name in needed {
            let named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "));
            assert_eq!(head.lines().filter(named).count(), 1, "{name}: {head}");
        }
        assert!(
            head.contains("\r\nConnection: keep-alive, Upgrade\r\n") && head.contains("\r\nUpgrade: websocket\r\n")
        );
        assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n") && !head.contains("Content-Length"), "{head}");
    }
}
