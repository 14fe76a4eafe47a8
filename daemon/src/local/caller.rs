//! As whom the program runs that came: a Unix socket says it, of the loopback device's connections the kernel does when it is asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::here;

/// Whoever came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over the loopback device.
    Tcp {
        /// Their end.
        theirs: SocketAddr,
        /// Ours.
        ours: SocketAddr,
    },
    /// A user, at a Unix socket.
    Unix(u32),
}

impl Caller {
    /// The user whose socket it is; none when it is not in this network (any more). It costs the same however many connections there
    /// are: of others', too, who would make a table long.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn uid(&self) -> io::Result<Option<u32>> {
        match *self {
            Self::Unix(uid) => Ok(Some(uid)),
            Self::Tcp { theirs, ours } => here::owner(theirs, ours),
        }
    }

    /// That this kernel says whose a connection is, shown by one of our own: one without `inet_diag` answers as if there were none.
    ///
    /// # Errors
    /// When it does not.
    pub fn is_told() -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (theirs, ours) = (TcpStream::connect(listener.local_addr()?)?, listener.local_addr()?);
        let told = Self::Tcp { theirs: theirs.local_addr()?, ours }.uid()?;
        told.map(drop).ok_or_else(|| io::Error::other("this kernel does not say whose a connection is (inet_diag)"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn the_kernel_says_whose_a_connection_is_while_it_stands() {
        Caller::is_told().unwrap();
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, from) = listener.accept().unwrap();
            let caller = Caller::Tcp { theirs: from, ours: ours.local_addr().unwrap() };
            assert_eq!(caller.uid().unwrap(), Some(own()), "{at}");
            drop(theirs);
            assert_eq!(caller.uid().unwrap(), None, "what was closed is nobody's, and not root's: {at}");
        }
    }

    #[test]
    fn a_socket_of_ipv6_that_speaks_ipv4_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let IpAddr::V4(ip) = at.ip() else { panic!("{at}") };
        let _theirs = TcpStream::connect((ip.to_ipv6_mapped(), at.port())).unwrap();
        let (ours, theirs) = listener.accept().unwrap();
        let caller = Caller::Tcp { theirs, ours: ours.local_addr().unwrap() };
        assert_eq!(caller.uid().unwrap(), Some(own()));
    }

    #[test]
    fn whoever_listens_where_a_caller_was_is_not_taken_for_it() {
        let (listener, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (theirs, ours) = (other.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(Caller::Tcp { theirs, ours }.uid().unwrap(), None);
        // Not connected in the other direction, either.
        let _stream = TcpStream::connect(ours).unwrap();
        let (_, theirs) = listener.accept().unwrap();
        assert_eq!(Caller::Tcp { theirs: ours, ours: theirs }.uid().unwrap(), None, "ours has been closed again");
    }
}
