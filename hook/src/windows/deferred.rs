//! Connections that a program does not wait for: the daemon is asked beside it, and the socket is connected when there is an answer.
//!
//! ```text
//!  program ── connect: "would block", ConnectEx: "pending" ──> its own loop
//!     asking: a thread each ── verdict ──> issuing: one thread, as long as the process ── real call ──> kernel ──> program's loop
//! ```
//! Windows ends what a thread has under way when the thread ends, so one that does not end begins it. Only the kernel tells a program
//! of the end, and once: what fails is connected to a port that refuses.

use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::thread::Builder;

use windows_sys::Win32::Networking::WinSock::{SOCKET, WSAENOBUFS};

use super::real::Issue;
use super::table::table;
use super::{daemon, real};

/// Verdicts that wait for the one thread, which does not wait for anybody.
const ROOM: usize = 64;

struct Verdict {
    socket: SOCKET,
    number: u64,
    to: SocketAddr,
    /// Where the daemon's door is; none when there is no connection.
    door: Option<SocketAddr>,
    is_v6: bool,
}

/// Has the daemon open a connection for an attempt.
pub(super) fn open(socket: SOCKET, number: u64, to: SocketAddr, from: SocketAddr) -> Result<(), i32> {
    let failed = |_| {
        table().ends(socket, number);
        WSAENOBUFS
    };
    let verdict_tx = issuing().ok_or(()).map_err(failed)?;
    let asking = move || {
        let door = daemon::connect(to, from).ok();
        let _ = verdict_tx.send(Verdict { socket, number, to, door, is_v6: from.is_ipv6() });
    };
    Builder::new().spawn(asking).map(drop).map_err(|_| failed(()))
}

/// The thread that begins what was answered.
fn issuing() -> Option<&'static SyncSender<Verdict>> {
    static ISSUING: OnceLock<Option<SyncSender<Verdict>>> = OnceLock::new();
    let begin = || {
        let (verdict_tx, verdict_rx) = sync_channel(ROOM);
        Builder::new().spawn(move || verdict_rx.iter().for_each(|verdict| settle(&verdict))).ok()?;
        Some(verdict_tx)
    };
    ISSUING.get_or_init(begin).as_ref()
}

fn settle(verdict: &Verdict) {
    let mut table = table();
    let Some(attempt) = table.ends(verdict.socket, verdict.number) else { return };
    table.of(verdict.socket).peer = verdict.door.map(|_| verdict.to);
    // With the table in hand: nobody closes the socket meanwhile.
    let Some(to) = verdict.door.or_else(|| refusing(verdict.is_v6)) else { return };
    issue(verdict.socket, to, attempt.issue);
}

fn issue(socket: SOCKET, to: SocketAddr, issue: Option<Issue>) {
    let _ = match issue {
        // SAFETY: the program was told of no end yet, so all of it is there; with the attempt it is forgotten here.
        Some(Issue::Overlapped(overlapped)) => unsafe { real::connect_ex(socket, to, &overlapped) },
        Some(Issue::NonBlocking) => real::connect(socket, to),
        None => Ok(()),
    };
}

/// Gives an attempt up, before the program's own call ends it: the one of these arguments, or whichever there is. The kernel has it
/// from then on.
pub(super) fn give_up(socket: SOCKET, overlapped: Option<usize>) {
    let mut table = table();
    let Some(entry) = table.known(socket) else { return };
    let is_meant = |issue: &Option<Issue>| match (issue, overlapped) {
        (Some(Issue::Overlapped(under_way)), Some(at)) => under_way.at == at,
        (Some(Issue::Overlapped(_)), None) => true,
        // Of this one nobody is told.
        _ => false,
    };
    let Some(attempt) = entry.attempt.take_if(|attempt| is_meant(&attempt.issue)) else { return };
    let is_v6 = real::local(socket).is_ok_and(|local| local.is_ipv6());
    if let Some(to) = refusing(is_v6) {
        issue(socket, to, attempt.issue);
    }
}

/// A port that refuses, for as long as the process.
fn refusing(is_v6: bool) -> Option<SocketAddr> {
    static V4: LazyLock<Option<SocketAddr>> = LazyLock::new(|| real::refusing(false).ok());
    static V6: LazyLock<Option<SocketAddr>> = LazyLock::new(|| real::refusing(true).ok());
    if is_v6 { *V6 } else { *V4 }
}
