//! Our link as a transport of libp2p: the link has proven the peer's key already, so nothing is negotiated but streams.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use libp2p::core::multiaddr::Protocol;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{Transport, multihash};
use libp2p::{Multiaddr, PeerId, identity, yamux};
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::wire::NodeContact;
use tokio::sync::mpsc;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::link::{self, Link, Purpose};

/// Code of a multihash that is its own content: how the link secret travels in an address.
const IDENTITY_HASH: u64 = 0;

/// The name that libp2p has for an identity key. `None`: not a key.
// protocol: D11
pub(super) fn peer_id(key: &VerifyingKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The identity key inside a peer id of ours.
pub(super) fn identity_key(peer: &PeerId) -> Option<VerifyingKey> {
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(VerifyingKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// A contact as an address: /ip4|ip6/…/tcp/…/certhash/(link secret)/p2p/….
pub(super) fn multiaddr(contact: &NodeContact) -> Option<Multiaddr> {
    let secret = multihash::Multihash::wrap(IDENTITY_HASH, &contact.link_secret).ok()?;
    Some(
        Multiaddr::from(contact.addr.ip())
            .with(Protocol::Tcp(contact.addr.port()))
            .with(Protocol::Certhash(secret))
            .with(Protocol::P2p(peer_id(&contact.identity)?)),
    )
}

/// The contact in an address; `None` for any other form.
// protocol: D12
pub(super) fn contact(addr: &Multiaddr) -> Option<NodeContact> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Tcp(port @ 1..) = parts.next()? else { return None };
    let Protocol::Certhash(secret) = parts.next()? else { return None };
    let Protocol::P2p(peer) = parts.next()? else { return None };
    let link_secret = secret.digest().try_into().ok()?;
    let identity = identity_key(&peer)?;
    parts.next().is_none().then_some(NodeContact { identity, addr: SocketAddr::new(ip, port), link_secret })
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkFailed {
    #[error("{0}")]
    Link(#[from] link::LinkError),
    #[error("streams: {0}")]
    Streams(#[from] std::io::Error),
    #[error("not a node's key")]
    Key,
}

type Output = (PeerId, StreamMuxerBox);
type Upgrade = BoxFuture<'static, Result<Output, LinkFailed>>;

pub(super) struct LinkTransport {
    links: Arc<dyn link::Transport>,
    incoming_rx: mpsc::Receiver<Link>,
    listener: Option<(ListenerId, Multiaddr)>,
    events: VecDeque<TransportEvent<Upgrade, LinkFailed>>,
}

impl LinkTransport {
    pub(super) fn new(links: Arc<dyn link::Transport>, incoming_rx: mpsc::Receiver<Link>) -> Self {
        Self { links, incoming_rx, listener: None, events: VecDeque::new() }
    }
}

// protocol: D9
async fn upgrade(link: Link, dialed: bool) -> Result<Output, LinkFailed> {
    let peer = peer_id(&link.peer).ok_or(LinkFailed::Key)?;
    let (stream, config) = (link.stream.compat(), yamux::Config::default());
    let muxer = if dialed {
        StreamMuxerBox::new(config.upgrade_outbound(stream, "").await?)
    } else {
        StreamMuxerBox::new(config.upgrade_inbound(stream, "").await?)
    };
    Ok((peer, muxer))
}

impl Transport for LinkTransport {
    type Output = Output;
    type Error = LinkFailed;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<LinkFailed>> {
        self.listener = Some((id, addr.clone()));
        self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: addr });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|(listener, _)| *listener == id).is_some()
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Upgrade, TransportError<LinkFailed>> {
        let contact = contact(&addr).ok_or(TransportError::MultiaddrNotSupported(addr))?;
        let links = self.links.clone();
        Ok(async move { upgrade(links.dial(&contact, Purpose::Database).await?, true).await }.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, LinkFailed>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let Some((listener_id, local_addr)) = self.listener.clone() else { return Poll::Pending };
        match self.incoming_rx.poll_recv(cx) {
            Poll::Ready(Some(link)) => {
                let send_back_addr = Multiaddr::from(link.remote.ip()).with(Protocol::Tcp(link.remote.port()));
                let upgrade = upgrade(link, false).boxed();
                Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr })
            }
            // No more links: the daemon is stopping.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phantom_proto::crypto::SigningKey;

    // protocol: D12
    #[test]
    fn addresses_round_trip() {
        for addr in ["127.0.0.1:443", "[2001:db8::1]:8443"] {
            let contact_in = NodeContact {
                identity: SigningKey::from_seed(&[1; 32]).verifying_key(),
                addr: addr.parse().unwrap(),
                link_secret: [7; 32],
            };
            assert_eq!(contact(&multiaddr(&contact_in).unwrap()), Some(contact_in));
        }
        assert_eq!(contact(&"/ip4/127.0.0.1/tcp/1".parse().unwrap()), None);
    }

    /// Computed by scripts/vectors/names.py.
    // protocol: D11, D12
    #[test]
    fn independently_computed_peer_ids_and_addresses() {
        use phantom_proto::wire::Wire;
        let vector = |name: &str| {
            let lines = include_str!("../../proto/vectors/names.txt").lines();
            lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1
        };
        for version in ["4", "6"] {
            let bytes = hex::decode(vector(&format!("contact-{version}"))).unwrap();
            let known = NodeContact::from_bytes(&bytes).unwrap();
            assert_eq!(hex::encode(peer_id(&known.identity).unwrap().to_bytes()), vector("peer-id"));
            let addr = multiaddr(&known).unwrap();
            assert_eq!(hex::encode(addr.to_vec()), vector(&format!("multiaddr-{version}")));
            assert_eq!(contact(&addr), Some(known));
        }
    }
}
