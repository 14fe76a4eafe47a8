//! Accepting connections: a web server for all, and a link for those who know the token.
//!
//! hyper serves every connection with one service, so that whatever a stranger sends gets precisely a web server's answer; only a
//! request with the right token gets 101, and its connection becomes a link.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, COOKIE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::wire::Wire;
use phantom_proto::wire::link::{Exporter, Proof, Role, token_fits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::face::Body;
use super::{Face, Limits, Link, Purpose, dial};

/// Wait after the system refused to accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a visitor may stay on the web face in total.
const VISIT_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) tls: TlsAcceptor,
    pub(super) identity: Arc<SigningKey>,
    pub(super) link_secret: [u8; 32],
    pub(super) face: Face,
    pub(super) limits: Limits,
    pub(super) link_tx: mpsc::Sender<Link>,
}

pub(super) async fn run(listener: TcpListener, acceptor: Acceptor, mut stop: watch::Receiver<bool>) {
    let total = Arc::new(Semaphore::new(acceptor.limits.strangers));
    let sources = Arc::new(Sources::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Either told to stop, or the transport is gone.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((tcp, remote)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let source = sources.clone().enter(remote.ip(), acceptor.limits.strangers_per_source);
        // Over the limit: closed without a word, as a web server under load does.
        let (Ok(permit), Some(source)) = (total.clone().try_acquire_owned(), source) else { continue };
        let (acceptor, mut stop) = (acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = acceptor.serve(tcp, remote, (permit, source)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

type Admission = (OwnedSemaphorePermit, Source);

impl Acceptor {
    /// Errors end the connection and concern nobody else.
    async fn serve(self, tcp: TcpStream, remote: SocketAddr, admission: Admission) -> Option<()> {
        tcp.set_nodelay(true).ok()?;
        let tls = timeout(self.limits.step, self.tls.accept(tcp)).await.ok()?.ok()?;
        let exporter = dial::exporter(tls.get_ref().1).ok()?;
        let (upgrade_tx, upgrade_rx) = oneshot::channel();
        let upgrade_tx = Mutex::new(Some(upgrade_tx));
        let service = service_fn(|request| self.answer(request, &exporter, &upgrade_tx));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.step)
            .serve_connection(TokioIo::new(tls), service)
            .with_upgrades();
        let served = timeout(VISIT_LIMIT, connection).await;
        drop(admission);
        served.ok()?.ok()?;
        let upgraded = upgrade_rx.await.ok()?;
        let link = timeout(self.limits.step, self.prove(upgraded, exporter, remote)).await.ok()??;
        // A daemon that does not keep up loses links rather than memory.
        self.link_tx.try_send(link).ok()
    }

    /// One code path for all: the token is always computed, and a wrong one is only a request like any other.
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        exporter: &Exporter,
        upgrade_tx: &Mutex<Option<oneshot::Sender<Upgraded>>>,
    ) -> Result<Response<Body>, Infallible> {
        let fits = token_fits(&self.link_secret, exporter, &offered_token(&request));
        if !fits || request.method() != Method::GET {
            return Ok(self.face.answer(request).await);
        }
        let response = switching(&request);
        if let Some(upgrade_tx) = upgrade_tx.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    // The connection's task is gone when the visit took too long.
                    let _ = upgrade_tx.send(upgraded);
                }
            });
        }
        Ok(response)
    }

    async fn prove(&self, upgraded: Upgraded, exporter: Exporter, remote: SocketAddr) -> Option<Link> {
        let mut stream = TokioIo::new(upgraded);
        stream.write_all(&Proof::new(&self.identity, Role::Server, &exporter).to_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let mut answer = [0; Proof::LEN + 1];
        stream.read_exact(&mut answer).await.ok()?;
        let (peer, purpose) = client_proof(&answer, &exporter)?;
        Some(Link { peer, remote, purpose, stream: Box::new(stream) })
    }
}

fn client_proof(answer: &[u8; Proof::LEN + 1], exporter: &Exporter) -> Option<(VerifyingKey, Purpose)> {
    let (proof, purpose) = answer.split_at(Proof::LEN);
    let peer = Proof::from_bytes(proof).ok()?.check(Role::Client, exporter)?;
    Some((peer, Purpose::from_bytes(purpose).ok()?))
}

/// What the request offers as token; nothing fits when there is none.
fn offered_token(request: &Request<Incoming>) -> Vec<u8> {
    let cookies = request.headers().get(COOKIE).map(HeaderValue::as_bytes).unwrap_or_default();
    let sid = cookies.strip_prefix(b"sid=").unwrap_or_default();
    BASE64URL_NOPAD.decode(sid).unwrap_or_default()
}

fn switching(request: &Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    // RFC 6455, section 4.2.2.
    let hash =
        digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&BASE64.encode(hash.as_ref())) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

/// Strangers per source address.
#[derive(Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

struct Source {
    sources: Arc<Sources>,
    ip: IpAddr,
}

impl Sources {
    fn enter(self: Arc<Self>, ip: IpAddr, limit: usize) -> Option<Source> {
        let ip = site(ip);
        {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(ip).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(Source { sources: self, ip })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

/// One customer of an Internet provider has a whole /64.
fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
