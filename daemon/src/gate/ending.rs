//! What happens to a phantom namespace when nobody carries its packets any more: errors at once, instead of waiting.
//!
//! The helper does it when the daemon is gone, and a new process does it when the helper is gone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::again::{self, Serving};
use crate::netlink::{Listener, Netlink, Transport};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Connections that come about while others are aborted are found by looking again, this often at most.
const ROUNDS: usize = 8;

/// Where the kernel counts a namespace's sockets.
const COUNTS: [&str; 2] = ["/proc/self/net/sockstat", "/proc/self/net/sockstat6"];

/// Both of them fit several times.
const MAX_COUNTS: usize = 4096;

/// What is needed to end a phantom namespace, opened inside of it.
pub(super) struct Ending {
    route: Netlink,
    diag: Netlink,
    /// None where /proc does not show them.
    counts: Option<[fs::File; 2]>,
}

impl Ending {
    /// For the network namespace that this process is in.
    pub(super) fn here() -> io::Result<Self> {
        // What is open keeps to the namespace that it was opened in.
        let counts = COUNTS.map(fs::File::open);
        let counts = if let [Ok(v4), Ok(v6)] = counts { Some([v4, v6]) } else { None };
        Ok(Self { route: Netlink::route()?, diag: Netlink::sock_diag()?, counts })
    }

    /// The TCP sockets that listen.
    pub(super) fn listeners(&self) -> io::Result<Vec<Listener>> {
        if self.has_none("TCP") { Ok(Vec::new()) } else { self.diag.listeners() }
    }

    /// What the end of a gate would have done that nobody came to end: aborts what led out by it. What programs have among themselves
    /// goes on.
    pub(super) fn make_up_for(&self) {
        for _ in 0..ROUNDS {
            if self.diag.abort_beyond(Transport::Tcp).is_ok_and(|aborted| aborted == 0) {
                break;
            }
        }
    }

    fn abort(&self, transport: Transport) -> io::Result<usize> {
        let name = if transport == Transport::Tcp { "TCP" } else { "UDP" };
        if self.has_none(name) { Ok(0) } else { self.diag.abort(transport) }
    }

    /// Whether the namespace has no such socket for certain. Asking is cheap; a listing walks through the sockets of the
    /// whole system, which takes milliseconds, and most programs have none.
    fn has_none(&self, transport: &str) -> bool {
        self.counts.as_ref().is_some_and(|files| {
            files.iter().all(|file| {
                let mut text = [0; MAX_COUNTS];
                let length = file.read_at(&mut text, 0).unwrap_or(0);
                is_none(&String::from_utf8_lossy(&text[..length]), transport)
            })
        })
    }

    /// Aborts every connection, and every attempt at one. What is tried from now on fails at once with ENETUNREACH.
    pub(super) fn come(&self, device: &str) {
        // First the routes: who is woken by an error below may connect anew before the kernel, which takes a moment for
        // that, has taken the device away; that attempt shall have nowhere to go.
        let _ = self.route.remove_default_routes();
        let _ = self.abort(Transport::Tcp);
        let _ = self.route.remove_link(device);
        for _ in 0..ROUNDS {
            if self.abort(Transport::Tcp).is_ok_and(|aborted| aborted == 0) {
                break;
            }
        }
        // Questions to a resolver. Kernels without that leave programs to their own patience.
        let _ = self.abort(Transport::Udp);
    }
}

/// Whether a text of the kernel's says that no socket of that kind is in use, in its first number.
fn is_none(text: &str, transport: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once(": inuse "))
        .any(|(kind, count)| kind.trim_end_matches('6') == transport && count.split_whitespace().next() == Some("0"))
}

/// Ends the network namespace at descriptor 0, which the user namespace at descriptor 1 owns if there is one: the helper
/// was killed.
pub(super) fn of_a_killed_helper(device: &str) -> i32 {
    let (input, output) = (io::stdin(), io::stdout());
    let network = || move_into_link_name_space(input.as_fd(), Some(LinkNameSpaceType::Network));
    let entered = network().or_else(|_| {
        move_into_link_name_space(output.as_fd(), Some(LinkNameSpaceType::User))?;
        network()
    });
    match entered.map_err(io::Error::from).and_then(|()| Ending::here()) {
        Ok(ending) => {
            // Whoever takes the namespace up waits for the end of it.
            let _serving = Serving::begin(Instant::now() + again::TURN);
            ending.come(device);
            0
        }
        Err(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_is_understood() {
        let v4 = "sockets: used 3\nTCP: inuse 0 orphan 0 tw 2 alloc 1 mem 0\nUDP: inuse 2 mem 0\nUDPLITE: inuse 0\n";
        let v6 = "TCP6: inuse 1\nUDP6: inuse 0\nUDPLITE6: inuse 0\n";
        assert!(is_none(v4, "TCP") && !is_none(v4, "UDP"));
        assert!(!is_none(v6, "TCP") && is_none(v6, "UDP"));
        // Whatever is not said may be.
        assert!(!is_none("", "TCP") && !is_none("TCP: inuse", "TCP"));
    }
}
