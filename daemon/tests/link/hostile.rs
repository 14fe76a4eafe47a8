//! Nodes that know the secret and break the protocol, and servers that are not the node.

use std::net::SocketAddr;

use phantom_daemon::link::{LinkError, Purpose};
use phantom_proto::wire::link::{EXPORTER_LABEL, Exporter, Opening, Proof, Role, token_cookie};
use phantom_proto::wire::{NodeContact, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

use super::support::*;

/// A server that sends what `answer` makes of its session's exporter, then nothing more, but keeps the connection.
async fn server(answer: impl Fn(&Exporter) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    server_with(plain_tls(), answer).await
}

async fn server_with(
    acceptor: TlsAcceptor,
    answer: impl Fn(&Exporter) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
            let _ = tls.write_all(&answer(&exporter)).await;
            let _ = tls.flush().await;
            kept.push(tls);
        }
    });
    addr
}

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

async fn dialing(answer: impl Fn(&Exporter) -> Vec<u8> + Send + Sync + 'static) -> LinkError {
    let (one, _) = tls(1);
    dial(&one, &contact(2, server(answer).await)).await.unwrap_err()
}

#[tokio::test]
async fn what_is_not_the_node_is_told_from_what_is_and_misbehaves() {
    let web_page = dialing(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert!(matches!(web_page, LinkError::NotTheNode(_)));
    let garbage = dialing(|_| b"220 mail.example.org ESMTP\r\n\r\n".to_vec()).await;
    assert!(matches!(garbage, LinkError::NotTheNode(_)));
    let endless = dialing(|_| vec![b'a'; 100_000]).await;
    assert!(matches!(endless, LinkError::NotTheNode(_)));
    let wrong_proof = dialing(|_| [SWITCH, &[7; Proof::LEN]].concat()).await;
    assert!(matches!(wrong_proof, LinkError::Misbehaved(_)));
    let silent = dialing(|_| Vec::new()).await;
    assert!(matches!(silent, LinkError::TimedOut));
    let half_way = dialing(|_| [SWITCH, &[7; 10]].concat()).await;
    assert!(matches!(half_way, LinkError::TimedOut));
}

/// A man in the middle who knows the secret can show the node's proof only of another TLS session.
// protocol: L13, L16
#[tokio::test]
async fn a_proof_of_another_session_is_worth_nothing() {
    let good = dialing_as_two(|exporter| *exporter).await;
    assert!(good.is_ok(), "the test's server would be accepted: {good:?}");
    let replayed = dialing_as_two(|_| [5; 32]).await;
    assert!(matches!(replayed, Err(LinkError::Misbehaved(_))));
}

async fn dialing_as_two(session: impl Fn(&Exporter) -> Exporter + Send + Sync + 'static) -> Result<(), LinkError> {
    let (one, _) = tls(1);
    let answer =
        move |exporter: &Exporter| [SWITCH, &Proof::new(&key(2), Role::Server, &session(exporter)).to_bytes()].concat();
    dial(&one, &contact(2, server(answer).await)).await.map(drop)
}

/// Whoever lies in between, with a certificate that anybody may show.
// protocol: L5
#[tokio::test]
async fn a_server_that_does_not_have_the_key_of_its_certificate_is_not_the_node() {
    let answer = |exporter: &Exporter| [SWITCH, &Proof::new(&key(2), Role::Server, exporter).to_bytes()].concat();
    let (one, _) = tls(1);
    let right = server_with(plain_tls(), answer).await;
    assert!(dial(&one, &contact(2, right)).await.is_ok(), "any certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wrong = contact(2, listener.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        unproven_tls().accept(tcp).await.map(drop)
    });
    assert!(matches!(dial(&one, &wrong).await, Err(LinkError::NotTheNode(_))));
    assert!(accepting.await.unwrap().is_err(), "no handshake, and so no request");
}

// protocol: L17
#[tokio::test]
async fn a_node_that_was_not_wanted_does_not_hear_who_dials() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    for wanted in [2, 9] {
        let (one, _) = tls(1);
        let wanted_node = NodeContact { identity: key(wanted).verifying_key(), ..contact(2, addr) };
        let dialing = tokio::spawn(async move { dial(&one, &wanted_node).await.map(drop) });
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = plain_tls().accept(tcp).await.unwrap();
        let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tls.read_u8().await.unwrap());
        }
        tls.write_all(&[SWITCH, &Proof::new(&key(2), Role::Server, &exporter).to_bytes()].concat()).await.unwrap();
        tls.flush().await.unwrap();
        let mut heard = Vec::new();
        // How it ends is of no interest.
        let _ = timeout(PATIENCE, tls.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(
            (dialing.await.unwrap().is_ok(), heard.len()),
            if wanted == 2 { (true, Opening::LEN) } else { (false, 0) }
        );
    }
}

/// I8: whoever has the node's keys and makes TLS weaker gets no link, and does not hear who dials.
// protocol: L4
#[tokio::test]
async fn a_node_over_a_classical_key_exchange_is_not_the_node() {
    let (one, _) = tls(1);
    let answer = |exporter: &Exporter| [SWITCH, &Proof::new(&key(2), Role::Server, exporter).to_bytes()].concat();
    let addr = server_with(plain_tls_with(classical()), answer).await;
    assert!(matches!(dial(&one, &contact(2, addr)).await, Err(LinkError::NotTheNode(_))));
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_the_node() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    let (one, _) = tls(1);
    assert!(matches!(dial(&one, &contact(2, addr)).await, Err(LinkError::NotTheNode(_))));
}

/// Goes as far as the acceptor's proof.
async fn token_sent(addr: SocketAddr, more: &[u8]) -> (TlsStream<TcpStream>, Exporter) {
    let mut tls = stranger(addr).await.unwrap();
    let exporter = exporter(&tls);
    let cookie = token_cookie(&[2; 32], &exporter);
    let request = format!(
        "GET /live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: {cookie}\r\n\r\n"
    );
    tls.write_all(&[request.as_bytes(), more].concat()).await.unwrap();
    tls.flush().await.unwrap();
    (tls, exporter)
}

/// As [`token_sent`], and reads the answer up to the end of the acceptor's proof.
async fn proof_seen(addr: SocketAddr) -> (TlsStream<TcpStream>, Exporter) {
    let (mut tls, exporter) = token_sent(addr, b"").await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.unwrap());
    }
    tls.read_exact(&mut [0; Proof::LEN]).await.unwrap();
    (tls, exporter)
}

/// Nobody becomes a peer under a key that it does not hold, in this session, towards this node.
// protocol: L19, L16
#[tokio::test]
async fn a_dialer_without_its_proof_is_no_peer() {
    let (one, _) = tls(1);
    let (two, contact) = tls(2);
    let (server, me) = (contact.identity, key(3));
    let other_server = Proof::new(&me, Role::Client(key(4).verifying_key()), &[0; 32]);
    type Fraud = Box<dyn Fn(&Exporter) -> Vec<u8>>;
    let frauds: [Fraud; 6] = [
        Box::new(|_| vec![0; Opening::LEN]),
        Box::new(move |_| opening(Proof::new(&key(3), Role::Client(server), &[5; 32]))),
        Box::new(|exporter| opening(Proof::new(&key(3), Role::Client(key(4).verifying_key()), exporter))),
        Box::new(|exporter| opening(Proof::new(&key(3), Role::Server, exporter))),
        Box::new(move |_| opening(other_server.clone())),
        Box::new(move |exporter| {
            let mut bytes = opening(Proof::new(&key(3), Role::Client(server), exporter));
            bytes[Proof::LEN] = 3;
            bytes
        }),
    ];
    for fraud in frauds {
        let (mut tls, exporter) = proof_seen(contact.addr).await;
        tls.write_all(&fraud(&exporter)).await.unwrap();
        tls.flush().await.unwrap();
        // Ended by the node, without a word after its own proof.
        let _ = timeout(PATIENCE, tls.read_to_end(&mut Vec::new())).await.expect("ended");
    }
    // The same steps with a good proof make a link, and it is the first that the daemon sees.
    let (mut tls, exporter) = proof_seen(contact.addr).await;
    tls.write_all(&opening(Proof::new(&me, Role::Client(server), &exporter))).await.unwrap();
    tls.flush().await.unwrap();
    assert_eq!(accept(&two).await.peer, me.verifying_key());
    let _link = dial(&one, &contact).await.unwrap();
    accept(&two).await;
}

fn opening(proof: Proof) -> Vec<u8> {
    Opening { proof, purpose: Purpose::Frames }.to_bytes()
}

/// Who speaks before it has seen whom it speaks to does not follow the protocol.
// protocol: L14, L25
#[tokio::test]
async fn a_dialer_that_does_not_wait_is_dropped() {
    let (_two, contact) = tls(2);
    let (mut tls, _) = token_sent(contact.addr, &[0; 10]).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("ended");
    let head = String::from_utf8_lossy(&answer);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
}
