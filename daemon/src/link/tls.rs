//! The real transport: TLS 1.3 over TCP on one port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::admission::Doorkeeper;
use super::place::Place;
use super::{Certificate, Clocks, Face, Limits, Link, LinkError, Purpose, Transport, accept, dial};
use crate::os;

/// Links that wait to be taken by the daemon: what comes in while it is busy for a moment. More are dropped.
pub(super) const BACKLOG: usize = 256;

/// Connections that the kernel may hold for us: a usual web server's.
const LISTEN_BACKLOG: u32 = 1024;

/// How long a link may be silent before the kernel asks whether its other end is there.
const KEEP_IDLE: Duration = Duration::from_secs(60);

/// How long what was sent may stay unacknowledged: longer than a change of networks takes.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What a [`TlsTransport`] needs.
#[derive(Debug)]
pub struct LinkConfig {
    /// Where to accept links; port 0 takes a free one. With a socket that is bound already: what other nodes call this one.
    pub listen: SocketAddr,
    /// This node's identity.
    pub identity: Arc<SigningKey>,
    /// The secret of this node's record.
    pub link_secret: [u8; 32],
    /// What strangers get.
    pub face: Face,
    /// What strangers see.
    pub certificate: Certificate,
    /// What strangers may cost.
    pub limits: Limits,
}

/// Links over TLS. Dropping it stops listening.
pub struct TlsTransport {
    dialer: dial::Dialer,
    /// One caller waits at a time; whoever comes second waits for the lock instead.
    link_rx: Mutex<mpsc::Receiver<Link>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _stop_on_drop: DropGuard,
}

impl TlsTransport {
    /// The clocks of the nodes to which links were opened.
    pub fn clocks(&self) -> Arc<Clocks> {
        self.dialer.clocks.clone()
    }

    /// Where this node is, and from where its links are.
    pub fn place(&self) -> Arc<Place> {
        self.dialer.place.clone()
    }

    /// Starts to listen. Needs to be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Local`], in words for the operator, when the address cannot be listened on or the certificate not used.
    pub fn bind(config: LinkConfig) -> Result<Self, LinkError> {
        let listener = listen(config.listen)?;
        Self::serve(config, listener)
    }

    /// Takes over a socket that listens already. Needs to be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`TlsTransport::bind`].
    pub fn with_listener(config: LinkConfig, listener: std::net::TcpListener) -> Result<Self, LinkError> {
        let local = |error: std::io::Error| LinkError::Local(format!("the listening socket cannot be used: {error}"));
        listener.set_nonblocking(true).map_err(local)?;
        Self::serve(config, TcpListener::from_std(listener).map_err(local)?)
    }

    fn serve(config: LinkConfig, listener: TcpListener) -> Result<Self, LinkError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = client_config(&provider)?;
        let server = server_config(provider, &config.certificate)?;
        let local = listener.local_addr().map_err(|error| LinkError::Local(error.to_string()))?;
        let (link_tx, link_rx) = mpsc::channel(BACKLOG);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let place = Arc::new(Place::new(config.listen.ip()));
        let acceptor = accept::Acceptor {
            place: place.clone(),
            tls: Arc::new(server).into(),
            identity: config.identity.clone(),
            link_secret: config.link_secret,
            face: config.face,
            doorkeeper: Doorkeeper::new(&config.limits),
            limits: config.limits.clone(),
            link_tx,
        };
        tasks.spawn(accept::run(listener, Arc::new(acceptor), stop.clone(), tasks.clone()));
        tasks.close();
        Ok(Self {
            dialer: dial::Dialer {
                local,
                place,
                identity: config.identity,
                tls: Arc::new(client).into(),
                clocks: Arc::default(),
                step: config.limits.step,
                key_bytes: config.limits.key_bytes,
            },
            link_rx: Mutex::new(link_rx),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            tasks,
        })
    }
}

#[async_trait]
impl Transport for TlsTransport {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        self.dialer.dial(peer, purpose).await
    }

    async fn accept(&self) -> Option<Link> {
        self.link_rx.lock().await.recv().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.dialer.local
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// A neighbour that lost its power says nothing more: the kernel asks it after a while, and gives it up.
// protocol: L24
pub(super) fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    os::ask_after_silence(tcp, KEEP_IDLE)?;
    os::give_up_after(tcp, GIVE_UP)
}

/// Whether what is said here stays secret from who records it and has a quantum computer one day: no link goes over anything else.
// protocol: L4
pub(super) fn is_post_quantum<D>(connection: &rustls::ConnectionCommon<D>) -> bool {
    connection.negotiated_key_exchange_group().is_some_and(|group| group.name() == NamedGroup::X25519MLKEM768)
}

fn listen(addr: SocketAddr) -> Result<TcpListener, LinkError> {
    let explain = |error: std::io::Error| {
        LinkError::Local(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{addr} is in use by another program: stop it, or choose another address with --listen")
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("may not listen on {addr}: choose a port of 1024 or above with --listen")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("{addr} is no address of this machine: choose another with --listen")
            }
            _ => format!("cannot listen on {addr}: {error}"),
        })
    };
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(explain)?;
    os::take_port_again(&socket).map_err(explain)?;
    socket.bind(addr).map_err(explain)?;
    socket.listen(LISTEN_BACKLOG).map_err(explain)
}

/// What a current web server offers: TLS 1.3, X25519MLKEM768 first, the first cipher that the other end names, HTTP/1.1,
/// session tickets. The certificate is the same for any server name.
// protocol: L3, L40
pub(super) fn server_config(
    provider: Arc<CryptoProvider>,
    certificate: &Certificate,
) -> Result<ServerConfig, LinkError> {
    let local = |error: rustls::Error| LinkError::Local(format!("the link's certificate cannot be used: {error}"));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(local)?
        .with_no_client_auth()
        .with_single_cert(certificate.chain.clone(), certificate.key.clone_key())
        .map_err(local)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    Ok(config)
}

/// What a browser sends when it opens a websocket to an IP address: HTTP/1.1, no server name, and ciphers in the order of a
/// Firefox, whose first is the cheapest. It resumes no session, since that would tie links together for an observer.
// protocol: L2, L3, L40
pub(super) fn client_config(provider: &CryptoProvider) -> Result<ClientConfig, LinkError> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384];
    let provider = Arc::new(CryptoProvider { cipher_suites, ..provider.clone() });
    let local = |error: rustls::Error| LinkError::Local(format!("TLS cannot be set up: {error}"));
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(local)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Accepts any certificate: it is only what strangers see. Safe because the node then proves its identity key over this very
/// TLS session's exporter, which a man in the middle does not share; the handshake's signature is still checked.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

// protocol: L5
impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
