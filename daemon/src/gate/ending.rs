//! What happens to a phantom namespace when nobody carries its packets any more: errors at once, instead of waiting.
//!
//! The helper does it when the daemon is gone, and a new process does it when the helper is gone.

use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{Netlink, Transport};

/// Connections that come about while others are aborted are found by looking again, this often at most.
const ROUNDS: usize = 8;

/// What is needed to end a phantom namespace, opened inside of it.
pub(super) struct Ending {
    route: Netlink,
    diag: Netlink,
}

impl Ending {
    /// For the network namespace that this process is in.
    pub(super) fn here() -> io::Result<Self> {
        Ok(Self { route: Netlink::route()?, diag: Netlink::sock_diag()? })
    }

    /// The sockets of the namespace.
    pub(super) fn diag(&self) -> &Netlink {
        &self.diag
    }

    /// Aborts every connection, and every attempt at one. What is tried from now on fails at once with ENETUNREACH.
    pub(super) fn come(&self, device: &str) {
        // First those that wait: taking the device away takes the kernel a moment.
        let _ = self.diag.abort(Transport::Tcp);
        let _ = self.route.remove_link(device);
        for _ in 0..ROUNDS {
            if self.diag.abort(Transport::Tcp).is_ok_and(|aborted| aborted == 0) {
                break;
            }
        }
        // Questions to a resolver. Kernels without that leave programs to their own patience.
        let _ = self.diag.abort(Transport::Udp);
    }
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
            ending.come(device);
            0
        }
        Err(_) => 1,
    }
}
