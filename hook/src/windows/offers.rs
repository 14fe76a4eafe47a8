//! Listeners outlive the daemon that they were offered to: they are offered to the next.

use std::net::SocketAddr;
use std::sync::Once;
use std::thread::{Builder, sleep};
use std::time::Duration;

use windows_sys::Win32::Networking::WinSock::SOCKET;

use super::table::table;
use super::{daemon, real};

/// Between two looks. Nobody is told when a pipe ends that nobody waits at, and a thread that waited could not be made to let go.
const PAUSE: Duration = Duration::from_secs(1);

/// What phantom-run gets to be first with a new daemon: it says whose this program's token is. It looks twice a second.
const FIRST: Duration = Duration::from_secs(2);

/// From now on there is a thread that sees to it; without one, listeners end with the daemon.
pub(super) fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| drop(Builder::new().spawn(keep)));
}

fn keep() {
    loop {
        sleep(PAUSE);
        if table().lost().is_empty() || !daemon::is_there() {
            continue;
        }
        sleep(FIRST);
        let lost = table().lost();
        lost.into_iter().for_each(|(socket, claim)| offer(socket, claim));
    }
}

fn offer(socket: SOCKET, claim: SocketAddr) {
    let Ok(local) = real::local(socket) else { return };
    let Ok((line, _)) = daemon::listen(claim, local) else { return };
    let mut table = table();
    // Whoever closed the socket meanwhile may have another of that number now.
    if let Some(entry) = table.known(socket).filter(|entry| entry.lost() == Some(claim)) {
        entry.listening = Some(line);
    }
}
