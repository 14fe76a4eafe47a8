//! `links` of phantomd.toml, through a running node: so many links of others are open, and one more is closed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use phantom_daemon::args::Options;
use phantom_daemon::config::Folders;
use phantom_daemon::eula::Consent;
use phantom_daemon::link::{Certificate, Face, Limits, Link, LinkConfig, Purpose, TlsTransport, Transport};
use phantom_daemon::listening::Sockets;
use phantom_daemon::{assembly, startup};
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

fn dialer() -> TlsTransport {
    let config = LinkConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: Arc::new(SigningKey::from_seed(&[1; 32])),
        link_secret: [1; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").unwrap(),
        limits: Limits::default(),
    };
    TlsTransport::bind(config).unwrap()
}

async fn dial(from: &TlsTransport, to: &NodeContact) -> Link {
    timeout(PATIENCE, from.dial(to, Purpose::Frames)).await.expect("an answer in time").unwrap()
}

/// The other side says nothing on a link that it keeps, and ends one for which it has no place.
async fn is_closed(link: &mut Link) -> bool {
    let mut byte = [0];
    matches!(timeout(PATIENCE, link.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

async fn is_open(link: &mut Link) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        _ = link.stream.read(&mut byte) => false,
        () = tokio::task::yield_now() => true,
    }
}

// protocol: L28
#[tokio::test]
async fn a_node_has_so_many_links_of_others_open_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("phantomd.toml"), "[limits]\nlinks = 16\n").unwrap();
    let options = Options {
        config: Some(dir.path().join("phantomd.toml")),
        resolver: None,
        command_keys: None,
        data_dir: Some(dir.path().join("data")),
        socket: None,
        listen: Some("127.0.0.1:0".parse().unwrap()),
        peers: Vec::new(),
        log: None,
        accept_eula: true,
        hurry: false,
        leave_router: false,
    };
    let ready = startup::init(&options, &Folders::default(), Consent::Given, &mut phantom_daemon::random()).unwrap();
    let setup = Arc::new(startup::prepare(ready, Sockets::default()).unwrap());
    let contact = setup.contact.clone();
    let daemon = assembly::start(setup).await.unwrap();
    let dialer = dialer();
    let mut links = Vec::new();
    for _ in 0..16 {
        links.push(dial(&dialer, &contact).await);
    }
    for _ in 0..3 {
        assert!(is_closed(&mut dial(&dialer, &contact).await).await, "a seventeenth link is open");
    }
    for link in &mut links {
        assert!(is_open(link).await, "one of the sixteen was closed");
    }
    // A place that was left is free again, as soon as the node has noticed.
    drop(links.pop());
    let again = async {
        loop {
            let mut link = dial(&dialer, &contact).await;
            // Nothing is said on a link that is kept: the next one that is closed shows that this one stays.
            if !is_closed_or_next_is(&mut link, &dialer, &contact).await {
                return link;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("the place stayed taken");
    daemon.stop().await;
}

/// Whether this link is closed; false when one dialed after it is, so that this one has the last place.
async fn is_closed_or_next_is(link: &mut Link, dialer: &TlsTransport, contact: &NodeContact) -> bool {
    let mut next = dial(dialer, contact).await;
    tokio::select! {
        biased;
        closed = is_closed(link) => closed,
        _ = is_closed(&mut next) => false,
    }
}
