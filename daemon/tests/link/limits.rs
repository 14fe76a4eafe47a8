//! I7: what strangers can make a node spend, and that a slow one stalls nobody else.

use std::net::SocketAddr;

use phantom_daemon::link::Limits;
use phantom_proto::wire::link::token_cookie;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::support::*;

/// Nobody is dropped for being slow: what ends was turned away.
fn patient() -> Limits {
    Limits { step: PATIENCE * 10, ..Limits::default() }
}

fn limited(limits: Limits) -> Node {
    let mut config = config(2, "127.0.0.1:0");
    config.limits = limits;
    start(config)
}

async fn ended(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("the node ends it");
}

/// Silent in each phase: before TLS, after it, inside the request, after the answer, after the token.
// protocol: L26
#[tokio::test]
async fn strangers_who_stall_are_dropped_and_stall_nobody() {
    let (one, _) = tls(1);
    let (two, contact) = tls(2);
    let mut silent = TcpStream::connect(contact.addr).await.unwrap();
    let mut half_hello = TcpStream::connect(contact.addr).await.unwrap();
    half_hello.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    let mut quiet = stranger(contact.addr).await.unwrap();
    let mut half_head = stranger(contact.addr).await.unwrap();
    half_head.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    half_head.flush().await.unwrap();
    let mut visitor = stranger(contact.addr).await.unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    visitor.flush().await.unwrap();
    let mut unproven = stranger(contact.addr).await.unwrap();
    let cookie = token_cookie(&contact.link_secret, &exporter(&unproven));
    let request =
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: {cookie}\r\n\r\n");
    unproven.write_all(request.as_bytes()).await.unwrap();
    unproven.flush().await.unwrap();
    // All of them are under way, and a node comes in.
    let _link = dial(&one, &contact).await.unwrap();
    accept(&two).await;
    ended(&mut silent).await;
    ended(&mut half_hello).await;
    ended(&mut quiet).await;
    ended(&mut half_head).await;
    ended(&mut visitor).await;
    ended(&mut unproven).await;
}

async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

// protocol: L27
#[tokio::test]
async fn one_source_cannot_keep_others_out() {
    let (_two, contact) = limited(Limits { strangers: 100, strangers_per_source: 3, ..patient() });
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(connect_from([127, 0, 0, 61], contact.addr).await);
    }
    // One more is closed without a word, whatever it says; the held ones stand.
    let mut more = connect_from([127, 0, 0, 61], contact.addr).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, more.read_to_end(&mut answer)).await.expect("closed at once");
    assert!(answer.is_empty());
    let (other, _) = start(config(1, "127.0.0.62:0"));
    let _link = dial(&other, &contact).await.unwrap();
    // A place that was left is free again.
    drop(held);
    let (same, _) = start(config(1, "127.0.0.61:0"));
    dial_at_last(&same, &contact).await;
}

// protocol: L27
#[tokio::test]
async fn handshakes_are_bounded_in_total() {
    let (_two, contact) = limited(Limits { strangers: 3, ..patient() });
    let mut held = Vec::new();
    for source in 61..64 {
        held.push(connect_from([127, 0, 0, source], contact.addr).await);
    }
    // One more comes in, and the oldest goes; so does a node, while all of them are silent.
    let _more = connect_from([127, 0, 0, 64], contact.addr).await;
    ended(&mut held[0]).await;
    let (other, _) = tls(1);
    dial(&other, &contact).await.unwrap();
}

/// A link is nobody's stranger any more: those who are in take no place of those who come.
// protocol: L28
#[tokio::test]
async fn links_do_not_count_as_strangers() {
    let (one, _) = tls(1);
    let (two, contact) = limited(Limits { strangers: 1, strangers_per_source: 1, ..limits() });
    let mut links = Vec::new();
    for _ in 0..5 {
        links.push((dial(&one, &contact).await.unwrap(), accept(&two).await));
    }
}

/// A crowd of web visitors is served, and keeps no node out.
// protocol: L29
#[tokio::test]
async fn visitors_have_places_of_their_own() {
    let (one, _) = tls(1);
    let (_two, contact) = limited(Limits { strangers: 1, visitors: 2, ..patient() });
    let mut crowd = Vec::new();
    for n in 0..4 {
        let entering = async {
            loop {
                // The one before may still be leaving.
                match stranger(contact.addr).await {
                    Ok(visitor) => break visitor,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let mut visitor = timeout(PATIENCE, entering).await.expect("let in");
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        visitor.flush().await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"</html>\n") {
            assert_ne!(timeout(PATIENCE, visitor.read_buf(&mut answer)).await.unwrap().unwrap(), 0);
        }
        let answer = String::from_utf8(answer).unwrap();
        // Those for whom there is no place are served and sent away.
        assert_eq!(answer.contains("Connection: close"), n >= 2, "{n} {answer}");
        crowd.push(visitor);
    }
    dial_at_last(&one, &contact).await;
}
