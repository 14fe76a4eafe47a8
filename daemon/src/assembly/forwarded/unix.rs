//! Unix: a port of the loopback device or a Unix socket; whether something listens there the kernel says.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::ident::ApAddress;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::connections::Programs;
use crate::control::{Refusal, Target};
use crate::far::Stream;
use crate::netlink::Netlink;
use crate::splice::{carry, splice};

/// How long a service of this computer may take to accept.
const ACCEPTS: Duration = Duration::from_secs(10);

/// What stands behind a port.
pub(in crate::assembly) struct Service(pub(in crate::assembly) Target);

impl Service {
    /// Whether it can be one that this daemon offers.
    pub(in crate::assembly) fn can_be_offered(_: &Target) -> Result<(), Refusal> {
        Ok(())
    }
}

#[async_trait]
impl Programs for Service {
    async fn listens(&self, _: u16) -> bool {
        let to = match &self.0 {
            Target::Tcp(to) => *to,
            Target::Unix(path) => return fs::metadata(path).is_ok_and(|about| about.file_type().is_socket()),
        };
        Netlink::sock_diag().and_then(|kernel| kernel.listens(to)).unwrap_or_else(|error| {
            tracing::debug!("whether a service of this computer listens cannot be told: {error}");
            false
        })
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, far: Box<dyn Stream>) {
        let served = match &self.0 {
            Target::Tcp(to) => timeout(ACCEPTS, TcpStream::connect(to)).await.map(|tcp| tcp.map(Near::Tcp)),
            Target::Unix(path) => timeout(ACCEPTS, UnixStream::connect(path)).await.map(|unix| unix.map(Near::Unix)),
        };
        match served {
            Ok(Ok(Near::Tcp(tcp))) => splice(tcp, far).await,
            Ok(Ok(Near::Unix(unix))) => join(unix, far).await,
            // It stopped to listen after the verdict: dropping the stream resets the connection.
            _ => tracing::debug!("a service of this computer did not take a connection"),
        }
    }
}

/// A service's end of a connection.
enum Near {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// As `splice`; a Unix socket knows no reset, so what breaks off at one end ends the other.
async fn join(mut unix: UnixStream, far: Box<dyn Stream>) {
    let (mut unix_read, mut unix_write) = unix.split();
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let both = tokio::try_join!(carry(&mut unix_read, &mut far_write), carry(&mut far_read, &mut unix_write));
    if both.is_err() {
        tracing::debug!("a connection to a service of this computer broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;

    fn to(port: u16) -> Target {
        Target::Tcp(at(port))
    }

    fn at(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[tokio::test]
    async fn what_listens_is_seen_and_no_connection_made_for_it() {
        let listener = tokio::net::TcpListener::bind(at(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(Target::Tcp(address));
        assert!(service.listens(80).await);
        assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "somebody connected");
        let other = Service(Target::Tcp((Ipv4Addr::new(127, 9, 9, 9), address.port()).into()));
        assert!(!other.listens(80).await, "it is at another address");
        // A connection at the same port is no listener.
        let (_client, _accepted) = (TcpStream::connect(address).await.unwrap(), listener.accept().await.unwrap());
        drop(listener);
        assert!(!service.listens(80).await);
        let any = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(
            Service(Target::Tcp((Ipv6Addr::LOCALHOST, port).into())).listens(80).await
                && Service(to(port)).listens(80).await
        );
        let any = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(
            Service(to(port)).listens(80).await
                && !Service(Target::Tcp((Ipv6Addr::LOCALHOST, port).into())).listens(80).await
        );
    }
}
