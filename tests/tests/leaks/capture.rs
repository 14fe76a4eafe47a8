//! A capture of every packet of this network, and whose each of them was.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use phantom_tests::{PATIENCE, signal};

/// Where the packet goes that says: everything before was seen.
const LAST: &str = "198.51.100.254:19998";

/// Pause before that packet is sent once more.
const AGAIN: Duration = Duration::from_millis(300);

/// A capture of all interfaces of this namespace.
pub(crate) struct Capture {
    tcpdump: Child,
    lines: Receiver<String>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Numbers of the attacks whose packets left.
    pub(crate) attacks: BTreeSet<usize>,
    /// Packets that are nobody's, one line each.
    pub(crate) others: Vec<String>,
}

impl Capture {
    /// Begins; what the daemons say to each other at `port` of loopback is not looked at.
    pub(crate) fn start(port: &str) -> Result<Self> {
        // The daemons' links; the connection that is to be inherited; and what the kernel says of itself when an interface is
        // new.
        let but = format!(
            "not ((tcp port {port} and net 127.0.0.0/8) or (tcp port 39999 and host ::1) or (ip6 and src :: and dst net \
             ff02::/16))"
        );
        let mut tcpdump = Command::new("tcpdump")
            .args(["-i", "any", "-n", "-l", "--immediate-mode", "-s", "192", "-B", "65536", &but])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (line_tx, lines) = channel();
        let printed = BufReader::new(tcpdump.stdout.take().context("no pipe")?).lines();
        thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| line_tx.send(line)));
        let begun = BufReader::new(tcpdump.stderr.take().context("no pipe")?)
            .lines()
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on")));
        ensure!(begun.is_some(), "tcpdump does not start");
        let mut capture = Self { tcpdump, lines };
        capture.until_now()?;
        Ok(capture)
    }

    /// What was seen until now.
    fn until_now(&mut self) -> Result<Seen> {
        // Of this thread's network. Nobody else sends there.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"last", LAST)?;
        let end = Instant::now() + PATIENCE;
        let mut seen = Seen { attacks: BTreeSet::new(), others: Vec::new() };
        loop {
            let line = match self.lines.recv_timeout(AGAIN) {
                Ok(line) => line,
                // While it begins, tcpdump throws packets away.
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {
                    socket.send_to(b"last", LAST)?;
                    continue;
                }
                Err(_) => bail!("tcpdump ended early"),
            };
            if line.contains("far ") && line.contains("198.51.100.254.19998") {
                return Ok(seen);
            }
            // Lines that begin with space are bytes of the packet above.
            if line.starts_with(char::is_whitespace) || line.contains("198.51.100.254.19998") {
                continue;
            }
            match owner(&line) {
                Some(number) => drop(seen.attacks.insert(number)),
                None => seen.others.push(line),
            }
        }
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Result<Seen> {
        self.until_now()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.tcpdump.id()) {
            signal(pid, libc::SIGTERM);
        }
        let _ = self.tcpdump.wait();
    }
}

/// The number of the attack that a packet belongs to: its aim tells.
fn owner(line: &str) -> Option<usize> {
    (1..250).find(|number| marks(*number).iter().any(|mark| contains(line, mark)))
}

/// How the aims of an attack look in a line of tcpdump.
fn marks(number: usize) -> [String; 7] {
    let nibbles: Vec<String> = format!("{number:0>4}").chars().rev().map(String::from).collect();
    [
        format!("198.51.100.{number}"),
        format!("2001:db8:9::a:{number}"),
        format!(".{}", 20_000 + number),
        format!("a{number}.leak.test"),
        format!("a{number}.local"),
        format!("{number}.100.51.198.in-addr"),
        format!("{}.a.0.0.0", nibbles.join(".")),
    ]
}

/// Whether the line has the mark, not as a part of a longer number.
fn contains(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + mark.len()..].chars().next();
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        (!digit(before) || mark.starts_with('.')) && !digit(after)
    })
}
