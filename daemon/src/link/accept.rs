//! Accepting connections: a web server for all, and a link for those who know the token.
//!
//! hyper serves every connection with one service, so that whatever a stranger sends gets precisely a web server's answer; only a
//! request with the right token gets 101, and its connection becomes a link.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, COOKIE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::Wire;
use phantom_proto::wire::link::{Exporter, Opening, Proof, Role, cookie_proves};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Doorkeeper};
use super::face::Body;
use super::gulp::Gulps;
use super::place::{Place, Placed};
use super::records::Records;
use super::{Face, Limits, Link, dial, face, tls};

/// Wait after the system refused to accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection inside its TLS.
type Tls = TlsStream<Gulps<Placed>>;

pub(super) struct Acceptor {
    pub(super) place: Arc<Place>,
    pub(super) tls: TlsAcceptor,
    pub(super) identity: Arc<SigningKey>,
    pub(super) link_secret: [u8; 32],
    pub(super) face: Face,
    pub(super) doorkeeper: Doorkeeper,
    pub(super) limits: Limits,
    pub(super) link_tx: mpsc::Sender<Link>,
}

/// Accepts until told to stop, or until the transport is gone.
pub(super) async fn run(listener: TcpListener, acceptor: Arc<Acceptor>, stop: CancellationToken, tasks: TaskTracker) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((tcp, remote)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Over the limit, or out for somebody else: closed without a word, as a web server under load does.
        let Some(admission) = acceptor.doorkeeper.enter(remote.ip()) else { continue };
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        let out = admission.out();
        tasks.spawn(async move {
            let served = out.run_until_cancelled(acceptor.serve(tcp, remote, admission));
            stop.run_until_cancelled(served).await
        });
    }
}

impl Acceptor {
    /// One connection, from TCP to link or to its end. Failures end it and concern nobody else.
    // protocol: L25, L26
    async fn serve(&self, tcp: TcpStream, remote: SocketAddr, admission: Admission) -> Option<()> {
        tls::prepare(&tcp).ok()?;
        let tcp = self.place.hold(tcp).ok()?;
        let tls = timeout(self.limits.step, self.tls.accept(Gulps::new(tcp))).await.ok()?.ok()?;
        let exporter = dial::exporter(tls.get_ref().1).ok()?;
        let linkable = tls::is_post_quantum(tls.get_ref().1);
        let visit = Visit { acceptor: self, exporter, linkable, state: Mutex::new((admission, None)) };
        let (admission, upgrade) = visit.run(tls).await?;
        let tls = upgrade.await.ok()?.downcast::<TokioIo<Tls>>().ok()?;
        // A dialer has nothing to say before it has seen who accepts.
        // protocol: L14
        if !tls.read_buf.is_empty() {
            return None;
        }
        let link = timeout(self.limits.step, self.prove(tls.io.into_inner(), exporter, remote)).await.ok()??;
        drop(admission);
        // A daemon that does not keep up loses links rather than memory.
        self.link_tx.try_send(link).ok()
    }

    // protocol: L12, L16, L19
    async fn prove(&self, mut tls: Tls, exporter: Exporter, remote: SocketAddr) -> Option<Link> {
        let proof = Proof::new(&self.identity, Role::Server, &exporter);
        tls.write_all(&proof.to_bytes()).await.ok()?;
        tls.flush().await.ok()?;
        let mut opening = [0; Opening::LEN];
        tls.read_exact(&mut opening).await.ok()?;
        let Opening { proof, purpose } = Opening::from_bytes(&opening).ok()?;
        let peer = proof.check(Role::Client(self.identity.verifying_key()), &exporter).ok()?;
        tls.get_mut().0.hold(self.doorkeeper.link()?);
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let (gulps, tls) = tls.into_inner();
        let records = Records::after(gulps, tls.into(), self.limits.key_bytes).ok()?;
        Some(Link { peer, remote, purpose, retires: None, stream: Box::new(records) })
    }
}

/// One connection while it is a web server's.
struct Visit<'a> {
    acceptor: &'a Acceptor,
    exporter: Exporter,
    /// Its TLS is as strong as a link's must be; web visitors may come with less.
    linkable: bool,
    /// The right to be there, and the stream to come once the token was right.
    state: Mutex<(Admission, Option<OnUpgrade>)>,
}

impl Visit<'_> {
    /// Serves requests until one proves membership. `None`: none did, and the connection is over.
    async fn run(self, tls: Tls) -> Option<(Admission, OnUpgrade)> {
        let limits = &self.acceptor.limits;
        {
            let service = service_fn(|request| self.answer(request));
            let served = face::http(limits.step).serve_connection(TokioIo::new(tls), service).with_upgrades();
            let mut served = pin!(served);
            // Time for the request, and as much for the answer.
            match timeout(limits.step * 2, &mut served).await {
                Ok(ended) => ended.ok()?,
                Err(_) if self.is_visitor() => timeout(limits.visit, served).await.ok()?.ok()?,
                Err(_) => return None,
            }
        }
        let (admission, upgrade) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some((admission, upgrade?))
    }

    /// One code path for all: the token is always computed, and a wrong one is only a request like any other.
    // protocol: L1, L10, L15
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let cookie = request.headers().get(COOKIE).map(HeaderValue::as_bytes);
        let proven = cookie_proves(&self.acceptor.link_secret, &self.exporter, cookie);
        if !proven || !self.linkable || request.method() != Method::GET {
            let stays = self.state().0.visit();
            let mut response = self.acceptor.face.answer(request).await;
            if !stays {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return Ok(response);
        }
        self.state().1 = Some(hyper::upgrade::on(&mut request));
        Ok(switching(&request))
    }

    fn is_visitor(&self) -> bool {
        self.state().0.is_visitor()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Admission, Option<OnUpgrade>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of a websocket server (RFC 6455, section 4.2.2).
// protocol: L11
fn switching<B>(request: &Request<B>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    let input = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &input);
    let mut response = Response::new(face::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&BASE64.encode(hash.as_ref())) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    // protocol: L11
    #[test]
    fn websocket_accept_is_that_of_the_rfc() {
        let request = Request::builder().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").body(()).unwrap();
        assert_eq!(switching(&request).headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
