//! The real transport: TLS 1.3 over TCP on one port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Mutex, mpsc, watch};
use zeroize::Zeroizing;

use super::{Face, Link, LinkError, Purpose, Transport, accept, dial};

/// Links that wait to be taken by the daemon.
const BACKLOG: usize = 256;

/// Connections that the kernel may hold for us.
const LISTEN_BACKLOG: u32 = 1024;

/// Bounds on what strangers can make a node spend.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for any one step: TCP, TLS, the request, the proof.
    pub step: Duration,
    /// Connections that have not proven anything yet, in total.
    pub strangers: usize,
    /// The same per source address (/64 for IPv6).
    pub strangers_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A web server keeps an idle visitor for about so long, and takes about so many.
        Self { step: Duration::from_secs(10), strangers: 1024, strangers_per_source: 128 }
    }
}

/// The certificate that strangers see.
#[derive(Clone)]
pub struct Certificate {
    /// The chain in DER, own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

impl Certificate {
    /// Makes a self-signed certificate for `name`.
    pub fn self_signed(name: &str) -> Result<Self, LinkError> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])
            .map_err(|error| LinkError::Local(format!("no certificate for {name}: {error}")))?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|error| LinkError::Local(format!("no certificate key: {error}")))?;
        Ok(Self { chain: vec![made.cert.der().clone()], key: Arc::new(key) })
    }

    /// To be stored: own certificate(2-byte length before it), then the key, in DER.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let certificate = self.chain.first().map(|first| first.as_ref()).unwrap_or_default();
        let len = u16::try_from(certificate.len()).unwrap_or(u16::MAX).to_be_bytes();
        Zeroizing::new([&len[..], certificate, self.key.secret_der()].concat())
    }

    /// Reads what [`Certificate::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (certificate, key) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let key = PrivateKeyDer::try_from(key.to_vec()).ok()?;
        Some(Self { chain: vec![certificate.to_vec().into()], key: Arc::new(key) })
    }
}

/// What a [`TlsTransport`] needs.
pub struct LinkConfig {
    /// Where to accept links; port 0 takes a free one.
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

/// Links over TLS.
pub struct TlsTransport {
    local: SocketAddr,
    identity: Arc<SigningKey>,
    client: Arc<ClientConfig>,
    limits: Limits,
    link_rx: Mutex<mpsc::Receiver<Link>>,
    stop_tx: watch::Sender<bool>,
}

impl TlsTransport {
    /// Starts to listen.
    pub fn bind(config: LinkConfig) -> Result<Self, LinkError> {
        let listener = listen(config.listen)?;
        Self::serve(config, listener)
    }

    /// Takes over a listening socket that is bound already.
    pub fn with_listener(config: LinkConfig, listener: std::net::TcpListener) -> Result<Self, LinkError> {
        let local = |error: std::io::Error| LinkError::Local(format!("the listening socket cannot be used: {error}"));
        listener.set_nonblocking(true).map_err(local)?;
        let listener = TcpListener::from_std(listener).map_err(local)?;
        Self::serve(config, listener)
    }

    fn serve(config: LinkConfig, listener: TcpListener) -> Result<Self, LinkError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = server_config(provider.clone(), &config.certificate)?;
        let client = Arc::new(client_config(provider)?);
        let local = listener.local_addr().map_err(|error| LinkError::Local(error.to_string()))?;
        let (link_tx, link_rx) = mpsc::channel(BACKLOG);
        let (stop_tx, stop_rx) = watch::channel(false);
        let acceptor = accept::Acceptor {
            tls: Arc::new(server).into(),
            identity: config.identity.clone(),
            link_secret: config.link_secret,
            face: config.face,
            limits: config.limits.clone(),
            link_tx,
        };
        tokio::spawn(accept::run(listener, acceptor, stop_rx));
        Ok(Self {
            local,
            identity: config.identity,
            client,
            limits: config.limits,
            link_rx: Mutex::new(link_rx),
            stop_tx,
        })
    }
}

#[async_trait]
impl Transport for TlsTransport {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        let dialer = dial::Dialer {
            local: self.local,
            identity: &self.identity,
            tls: self.client.clone().into(),
            step: self.limits.step,
        };
        dialer.dial(peer, purpose).await
    }

    async fn accept(&self) -> Option<Link> {
        self.link_rx.lock().await.recv().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn close(&self) {
        self.stop_tx.send_replace(true);
    }
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
            _ => format!("cannot listen on {addr}: {error}"),
        })
    };
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(explain)?;
    socket.set_reuseaddr(true).map_err(explain)?;
    socket.bind(addr).map_err(explain)?;
    socket.listen(LISTEN_BACKLOG).map_err(explain)
}

/// What a browser and a current web server agree on: TLS 1.3, X25519MLKEM768 first, HTTP/1.1.
fn server_config(provider: Arc<CryptoProvider>, certificate: &Certificate) -> Result<ServerConfig, LinkError> {
    let local = |error: rustls::Error| LinkError::Local(format!("the link's certificate cannot be used: {error}"));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(local)?
        .with_no_client_auth()
        .with_single_cert(certificate.chain.clone(), certificate.key.clone_key())
        .map_err(local)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumed sessions would tie a node's links together for an observer.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(provider: Arc<CryptoProvider>) -> Result<ClientConfig, LinkError> {
    let local = |error: rustls::Error| LinkError::Local(format!("TLS cannot be set up: {error}"));
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(local)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts any certificate: it is only what strangers see. Safe because the node then proves its identity key over this very
/// TLS session's exporter, which a man in the middle does not share; the handshake's signature is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

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
