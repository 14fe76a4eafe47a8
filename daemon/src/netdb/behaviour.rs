//! What libp2p is told to be: Kademlia and identify with this protocol's names and bounds (docs/protocol.md, section "The DHT").

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::identity::DecodingError;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, BucketInserts, StoreInserts};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, StreamProtocol, identify, identity};
use phantom_proto::crypto::VerifyingKey;

use super::kademlia::{Asking, asking};
use super::records::{Records, records};

use super::commands::Flood;

/// How often a node asks those to which it is connected who they are, and looks for the nodes near itself and at each distance: both say
/// something new only when nodes come, and then happen by themselves.
const LOOK: Duration = Duration::from_secs(3600);

/// How long one query may take.
pub(super) const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// The DHT's protocol.
pub(super) const KAD: StreamProtocol = StreamProtocol::new("/phantom/kad/1");

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) commands: Flood,
    pub(super) records: Records,
    pub(super) asking: Asking,
}

impl Behaviour {
    /// That of the node with this peer id and key.
    // protocol: D21, D22, D23, J24
    pub(super) fn new(own: PeerId, key: &VerifyingKey) -> Result<Self, DecodingError> {
        let key = identity::ed25519::PublicKey::try_from_bytes(&key.0)?;
        let config = identify::Config::new("/phantom/id/1".into(), identity::PublicKey::from(key))
            .with_agent_version("phantom".into())
            .with_interval(LOOK)
            .with_hide_listen_addrs(true);
        let (kad, identify) = (kademlia(own), identify::Behaviour::new(config));
        Ok(Self { kad, identify, commands: Flood::new(), records: records(), asking: asking() })
    }
}

/// It finds nodes; records are kept on our own shelf and asked for by requests of our own, so its store is empty.
// protocol: D10, D13, D15, D18, D19, D20
fn kademlia(own: PeerId) -> kad::Behaviour<MemoryStore> {
    let store_config =
        MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
    let mut config = kad::Config::new(KAD);
    config
        .set_query_timeout(QUERY_LIMIT)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_kbucket_inserts(BucketInserts::Manual)
        .disjoint_query_paths(true)
        .set_parallelism(NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN))
        .set_record_ttl(None)
        .set_provider_record_ttl(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(LOOK));
    kad::Behaviour::with_config(own, MemoryStore::with_config(own, store_config), config)
}
