//! What is offered to this computer alone, over HTTP: on the loopback device, or at a Unix socket of its owner.

mod address;
mod caller;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{HeaderMap, ORIGIN};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::listening::{For, Listening};

#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

pub use address::LocalAddress;
pub use caller::Caller;
pub use here::Socket;

/// Why something cannot be offered.
#[derive(Debug, thiserror::Error)]
#[error("cannot offer {what} at {at}: {source}\n  {}", advice(source))]
pub struct LocalError {
    what: &'static str,
    at: String,
    source: io::Error,
}

/// Bound; dropped, it leaves nothing in the file system.
#[derive(Debug)]
pub enum Listener {
    /// On the loopback device.
    Tcp(TcpListener),
    /// On a socket of its owner.
    Unix(Socket),
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "something else is there: end that, or name another place",
        _ => "name another place",
    }
}

/// The stream of whoever came.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    /// Binds, to offer `what`. A socket file that a run before left is replaced, anything else is not.
    ///
    /// # Errors
    /// When the address is taken, or no socket can be made.
    pub async fn bind(at: &LocalAddress, what: &'static str) -> Result<Self, LocalError> {
        let bound = match at {
            LocalAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            LocalAddress::Unix(path) => Socket::bind(path).map(Self::Unix),
        };
        bound.map_err(|source| LocalError { what, at: at.to_string(), source })
    }

    /// The same, where the process before may have left a socket.
    ///
    /// # Errors
    /// See [`Self::bind`].
    pub fn bind_for_metrics(at: &LocalAddress, listening: &Listening) -> Result<Self, LocalError> {
        let bound = match at {
            LocalAddress::Tcp(address) => {
                listening.at(For::Metrics, *address).and_then(TcpListener::from_std).map(Self::Tcp)
            }
            LocalAddress::Unix(path) => Socket::bind(path).map(Self::Unix),
        };
        bound.map_err(|source| LocalError { what: "metrics", at: at.to_string(), source })
    }

    /// The next one who comes, and who that is.
    ///
    /// # Errors
    /// Mostly for want of descriptors.
    pub async fn accept(&self) -> io::Result<(Box<dyn Stream>, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, theirs) = listener.accept().await?;
                let caller = Caller::Tcp { theirs, ours: stream.local_addr()? };
                Ok((Box::new(stream), caller))
            }
            Self::Unix(socket) => {
                let (stream, uid) = socket.accept().await?;
                Ok((Box::new(stream), Caller::Unix(uid)))
            }
        }
    }

    /// The port of the loopback device, if it is one.
    ///
    /// # Errors
    /// None that is known.
    pub fn tcp(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(..) => Ok(None),
        }
    }
}

/// Whether a Host header names the loopback device itself: a page of the web could lead its own name here, and read what it is told.
#[must_use]
pub fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a person, a program, or a page from there asks, as far as the browser says.
pub(crate) fn is_from_here(headers: &HeaderMap, host: &str) -> bool {
    let site = headers.get_all("sec-fetch-site").iter();
    let origin = headers.get_all(ORIGIN).iter();
    let own = format!("http://{host}");
    site.into_iter().all(|site| site == "none" || site == "same-origin")
        && origin.into_iter().all(|origin| *origin == *own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_loopback_device_by_its_own_name_alone() {
        for host in ["127.0.0.1", "127.0.0.1:80", "127.9.8.7:1", "localhost", "localhost:9464", "[::1]", "[::1]:80"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in ["", ":80", "rebound.example", "127.0.0.1.rebound.example:80", "localhost.example", "192.0.2.1"] {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
