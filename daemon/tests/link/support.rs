//! Nodes of both transports, and a client that is no node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use phantom_daemon::link::{
    Certificate, Face, Limits, Link, LinkConfig, LinkError, MemoryNetwork, Purpose, TlsTransport, Transport,
};
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::link::{EXPORTER_LABEL, Exporter};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long the nodes of these tests wait for a step of a handshake.
pub(crate) const STEP: Duration = Duration::from_millis(1500);

pub(crate) type Node = (Arc<dyn Transport>, NodeContact);

pub(crate) fn key(seed: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[seed; 32]))
}

pub(crate) fn limits() -> Limits {
    Limits { step: STEP, ..Limits::default() }
}

pub(crate) fn config(seed: u8, listen: &str) -> LinkConfig {
    LinkConfig {
        listen: listen.parse().unwrap(),
        identity: key(seed),
        link_secret: [seed; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").unwrap(),
        limits: limits(),
    }
}

pub(crate) fn contact(seed: u8, addr: SocketAddr) -> NodeContact {
    NodeContact { identity: key(seed).verifying_key(), addr, link_secret: [seed; 32] }
}

pub(crate) fn start(config: LinkConfig) -> Node {
    let (identity, link_secret) = (config.identity.verifying_key(), config.link_secret);
    let transport = TlsTransport::bind(config).unwrap();
    let contact = NodeContact { identity, addr: transport.local_addr(), link_secret };
    (Arc::new(transport), contact)
}

pub(crate) fn tls(seed: u8) -> Node {
    start(config(seed, "127.0.0.1:0"))
}

pub(crate) fn memory(network: &MemoryNetwork, seed: u8) -> Node {
    let contact = contact(seed, SocketAddr::from(([127, 0, 0, seed], 443)));
    (Arc::new(network.join(contact.clone())), contact)
}

/// Two nodes over TLS, and two in memory.
pub(crate) fn pairs() -> Vec<[Node; 2]> {
    let network = MemoryNetwork::default();
    vec![[tls(1), tls(2)], [memory(&network, 1), memory(&network, 2)]]
}

pub(crate) async fn accept(node: &Arc<dyn Transport>) -> Link {
    timeout(PATIENCE, node.accept()).await.expect("a link in time").expect("a link")
}

pub(crate) async fn dial(node: &Arc<dyn Transport>, to: &NodeContact) -> Result<Link, LinkError> {
    timeout(PATIENCE, node.dial(to, Purpose::Frames)).await.expect("an answer in time")
}

/// TLS to a server, of which nothing is checked.
pub(crate) async fn stranger(addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    stranger_with(addr, aws_lc_rs::default_provider()).await
}

/// What TLS was before there were post-quantum groups.
pub(crate) fn classical() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() }
}

/// As [`stranger`], with these choices.
pub(crate) async fn stranger_with(addr: SocketAddr, provider: CryptoProvider) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(provider);
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(provider)))
        .with_no_client_auth();
    let tcp = TcpStream::connect(addr).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("example.org".try_into().unwrap(), tcp).await
}

pub(crate) fn exporter(tls: &TlsStream<TcpStream>) -> Exporter {
    tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap()
}

#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
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
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Dials until it succeeds: a place was given up, and the node will notice.
pub(crate) async fn dial_at_last(node: &Arc<dyn Transport>, to: &NodeContact) -> Link {
    let dialing = async {
        loop {
            match node.dial(to, Purpose::Frames).await {
                Ok(link) => break link,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, dialing).await.expect("a link at last")
}

/// TLS of a server that is no node.
pub(crate) fn plain_tls() -> TlsAcceptor {
    plain_tls_with(aws_lc_rs::default_provider())
}

/// As [`plain_tls`], with these choices.
pub(crate) fn plain_tls_with(provider: CryptoProvider) -> TlsAcceptor {
    let (chain, key) = certificate();
    let key = provider.key_provider.load_private_key(key).unwrap();
    acceptor(provider, CertifiedKey::new(chain, key))
}

/// A server that signs by another key than its certificate's.
pub(crate) fn unproven_tls() -> TlsAcceptor {
    let provider = aws_lc_rs::default_provider();
    let ((chain, _), (_, key)) = (certificate(), certificate());
    let key = provider.key_provider.load_private_key(key).unwrap();
    acceptor(provider, CertifiedKey::new(chain, key))
}

fn certificate() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (chain, key) = Certificate::self_signed("example.org").unwrap().to_pem();
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    (chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
}

fn acceptor(provider: CryptoProvider, certified: CertifiedKey) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config).into()
}
