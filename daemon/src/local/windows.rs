//! Windows: the loopback device alone. Whose a connection of it is, nothing here asks the system yet.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpStream;

/// A socket in the file system: none, on Windows.
#[derive(Debug)]
pub enum Socket {}

impl Socket {
    pub(super) fn bind(_: &Path) -> io::Result<Self> {
        Err(io::Error::new(ErrorKind::Unsupported, "there are no such sockets on Windows"))
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, u32)> {
        match *self {}
    }
}

/// See the module.
pub(super) fn owner(_: SocketAddr, _: SocketAddr) -> io::Result<Option<u32>> {
    Err(io::Error::new(ErrorKind::Unsupported, "whose a connection is, is not asked on Windows"))
}
