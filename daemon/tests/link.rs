//! The link level: the same promises over TLS and in memory, and what strangers get.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use phantom_daemon::link::{
    Certificate, Face, Limits, LinkConfig, LinkError, LinkPool, MemoryNetwork, Purpose, TlsTransport, Transport,
};
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn key(seed: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[seed; 32]))
}

fn contact(key: &SigningKey, addr: SocketAddr, secret: u8) -> NodeContact {
    NodeContact { identity: key.verifying_key(), addr, link_secret: [secret; 32] }
}

fn limits() -> Limits {
    Limits { step: Duration::from_millis(1500), strangers: 8, strangers_per_source: 8 }
}

fn tls(seed: u8) -> (Arc<dyn Transport>, NodeContact) {
    let config = LinkConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: key(seed),
        link_secret: [seed; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").unwrap(),
        limits: limits(),
    };
    let transport = TlsTransport::bind(config).unwrap();
    let contact = contact(&key(seed), transport.local_addr(), seed);
    (Arc::new(transport), contact)
}

fn memory(network: &MemoryNetwork, seed: u8) -> (Arc<dyn Transport>, NodeContact) {
    let contact = contact(&key(seed), SocketAddr::from(([127, 0, 0, seed], 443)), seed);
    (Arc::new(network.join(contact.clone())), contact)
}

async fn pairs() -> Vec<[(Arc<dyn Transport>, NodeContact); 2]> {
    let network = MemoryNetwork::default();
    vec![[tls(1), tls(2)], [memory(&network, 1), memory(&network, 2)]]
}

#[tokio::test]
async fn both_sides_know_each_other_and_bytes_flow() {
    for [(one, one_contact), (two, two_contact)] in pairs().await {
        for purpose in [Purpose::Database, Purpose::Frames] {
            let mut dialed = one.dial(&two_contact, purpose).await.unwrap();
            let mut accepted = timeout(PATIENCE, two.accept()).await.unwrap().unwrap();
            assert_eq!((dialed.peer, accepted.peer), (two_contact.identity, one_contact.identity));
            assert_eq!(accepted.purpose, purpose);
            dialed.stream.write_all(b"there").await.unwrap();
            dialed.stream.flush().await.unwrap();
            let mut got = [0; 5];
            accepted.stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"there");
            accepted.stream.write_all(&[7; 100_000]).await.unwrap();
            accepted.stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            dialed.stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [7; 100_000]);
        }
    }
}

/// I8: neither a wrong secret nor a wrong key leads to a weaker link.
#[tokio::test]
async fn a_wrong_secret_or_key_is_no_link() {
    for [(one, _), (_two, contact)] in pairs().await {
        let wrong_secret = NodeContact { link_secret: [99; 32], ..contact.clone() };
        let wrong_key = NodeContact { identity: key(9).verifying_key(), ..contact.clone() };
        for wrong in [wrong_secret, wrong_key] {
            assert!(matches!(one.dial(&wrong, Purpose::Frames).await, Err(LinkError::NotTheNode(_))));
        }
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    for [(one, _), (two, mut contact)] in pairs().await {
        two.close().await;
        drop(two);
        contact.addr.set_port(1);
        assert!(matches!(one.dial(&contact, Purpose::Frames).await, Err(LinkError::Unreachable(_))));
    }
}

#[tokio::test]
async fn a_second_listener_on_the_port_is_told_so() {
    let (_one, contact) = tls(1);
    let config = LinkConfig {
        listen: contact.addr,
        identity: key(2),
        link_secret: [2; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").unwrap(),
        limits: limits(),
    };
    let error = TlsTransport::bind(config).err().unwrap().to_string();
    assert!(error.contains("in use") && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn frames_travel_whole_and_warm_links_are_used_again() {
    for [(one, _), (two, contact)] in pairs().await {
        let pool = LinkPool::new(one);
        let (reader, mut writer) = pool.take(&contact).await.unwrap();
        let (mut their_reader, mut their_writer) = two.accept().await.unwrap().into_frames();
        for len in [0, 1, 5000, 131_072] {
            writer.write(3, &vec![9; len]).await.unwrap();
        }
        writer.flush().await.unwrap();
        for len in [0, 1, 5000, 131_072] {
            let frame = their_reader.read().await.unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload.len()), (3, len));
        }
        pool.give_back(reader, writer);
        let (mut reader, _writer) = pool.take(&contact).await.unwrap();
        their_writer.write(4, b"same link").await.unwrap();
        their_writer.flush().await.unwrap();
        assert_eq!(&reader.read().await.unwrap().unwrap().payload[..], b"same link");
    }
}

#[tokio::test]
async fn a_warm_link_that_ended_is_not_handed_out() {
    for [(one, _), (two, contact)] in pairs().await {
        let pool = LinkPool::new(one);
        let (reader, writer) = pool.take(&contact).await.unwrap();
        let (mut their_reader, mut their_writer) = two.accept().await.unwrap().into_frames();
        their_writer.shutdown().await.unwrap();
        // Let the end arrive before the link counts as idle.
        let mut reader = reader;
        assert!(timeout(PATIENCE, reader.read()).await.unwrap().unwrap().is_none());
        pool.give_back(reader, writer);
        let (_reader, mut writer) = pool.take(&contact).await.unwrap();
        writer.write(1, b"new").await.unwrap();
        writer.flush().await.unwrap();
        let (mut new_reader, _new_writer) = two.accept().await.unwrap().into_frames();
        assert_eq!(&new_reader.read().await.unwrap().unwrap().payload[..], b"new");
        assert!(their_reader.read().await.is_ok_and(|frame| frame.is_none()) || their_reader.is_drained());
    }
}

/// A TLS client without the node's record.
async fn stranger(addr: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    stranger_with(addr).await.unwrap()
}

async fn stranger_with(addr: SocketAddr) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(provider)))
        .with_no_client_auth();
    let tcp = TcpStream::connect(addr).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("example.org".try_into().unwrap(), tcp).await
}

#[derive(Debug)]
struct Blind(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sends bytes inside TLS and returns all that comes back, without the Date header.
async fn probe(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut tls = stranger(addr).await;
    tls.write_all(bytes).await.unwrap();
    tls.flush().await.unwrap();
    let mut answer = Vec::new();
    // Keep-alive: the server's own time-out ends it. An unclean end is an end.
    let _ = timeout(PATIENCE, tls.read_to_end(&mut answer)).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

/// M14: requests with a token, a wrong one, a replayed one, and none get the same answer.
#[tokio::test]
async fn strangers_get_a_web_servers_answer() {
    let (_node, contact) = tls(1);
    let plain = probe(contact.addr, b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 404 Not Found"), "{plain}");
    let replayed =
        data_encoding::BASE64URL_NOPAD.encode(&phantom_proto::wire::link::token(&contact.link_secret, &[0; 32]));
    for cookie in ["sid=AAAA", "sid=", "sid=!!!", "a=b", &format!("sid={replayed}")] {
        let request = format!(
            "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nCookie: {cookie}\r\n\r\n"
        );
        assert_eq!(probe(contact.addr, request.as_bytes()).await, plain, "{cookie}");
    }
    let root = probe(contact.addr, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(root.starts_with("HTTP/1.1 200 OK") && root.contains("It works"), "{root}");
    let post =
        probe(contact.addr, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    for garbage in [&b"\x00\x01\x02\r\n\r\n"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = probe(contact.addr, garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
}

/// I7: strangers who stall are dropped, and too many at once are turned away without a word.
#[tokio::test]
async fn strangers_who_stall_make_room() {
    let (_node, contact) = tls(1);
    let mut silent = Vec::new();
    for _ in 0..limits().strangers {
        silent.push(TcpStream::connect(contact.addr).await.unwrap());
    }
    // One more is closed at once: its TLS handshake never ends well.
    assert!(stranger_with(contact.addr).await.is_err());
    for tcp in &mut silent {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("dropped by the step limit");
    }
    let (other, _) = tls(2);
    assert!(other.dial(&contact, Purpose::Frames).await.is_ok());
}
