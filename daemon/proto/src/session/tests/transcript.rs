//! One whole session as it was on the wire, with the secrets of its TLS: scripts/vectors/transcript.py reads it by docs/protocol.md alone.
//!
//! TLS draws what it sends, so that no other session has the same bytes; it has the same messages of the same lengths. With
//! PHANTOM_RECORD=1 in the environment the test writes the file anew.

use std::sync::Mutex;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/transcript.txt");

/// Keeps what a client's TLS would tell its debugger.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<String>>);

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push(format!("secret {label} {}", hex::encode(secret)));
    }
}

/// A question, its answer, one end, the loss of the tunnel, and the other end over another: the lines of the file.
fn recorded() -> Vec<String> {
    let (client_key, server_key) = (key(1), key(2));
    let target = ApAddress::of(&server_key.verifying_key());
    let secrets = Arc::new(Secrets::default());
    let mut config = tls::client_config(&client_key, target).unwrap();
    config.key_log = secrets.clone();
    let name = ServerName::IpAddress(target.ipv6().into());
    let tls = ClientConnection::new(Arc::new(config), name).unwrap().into();
    let owner = server_key.verifying_key();
    let mut client = Session::connect_over(&mut StdRng::seed_from_u64(1), tls, &owner, PORT, SRC).unwrap();
    let mut server = Session::accept(Arc::new(server_key));
    let mut flights = Vec::new();
    exchange(&mut client, &mut server, &mut flights);
    client.app_input(b"question").unwrap();
    exchange(&mut client, &mut server, &mut flights);
    server.app_input(b"answer").unwrap();
    client.app_end().unwrap();
    exchange(&mut client, &mut server, &mut flights);
    let secret = client.secret().unwrap().clone();
    let mut goes_on = Vec::new();
    client.far_lost();
    server.far_lost();
    client.resume().unwrap();
    client.take_far(&mut goes_on);
    let asked = asked(&owner, &goes_on).unwrap();
    assert_eq!(asked.id, secret.id(1));
    server.resume_on(1, asked.rest).unwrap();
    flights.push(("resumes", goes_on));
    server.app_end().unwrap();
    exchange(&mut client, &mut server, &mut flights);
    assert!(client.is_over() && server.is_over());
    let mut lines = std::mem::take(&mut *secrets.0.lock().unwrap());
    lines.extend(flights.iter().map(|(from, bytes)| format!("{from} {}", hex::encode(bytes))));
    lines
}

/// Carries what waits, until nothing does; the programs take what arrives.
fn exchange(client: &mut Session, server: &mut Session, flights: &mut Vec<(&'static str, Vec<u8>)>) {
    loop {
        let before = flights.len();
        for from in ["client", "server"] {
            let (source, sink) =
                if from == "client" { (&mut *client, &mut *server) } else { (&mut *server, &mut *client) };
            let mut bytes = Vec::new();
            source.take_far(&mut bytes);
            if bytes.is_empty() {
                continue;
            }
            sink.far_input(&bytes).unwrap();
            while let Some(event) = sink.poll() {
                if matches!(event, Event::Hello { .. }) {
                    sink.verdict(true).unwrap();
                }
            }
            take(sink, &mut Vec::new());
            flights.push((from, bytes));
        }
        if flights.len() == before {
            return;
        }
    }
}

/// Which messages are in the flights, and how long each is; secrets by their names.
fn shape(lines: &[String]) -> Vec<(String, Vec<(u8, usize)>)> {
    let messages = |bytes: &str| {
        let (bytes, mut at, mut found) = (hex::decode(bytes).unwrap(), 0, Vec::new());
        while let Some((_, len)) = Message::read(&bytes[at..]).unwrap() {
            found.push((bytes[at], len));
            at += len;
        }
        assert_eq!(at, bytes.len(), "whole messages");
        found
    };
    let one = |line: &String| match line.split_once(' ').unwrap() {
        (from @ ("client" | "server" | "resumes"), bytes) => (from.to_owned(), messages(bytes)),
        (_, rest) => (rest.rsplit_once(' ').unwrap().0.to_owned(), Vec::new()),
    };
    lines.iter().map(one).collect()
}

// protocol: S1, S5, S7, S11, S12, S14, S28, S29, S31, S35
#[test]
fn a_session_has_the_messages_of_the_transcript() {
    let recorded = recorded();
    if std::env::var_os("PHANTOM_RECORD").is_some() {
        let head = "# A session: secrets of its TLS as in a key log, flights of both ends, `resumes` those of the client that begin on another tunnel.\n\
            # Seeds: client 32 times 01, server 32 times 02; ports 40000 and 80. Recorded; scripts/vectors/transcript.py reads it.\n";
        std::fs::write(FILE, format!("{head}{}\n", recorded.join("\n"))).unwrap();
    }
    let text = std::fs::read_to_string(FILE).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(shape(&lines), shape(&recorded));
}
