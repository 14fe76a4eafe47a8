//! Links whose ends are ours or rustls', over pipes.

mod hostile;
mod likeness;

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConnectionTrafficSecrets, ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::link::Certificate;
use crate::link::tls::{AnyCertificate, client_config, server_config};

type Wire = Gulps<DuplexStream>;

const CIPHERS: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
];

fn server(ciphers: &[SupportedCipherSuite]) -> ServerConfig {
    static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::self_signed("example.org").unwrap());
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = ciphers.to_vec();
    server_config(Arc::new(provider), &CERTIFICATE).unwrap()
}

fn client() -> ClientConfig {
    client_config(&aws_lc_rs::default_provider()).unwrap()
}

/// Both ends behind the handshake, and the server's tickets behind it; so many bytes are under way at once.
async fn tls(
    client: ClientConfig,
    server: ServerConfig,
    room: usize,
) -> (client::TlsStream<Wire>, server::TlsStream<Wire>) {
    let (near, far) = duplex(room);
    shaken(client, server, near, far).await
}

async fn shaken<S: AsyncRead + AsyncWrite + Unpin>(
    client: ClientConfig,
    server: ServerConfig,
    near: S,
    far: S,
) -> (client::TlsStream<Gulps<S>>, server::TlsStream<Gulps<S>>) {
    let name = ServerName::try_from("example.org").unwrap();
    let dialing = TlsConnector::from(Arc::new(client)).connect(name, Gulps::new(near));
    let accepting = TlsAcceptor::from(Arc::new(server)).accept(Gulps::new(far));
    let (client, server) = tokio::join!(dialing, accepting);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let (said, heard) = tokio::join!(say(&mut server, b"x"), client.read_u8());
    said.unwrap();
    assert_eq!(heard.unwrap(), b'x');
    (client, server)
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn of_client<S: AsyncRead + AsyncWrite + Unpin>(tls: client::TlsStream<Gulps<S>>) -> Records<S> {
    let (gulps, tls) = tls.into_inner();
    Records::after(gulps, tls.into(), KEY_LIMIT).unwrap()
}

fn of_server<S: AsyncRead + AsyncWrite + Unpin>(tls: server::TlsStream<Gulps<S>>) -> Records<S> {
    let (gulps, tls) = tls.into_inner();
    Records::after(gulps, tls.into(), KEY_LIMIT).unwrap()
}

async fn records(room: usize) -> (Records<DuplexStream>, Records<DuplexStream>) {
    let (client, server) = tls(client(), server(&CIPHERS), room).await;
    (of_client(client), of_server(server))
}

/// Both sides of one key.
fn keys() -> (Sealer, Opener) {
    let secrets = || {
        let (key, iv) = (AeadKey::from([1; 32]), Iv::from([2; 12]));
        (7, ConnectionTrafficSecrets::Aes256Gcm { key, iv })
    };
    (Sealer::new(secrets(), KEY_LIMIT).unwrap(), Opener::new(secrets()).unwrap())
}

fn much() -> Vec<u8> {
    (0..700_000_u32).map(|at| (at / 5) as u8).collect()
}

/// Sends much, in pieces of a length, and its end; and gives what arrives.
async fn through(
    from: &mut (impl AsyncWrite + Unpin),
    to: &mut (impl AsyncRead + Unpin),
    piece: usize,
) -> io::Result<Vec<u8>> {
    let (bytes, mut got) = (much(), Vec::new());
    let send = async {
        for part in bytes.chunks(piece) {
            from.write_all(part).await?;
        }
        from.shutdown().await
    };
    tokio::try_join!(send, to.read_to_end(&mut got))?;
    Ok(got)
}

// protocol: L21
#[tokio::test]
async fn bytes_arrive_whole_and_in_order_however_they_are_cut() {
    for (room, piece) in [(700, 700_000), (100_000, 4096), (1_000_000, 300_000), (5000, 999)] {
        let (mut near, mut far) = records(room).await;
        assert!(through(&mut near, &mut far, piece).await.unwrap() == much(), "{room} {piece}");
        assert!(through(&mut far, &mut near, piece).await.unwrap() == much(), "{room} {piece}");
    }
}

/// Whoever is at the other end speaks TLS as it is: a dialer, or one who accepts.
// protocol: L21, L22
#[tokio::test]
async fn the_other_end_may_be_rustls() {
    for cipher in CIPHERS {
        let (client, mut far) = tls(client(), server(&[cipher]), 50_000).await;
        assert_eq!(far.get_ref().1.negotiated_cipher_suite().unwrap(), cipher);
        let mut near = of_client(client);
        assert!(through(&mut far, &mut near, 20_000).await.unwrap() == much(), "{cipher:?}");
        assert!(through(&mut near, &mut far, 20_000).await.unwrap() == much(), "{cipher:?}");
        let (mut near, server) = tls(self::client(), server(&[cipher]), 50_000).await;
        let mut far = of_server(server);
        assert!(through(&mut far, &mut near, 20_000).await.unwrap() == much(), "{cipher:?}");
        assert!(through(&mut near, &mut far, 20_000).await.unwrap() == much(), "{cipher:?}");
    }
}

// protocol: L40
#[tokio::test]
async fn the_dialer_says_which_cipher_is_first() {
    for others in [&CIPHERS[..], &CIPHERS[1..], &CIPHERS[2..]] {
        let (near, _) = tls(client(), server(others), 50_000).await;
        assert_eq!(near.get_ref().1.negotiated_cipher_suite().unwrap(), others[0]);
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = CIPHERS.into_iter().rev().collect();
    let provider = Arc::new(provider);
    let another = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let (near, _) = tls(another, server(&CIPHERS), 50_000).await;
    assert_eq!(near.get_ref().1.negotiated_cipher_suite().unwrap(), CIPHERS[2]);
}

/// Of records that came together, rustls has read a part of the first.
#[tokio::test]
async fn nothing_is_lost_where_rustls_stops() {
    let (mut client, mut server) = tls(client(), server(&CIPHERS), 100_000).await;
    for part in [&b"first"[..], b"second", &[3; 30_000]] {
        say(&mut server, part).await.unwrap();
    }
    assert_eq!(client.read_u8().await.unwrap(), b'f');
    let (mut near, mut far) = (of_client(client), of_server(server));
    say(&mut far, b"last").await.unwrap();
    let mut got = vec![0; 4 + 6 + 30_000 + 4];
    near.read_exact(&mut got).await.unwrap();
    assert_eq!((&got[..10], &got[30_010..]), (&b"irstsecond"[..], &b"last"[..]));
}

/// A record that rustls has begun to read is lost to everybody else.
#[tokio::test]
async fn within_a_record_of_rustls_no_link_begins() {
    let (mut client, server) = tls(client(), server(&CIPHERS), 100_000).await;
    let mut far = of_server(server);
    far.sealer.content(&[1; 100], &mut far.leaving).unwrap();
    far.inner.write_all(&far.leaving[..50]).await.unwrap();
    assert!(futures::poll!(pin!(client.read_u8())).is_pending());
    let (gulps, tls) = client.into_inner();
    assert_eq!(Records::after(gulps, tls.into(), KEY_LIMIT).err().unwrap().kind(), io::ErrorKind::InvalidData);
}
