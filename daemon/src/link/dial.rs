//! Opening a link: TCP, TLS, an ordinary-looking request with the token, then both proofs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::wire::link::{EXPORTER_LABEL, Exporter, Proof, Role, token};
use phantom_proto::wire::{NodeContact, Wire};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Link, LinkError, Purpose};

/// Longest head of an answer. A web server's is far shorter.
const HEAD_MAX: usize = 8 * 1024;

pub(super) struct Dialer<'a> {
    pub(super) local: SocketAddr,
    pub(super) identity: &'a SigningKey,
    pub(super) tls: TlsConnector,
    pub(super) step: Duration,
}

impl Dialer<'_> {
    pub(super) async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        let tcp = self.step(self.connect(peer.addr)).await?.map_err(LinkError::Unreachable)?;
        let name = ServerName::IpAddress(peer.addr.ip().into());
        let mut tls = self.step(self.tls.connect(name, tcp)).await?.map_err(LinkError::Unreachable)?;
        let exporter = exporter(tls.get_ref().1)?;
        let server = self.step(self.request(&mut tls, peer, &exporter)).await??;
        if server != peer.identity {
            return Err(LinkError::NotTheNode("it has another identity key"));
        }
        let mut answer = Proof::new(self.identity, Role::Client, &exporter).to_bytes();
        answer.extend(purpose.to_bytes());
        self.step(async {
            tls.write_all(&answer).await?;
            tls.flush().await
        })
        .await?
        .map_err(LinkError::Unreachable)?;
        Ok(Link { peer: server, remote: peer.addr, purpose, stream: Box::new(tls) })
    }

    async fn step<T>(&self, work: impl Future<Output = T>) -> Result<T, LinkError> {
        timeout(self.step, work).await.map_err(|_| LinkError::TimedOut)
    }

    async fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A node that listens on one address is that address for its peers too.
        if !self.local.ip().is_unspecified() && self.local.is_ipv4() == to.is_ipv4() {
            socket.bind(SocketAddr::new(self.local.ip(), 0))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(to).await
    }

    /// Sends the request; returns the key that the server proves.
    async fn request(
        &self,
        tls: &mut TlsStream<TcpStream>,
        peer: &NodeContact,
        exporter: &Exporter,
    ) -> Result<VerifyingKey, LinkError> {
        let broken = |_| LinkError::NotTheNode("it broke the connection");
        tls.write_all(request(peer, exporter).as_bytes()).await.map_err(broken)?;
        tls.flush().await.map_err(broken)?;
        read_switch(tls).await?;
        let mut proof = [0; Proof::LEN];
        tls.read_exact(&mut proof).await.map_err(broken)?;
        Proof::from_bytes(&proof)
            .ok()
            .and_then(|proof| proof.check(Role::Server, exporter))
            .ok_or(LinkError::NotTheNode("its proof is wrong"))
    }
}

fn request(peer: &NodeContact, exporter: &Exporter) -> String {
    let host = match peer.addr.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let token = BASE64URL_NOPAD.encode(&token(&peer.link_secret, exporter));
    // Any 16 bytes do as a websocket key; half of the exporter's hash is as random as any.
    let key = BASE64.encode(&phantom_proto::crypto::derive("phantom v1 websocket key", &[exporter])[..16]);
    format!(
        "GET /live HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Connection: keep-alive, Upgrade\r\nCookie: sid={token}\r\nUpgrade: websocket\r\n\r\n"
    )
}

/// Reads the head of the answer, and not one byte more.
async fn read_switch(tls: &mut TlsStream<TcpStream>) -> Result<(), LinkError> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(LinkError::NotTheNode("its answer is too long"));
        }
        head.push(tls.read_u8().await.map_err(|_| LinkError::NotTheNode("it broke the connection"))?);
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) if response.code == Some(101) => Ok(()),
        _ => Err(LinkError::NotTheNode("it answers like a web server")),
    }
}

/// The value that everything inside is bound to.
pub(super) fn exporter<D>(connection: &rustls::ConnectionCommon<D>) -> Result<Exporter, LinkError> {
    connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|error| LinkError::Local(format!("no TLS exporter: {error}")))
}
