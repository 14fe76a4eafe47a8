//! Sockets on which the daemon listens. They go over to the next process as they are: nobody finds the door shut meanwhile, and nobody
//! else can take their place.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(unix)]
use std::path::Path;
use std::sync::{Mutex, PoisonError};

#[cfg(unix)]
use crate::os::FileId;

/// Who comes to a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Other nodes.
    Nodes,
    /// Whoever fetches metrics.
    Metrics,
}

/// Some of them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// See [`For::Nodes`].
    pub nodes: Option<TcpListener>,
    /// See [`For::Metrics`].
    pub metrics: Option<TcpListener>,
    /// For programs of this computer, and which file each has.
    #[cfg(unix)]
    pub local: Vec<(UnixListener, FileId)>,
}

impl Sockets {
    fn tcp(&mut self, whom: For) -> &mut Option<TcpListener> {
        match whom {
            For::Nodes => &mut self.nodes,
            For::Metrics => &mut self.metrics,
        }
    }
}

/// What the process before has left, until it is asked for, and what is left to the next.
#[derive(Debug, Default)]
pub struct Listening {
    left: Mutex<Sockets>,
    ours: Mutex<Sockets>,
}

impl Listening {
    /// With what the process before has left.
    pub fn after(left: Sockets) -> Self {
        Self { left: Mutex::new(left), ours: Mutex::default() }
    }

    /// A socket at this address, where port 0 is any. Where there can be none, and the process before had one elsewhere, the daemon goes
    /// on with that: who has given it another address would lose it otherwise, and all that its programs have open.
    ///
    /// # Errors
    /// The system's.
    pub fn at(&self, whom: For, addr: SocketAddr) -> io::Result<TcpListener> {
        let left = lock(&self.left).tcp(whom).take();
        let before = left.as_ref().and_then(|left| left.local_addr().ok());
        let is_there = before.is_some_and(|at| at == addr || (addr.port() == 0 && at.ip() == addr.ip()));
        let socket = match (left, before) {
            (Some(left), _) if is_there => left,
            (left, Some(before)) => TcpListener::bind(addr).or_else(|_| {
                // One at all addresses is in the way of one at some.
                drop(left);
                TcpListener::bind(addr).or_else(|error| {
                    tracing::error!("cannot listen at {addr}: {error}; goes on at {before}, until it is started anew");
                    TcpListener::bind(before)
                })
            })?,
            _ => TcpListener::bind(addr)?,
        };
        socket.set_nonblocking(true)?;
        *lock(&self.ours).tcp(whom) = Some(socket.try_clone()?);
        Ok(socket)
    }

    /// The local socket that the process before had at this path, if it lies there still.
    #[cfg(unix)]
    pub(crate) fn local_at(&self, path: &Path) -> Option<UnixListener> {
        let mut left = lock(&self.left);
        let is_there =
            |(one, _): &(UnixListener, _)| one.local_addr().is_ok_and(|bound| bound.as_pathname() == Some(path));
        let at = left.local.iter().position(is_there)?;
        let is_its = FileId::of(path).is_ok_and(|now| now == left.local[at].1);
        is_its.then(|| left.local.swap_remove(at).0)
    }

    /// Keeps local sockets for the next process.
    #[cfg(unix)]
    pub(crate) fn leave_local(&self, sockets: Vec<(UnixListener, FileId)>) {
        lock(&self.ours).local.extend(sockets);
    }

    /// Closes what the process before has left and nobody has asked for: the configuration is another one. Local sockets, to which anybody
    /// may have come, are the caller's to close; their files are gone.
    pub fn forget(&self) -> Sockets {
        let left = std::mem::take(&mut *lock(&self.left));
        #[cfg(unix)]
        for (socket, file) in &left.local {
            let bound = socket.local_addr().ok();
            if let Some(path) = bound.as_ref().and_then(|bound| bound.as_pathname())
                && FileId::of(path).is_ok_and(|now| now == *file)
            {
                let _ = std::fs::remove_file(path);
            }
        }
        Sockets { nodes: None, metrics: None, ..left }
    }

    /// What is left to the next process.
    pub fn leave(&self) -> Sockets {
        std::mem::take(&mut lock(&self.ours))
    }
}

fn lock(sockets: &Mutex<Sockets>) -> std::sync::MutexGuard<'_, Sockets> {
    sockets.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    fn next(before: &Listening) -> Listening {
        Listening::after(before.leave())
    }

    fn at(socket: &TcpListener) -> SocketAddr {
        socket.local_addr().unwrap()
    }

    #[test]
    fn the_next_process_has_the_same_sockets() {
        let first = Listening::default();
        let [nodes, metrics] = [For::Nodes, For::Metrics].map(|whom| at(&first.at(whom, any()).unwrap()));
        assert!(Listening::default().at(For::Nodes, nodes).is_err(), "it is taken");
        let second = next(&first);
        assert_eq!(at(&second.at(For::Nodes, any()).unwrap()), nodes, "any port is the one from before");
        assert_eq!(at(&second.at(For::Metrics, metrics).unwrap()), metrics);
        assert_eq!(at(&next(&second).at(For::Nodes, nodes).unwrap()), nodes);
    }

    #[test]
    fn another_address_is_another_socket_unless_somebody_has_it() {
        let first = Listening::default();
        let before = at(&first.at(For::Nodes, any()).unwrap());
        let second = next(&first);
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], before.port()));
        assert_eq!(at(&second.at(For::Nodes, elsewhere).unwrap()), elsewhere);
        let somebody = TcpListener::bind(any()).unwrap();
        assert_eq!(at(&next(&second).at(For::Nodes, at(&somebody)).unwrap()), elsewhere, "it goes on");
    }

    #[test]
    fn all_addresses_are_no_other_than_some() {
        let first = Listening::default();
        let all = at(&first.at(For::Nodes, ([0; 4], 0).into()).unwrap());
        let one = SocketAddr::from(([127, 0, 0, 1], all.port()));
        assert_eq!(at(&next(&first).at(For::Nodes, one).unwrap()), one);
    }

    #[test]
    fn what_nobody_asks_for_is_closed() {
        let first = Listening::default();
        let metrics = at(&first.at(For::Metrics, any()).unwrap());
        let second = next(&first);
        assert!(TcpListener::bind(metrics).is_err());
        drop(second.forget());
        assert!(TcpListener::bind(metrics).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_local_socket_that_nobody_asks_for_goes_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        let left = Sockets { local: vec![(socket, FileId::of(&path).unwrap())], ..Sockets::default() };
        drop(Listening::after(left).forget());
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_local_socket_is_the_same_while_its_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let left = || {
            let _ = std::fs::remove_file(&path);
            let socket = UnixListener::bind(&path).unwrap();
            Sockets { local: vec![(socket, FileId::of(&path).unwrap())], ..Sockets::default() }
        };
        assert!(Listening::after(left()).local_at(&folder.path().join("another")).is_none());
        assert!(Listening::after(left()).local_at(&path).is_some());
        let next = Listening::after(left());
        std::fs::remove_file(&path).unwrap();
        assert!(next.local_at(&path).is_none());
        let next = Listening::after(left());
        std::fs::remove_file(&path).unwrap();
        let _another = UnixListener::bind(&path).unwrap();
        assert!(next.local_at(&path).is_none(), "somebody else's lies there");
    }
}
