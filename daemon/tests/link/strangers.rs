//! M14: whatever a stranger sends, it gets what a plain web server with the same face would answer, to the byte.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::{join, join_all};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phantom_daemon::link::{Face, face};
use phantom_proto::wire::link::token_cookie;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::*;

/// A web server that knows nothing of links: our face behind tokio-rustls and hyper.
async fn plain_web_server(face: Face) -> SocketAddr {
    let acceptor = plain_tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, face) = (acceptor.clone(), face.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service =
                    service_fn(|request| async { Ok::<_, std::convert::Infallible>(face.answer(request).await) });
                let _ = face::http(STEP).serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    addr
}

/// What a stranger sees: the bytes, but for the time of day, and how the connection ended.
type Seen = (String, Option<ErrorKind>);

async fn rest(mut stream: impl AsyncRead + Unpin) -> Seen {
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server ends it").err();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let undated: Vec<_> = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
    (undated.concat(), end.map(|error| error.kind()))
}

async fn probe(addr: SocketAddr, bytes: &[u8]) -> Seen {
    let mut tls = stranger(addr).await.unwrap();
    tls.write_all(bytes).await.unwrap();
    tls.flush().await.unwrap();
    rest(tls).await
}

/// A request that would open a link if its cookie were right.
fn upgrade(method: &str, cookie: &str) -> Vec<u8> {
    format!(
        "{method} /live HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n\r\n"
    )
    .into_bytes()
}

/// Odd and ordinary things to send.
fn probes() -> Vec<Vec<u8>> {
    let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{rest}\r\n").into_bytes();
    let mut probes: Vec<Vec<u8>> = [
        &b""[..],
        b"\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX",
        b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /nothing?here HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /index.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect();
    probes.push(get(""));
    probes.push(get("Connection: close\r\n"));
    probes.push(get(&format!("X: {}\r\n", "a".repeat(9000))));
    probes.push(get(&"X: a\r\n".repeat(200)));
    probes.push(vec![b'A'; 70_000]);
    let good_form = token_cookie(&[1; 32], &[0; 32]);
    for cookie in ["", "sid=", "sid=!!!", "a=b; c=d", &good_form, &good_form[..20], &format!("{good_form}; a=b")] {
        for method in ["GET", "HEAD", "POST"] {
            probes.push(upgrade(method, cookie));
        }
    }
    probes
}

fn face_of(folder: &tempfile::TempDir) -> Face {
    std::fs::write(folder.path().join("index.html"), "<p>a site</p>").unwrap();
    Face::Folder(Arc::new(folder.path().to_owned()))
}

/// A site behind a reverse proxy, which names the method and path that it was asked for.
async fn site() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let upgrade = request.headers().contains_key("upgrade");
                let text = format!("{} {} {upgrade}", request.method(), request.uri());
                let body = http_body_util::Full::new(hyper::body::Bytes::from(text));
                let response = hyper::Response::builder().header("server", "site").header("x-own", "1").body(body);
                Ok::<_, std::convert::Infallible>(response.unwrap())
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            tokio::spawn(async move { drop(served.await) });
        }
    });
    addr
}

// protocol: L1, L15
#[tokio::test]
async fn every_face_answers_strangers_like_a_plain_web_server() {
    let folder = tempfile::tempdir().unwrap();
    for face in [Face::BuiltIn, face_of(&folder), Face::Proxy(site().await)] {
        let mut config = config(1, "127.0.0.1:0");
        config.face = face.clone();
        let (_node, contact) = start(config);
        let plain = plain_web_server(face.clone()).await;
        let both = probes().into_iter().map(|bytes| async move {
            let (node, web) = (probe(contact.addr, &bytes).await, probe(plain, &bytes).await);
            (String::from_utf8_lossy(&bytes).into_owned(), node, web)
        });
        for (sent, node, web) in join_all(both).await {
            assert_eq!(node, web, "{face:?} {sent:?}");
        }
    }
}

/// The table above compares; this says that what is compared is a web server's.
// protocol: L9
#[tokio::test]
async fn the_face_is_a_web_server() {
    let folder = tempfile::tempdir().unwrap();
    let faces =
        [(Face::BuiltIn, "It works!"), (face_of(&folder), "a site"), (Face::Proxy(site().await), "GET / false")];
    for (face, text) in faces {
        let mut config = config(1, "127.0.0.1:0");
        config.face = face;
        let (_node, contact) = start(config);
        let (root, _) = probe(contact.addr, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(root.starts_with("HTTP/1.1 200 OK\r\n") && root.contains(text), "{root}");
        assert!(root.contains("Content-Length: ") && root.contains("Server: "), "{root}");
        let (garbage, _) = probe(contact.addr, b"GET\r\n\r\n").await;
        assert!(garbage.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{garbage}");
    }
    let mut config = config(1, "127.0.0.1:0");
    config.face = Face::Proxy(site().await);
    let (_node, contact) = start(config);
    let (proxied, _) = probe(contact.addr, &upgrade("GET", "a=b")).await;
    assert!(proxied.ends_with("GET /live false"), "no upgrade reaches the site: {proxied}");
    let (_node, contact) = tls(1);
    let (missing, _) = probe(contact.addr, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{missing}");
    let (post, _) = probe(contact.addr, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("Allow: GET, HEAD"), "{post}");
    let (long, _) = probe(contact.addr, format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)).as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 4"), "{long}");
    let (twice, _) = probe(contact.addr, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2)).await;
    assert_eq!(twice.matches("It works!").count(), 2, "{twice}");
    let (head, _) = probe(contact.addr, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.contains("Content-Length: 45") && !head.contains("It works!"), "{head}");
}

#[tokio::test]
async fn a_site_that_is_down_is_a_bad_gateway() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config(1, "127.0.0.1:0");
    config.face = Face::Proxy(closed);
    let (_node, contact) = start(config);
    let (answer, _) = probe(contact.addr, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
}

/// Bytes that are no TLS get what any TLS server answers.
#[tokio::test]
async fn plain_bytes_get_what_tls_answers() {
    let (_node, contact) = tls(1);
    let plain = plain_web_server(Face::BuiltIn).await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", &[0; 100]]
    {
        let mut seen = Vec::new();
        for addr in [contact.addr, plain] {
            let mut tcp = TcpStream::connect(addr).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            // Unread bytes turn the end into a reset now and then: the bytes before it are what counts.
            seen.push(rest(tcp).await.0);
        }
        assert_eq!(seen[0], seen[1], "{bytes:?}");
    }
}

/// I5: the cookie of one TLS session gets the web page in another; in its own session it is switched.
// protocol: L11, L15
#[tokio::test]
async fn a_replayed_token_gets_the_web_page() {
    let (_node, contact) = tls(1);
    let plain = plain_web_server(Face::BuiltIn).await;
    let mut own = stranger(contact.addr).await.unwrap();
    let request = upgrade("GET", &token_cookie(&contact.link_secret, &exporter(&own)));
    own.write_all(&request).await.unwrap();
    own.flush().await.unwrap();
    let mut answer = [0; 12];
    own.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let (others, (end, _)) =
        join(async { (probe(contact.addr, &request).await, probe(plain, &request).await) }, rest(own)).await;
    assert_eq!(others.0, others.1);
    assert!(end.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{end}");
}

/// The right token makes no link of anything but the one request that it is for; nor does another node's.
// protocol: L15
#[tokio::test]
async fn a_token_in_the_wrong_place_gets_the_web_page() {
    let (_node, contact) = tls(1);
    let plain = plain_web_server(Face::BuiltIn).await;
    for (method, secret) in [("POST", contact.link_secret), ("HEAD", contact.link_secret), ("GET", [2; 32])] {
        let mut seen = Vec::new();
        for addr in [contact.addr, plain] {
            let mut tls = stranger(addr).await.unwrap();
            let request = upgrade(method, &token_cookie(&secret, &exporter(&tls)));
            tls.write_all(&request).await.unwrap();
            tls.flush().await.unwrap();
            seen.push(rest(tls).await);
        }
        assert_eq!(seen[0], seen[1], "{method}");
    }
}

/// I8: a browser without post-quantum keys is served, and no link comes of it, whatever it knows.
// protocol: L3, L4
#[tokio::test]
async fn a_token_over_a_classical_key_exchange_gets_the_web_page() {
    let (_node, contact) = tls(1);
    let plain = plain_web_server(Face::BuiltIn).await;
    let mut seen = Vec::new();
    for addr in [contact.addr, plain] {
        let mut tls = stranger_with(addr, classical()).await.unwrap();
        let request = upgrade("GET", &token_cookie(&contact.link_secret, &exporter(&tls)));
        tls.write_all(&request).await.unwrap();
        tls.flush().await.unwrap();
        seen.push(rest(tls).await);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].0.starts_with("HTTP/1.1 404 "), "{seen:?}");
}

/// A session that is resumed ties two links together for whoever watches; a server that offers it gets none.
// protocol: L2
#[tokio::test]
async fn no_link_resumes_the_tls_of_another() {
    let (acceptor, listener) = (plain_tls(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (one, _) = tls(1);
    let contact = contact(2, listener.local_addr().unwrap());
    for round in 0..2 {
        let served = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = acceptor.accept(tcp).await.unwrap();
            assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full), "{round}");
            tls.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            tls.flush().await.unwrap();
            tls
        };
        let (dialed, _tls) = timeout(PATIENCE, join(dial(&one, &contact), served)).await.unwrap();
        assert!(dialed.is_err(), "it is a web server");
    }
}

/// What the dialer shows on the wire: no server name, a websocket's ALPN; and what both agree on.
// protocol: L2, L3
#[tokio::test]
async fn tls_is_as_web_traffic_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, _) = tls(1);
    let contact = contact(2, listener.local_addr().unwrap());
    let dialing = tokio::spawn(async move { dial(&one, &contact).await });
    let (tcp, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let start = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let start = timeout(PATIENCE, start).await.unwrap().unwrap();
    let hello = start.client_hello();
    assert_eq!(hello.server_name(), None);
    assert_eq!(hello.alpn().unwrap().collect::<Vec<_>>(), [b"http/1.1"]);
    let groups: Vec<_> = hello.named_groups().unwrap().to_vec();
    assert_eq!(groups[0], rustls::NamedGroup::X25519MLKEM768);
    drop(start);
    assert!(dialing.await.unwrap().is_err());

    let (_node, contact) = tls(1);
    let tls = stranger(contact.addr).await.unwrap();
    let group = tls.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(tls.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}
