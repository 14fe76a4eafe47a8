//! Text for nodes and addresses: peer strings, `.phantom` names, local aliases. Nothing here asks a network.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use phantom_ipc::name::{self, NameError};
use phantom_proto::crypto::derive;
use phantom_proto::ident::{ApAddress, ApName, NAME_SUFFIX};
use phantom_proto::wire::{NodeContact, Wire};
use serde::Deserialize;

/// What every peer string begins with.
pub const PEER_PREFIX: &str = "phantom-peer:";

/// Bytes of BLAKE3 at the end of a peer string, so that a mistyped character is noticed.
const PEER_CHECKSUM_LEN: usize = 4;

/// Full names that an identity remembers for reverse look-ups; some 100 bytes each, so at most about 100 kilobytes.
const MAX_REMEMBERED: usize = 1024;

/// A node's contact as text: what one hands to somebody who wants to join.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Peer(pub NodeContact);

/// Why a text is no peer string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It does not begin with the prefix.
    #[error("not a peer string: it must begin with `{PEER_PREFIX}` (see `phantom status` on the other node)")]
    Prefix,
    /// A character is missing, added or mistyped.
    #[error("the peer string is damaged: a character is missing or mistyped; copy it again")]
    Damaged,
}

// protocol: N8
fn peer_checksum(contact: &[u8]) -> [u8; PEER_CHECKSUM_LEN] {
    let hash = derive("phantom v1 peer string checksum", &[contact]);
    let mut checksum = [0; PEER_CHECKSUM_LEN];
    checksum.copy_from_slice(&hash[..PEER_CHECKSUM_LEN]);
    checksum
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.to_bytes();
        bytes.extend_from_slice(&peer_checksum(&bytes));
        write!(f, "{PEER_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let code = text.trim().strip_prefix(PEER_PREFIX).ok_or(PeerError::Prefix)?;
        let bytes = BASE64URL_NOPAD.decode(code.as_bytes()).map_err(|_| PeerError::Damaged)?;
        let (contact, checksum) = bytes.split_last_chunk().ok_or(PeerError::Damaged)?;
        if *checksum != peer_checksum(contact) {
            return Err(PeerError::Damaged);
        }
        NodeContact::from_bytes(contact).map(Self).map_err(|_| PeerError::Damaged)
    }
}

impl TryFrom<String> for Peer {
    type Error = PeerError;

    fn try_from(text: String) -> Result<Self, PeerError> {
        text.parse()
    }
}

/// A short name for an address on this computer: one label of lower-case letters, digits and inner hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Alias(String);

impl Alias {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Alias {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        name::check(text).map(|()| Self(text.to_owned()))
    }
}

impl TryFrom<String> for Alias {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Redacted: names stay out of logs.
impl fmt::Debug for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alias(…)")
    }
}

/// What an alias stands for, as configured: an AP address or a full name.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Target {
    address: ApAddress,
    name: Option<ApName>,
}

/// A text is neither an AP address nor a full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither an AP address (fd70:…) nor a full name (56 characters, then .{NAME_SUFFIX})")]
pub struct TargetError;

impl Target {
    /// The address meant.
    pub fn address(&self) -> ApAddress {
        self.address
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(name) = text.parse::<ApName>() {
            return Ok(Self { address: name.address(), name: Some(name) });
        }
        let address = text.parse::<Ipv6Addr>().ok().and_then(ApAddress::from_ipv6).ok_or(TargetError)?;
        Ok(Self { address, name: None })
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

/// Redacted like [`ApAddress`].
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(…)")
    }
}

/// Port of a resolver when none is said.
const DNS_PORT: u16 = 53;

/// A service at an AP address: where the resolver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Resolver {
    /// Who.
    pub target: Target,
    /// On which port.
    pub port: u16,
}

/// A text is no address of a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a resolver is `NAME.{NAME_SUFFIX}:PORT` or `[fd70:…]:PORT`, both of the phantom network; without :PORT it is 53"
)]
pub struct ResolverError;

impl FromStr for Resolver {
    type Err = ResolverError;

    fn from_str(text: &str) -> Result<Self, ResolverError> {
        // An address may stand bare, and is full of colons.
        let (host, port) = match text.parse::<Target>() {
            Ok(_) => (text, DNS_PORT),
            Err(TargetError) => {
                let (host, port) = text.rsplit_once(':').unwrap_or((text, "53"));
                (host, port.parse().map_err(|_| ResolverError)?)
            }
        };
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let target = host.parse().map_err(|TargetError| ResolverError)?;
        if port == 0 { Err(ResolverError) } else { Ok(Self { target, port }) }
    }
}

impl TryFrom<String> for Resolver {
    type Error = ResolverError;

    fn try_from(text: String) -> Result<Self, ResolverError> {
        text.parse()
    }
}

/// Resolves names of the phantom world and no other.
///
/// Each identity has one of its own: what one has asked for must not be known to another, or both are known to live on one
/// computer. The configuration's aliases are the same for all.
#[derive(Debug, Default)]
pub struct Names {
    aliases: Arc<Aliases>,
    /// What the identity itself is called on this computer, for its own programs alone: full names are too long for some
    /// settings of servers.
    own: Option<(Alias, ApAddress)>,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Aliases {
    addresses: BTreeMap<Alias, ApAddress>,
    by_address: HashMap<ApAddress, Alias>,
    full: Vec<ApName>,
}

#[derive(Debug, Default)]
struct Remembered {
    names: HashMap<ApAddress, ApName>,
    order: VecDeque<ApAddress>,
}

impl Remembered {
    fn put(&mut self, name: ApName) {
        let address = name.address();
        if self.names.insert(address, name).is_none() {
            self.order.push_back(address);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.names.remove(&oldest);
            }
        }
    }
}

impl Names {
    /// With the aliases of the configuration.
    pub fn new(aliases: &BTreeMap<Alias, Target>) -> Self {
        let aliases = Aliases {
            addresses: aliases.iter().map(|(alias, target)| (alias.clone(), target.address)).collect(),
            by_address: aliases.iter().map(|(alias, target)| (target.address, alias.clone())).collect(),
            full: aliases.values().filter_map(|target| target.name).collect(),
        };
        Self::over(Arc::new(aliases))
    }

    fn over(aliases: Arc<Aliases>) -> Self {
        let names = Self { aliases, own: None, remembered: Mutex::default() };
        names.aliases.full.iter().for_each(|name| names.remember(*name));
        names
    }

    /// The same aliases, and nothing that anybody has asked for.
    pub fn afresh(&self) -> Self {
        Self::over(Arc::clone(&self.aliases))
    }

    /// The same for an identity, which knows itself by its own name too if it has one; a configured alias comes first.
    pub fn afresh_for(&self, own: Option<(Alias, ApAddress)>) -> Self {
        Self { own, ..self.afresh() }
    }

    /// The address behind `<56 characters>.phantom`, `<alias>.phantom` or `<alias>`; `None` means "not found". Upper
    /// case and one trailing dot are accepted, as in DNS.
    pub fn resolve(&self, text: &str) -> Option<ApAddress> {
        if let Ok(name) = text.parse::<ApName>() {
            self.remember(name);
            return Some(name.address());
        }
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = lower.strip_suffix(NAME_SUFFIX).and_then(|head| head.strip_suffix('.')).unwrap_or(&lower);
        let alias = label.parse().ok()?;
        let own = || self.own.as_ref().filter(|(name, _)| *name == alias).map(|(_, address)| *address);
        self.aliases.addresses.get(&alias).copied().or_else(own)
    }

    /// A name for `address`: its alias with suffix, else the full name when it was seen before.
    pub fn name_of(&self, address: ApAddress) -> Option<String> {
        if let Some(alias) = self.aliases.by_address.get(&address) {
            return Some(format!("{alias}.{NAME_SUFFIX}"));
        }
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.names.get(&address).map(ToString::to_string)
    }

    /// Keeps a full name for later reverse look-ups. The oldest are forgotten beyond a bound.
    pub fn remember(&self, name: ApName) {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).put(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phantom_proto::crypto::VerifyingKey;
    use proptest::prelude::*;

    fn contact() -> NodeContact {
        NodeContact { identity: VerifyingKey([3; 32]), addr: "127.10.0.1:8443".parse().unwrap(), link_secret: [5; 32] }
    }

    fn names(aliases: &[(&str, String)]) -> Names {
        let pairs = aliases.iter().map(|(alias, target)| (alias.parse().unwrap(), target.parse().unwrap()));
        Names::new(&pairs.collect())
    }

    proptest! {
        #[test]
        fn peer_strings_round_trip(identity: [u8; 32], link_secret: [u8; 32], ip: [u8; 4], port in 1u16..) {
            let addr = (ip, port).into();
            let peer = Peer(NodeContact { identity: VerifyingKey(identity), addr, link_secret });
            prop_assert_eq!(peer.to_string().parse::<Peer>(), Ok(peer));
        }

        #[test]
        fn a_damaged_peer_string_is_refused(at in 0usize..114, with in "[A-Za-z0-9_-]") {
            let good = Peer(contact()).to_string();
            let at = PEER_PREFIX.len() + at;
            prop_assert_eq!(good.len(), PEER_PREFIX.len() + 115);
            let mut bad = good.clone();
            bad.replace_range(at..=at, &with);
            prop_assume!(bad != good);
            prop_assert_eq!(bad.parse::<Peer>(), Err(PeerError::Damaged));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = text.parse::<Peer>();
            let _ = format!("{PEER_PREFIX}{text}").parse::<Peer>();
            let _ = names(&[]).resolve(&text);
        }
    }

    /// Computed by scripts/vectors/names.py.
    // protocol: N8
    #[test]
    fn independently_computed_peer_strings() {
        let vector = |name: &str| {
            let lines = include_str!("../proto/vectors/names.txt").lines();
            lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1
        };
        for version in ["4", "6"] {
            let contact = hex::decode(vector(&format!("contact-{version}"))).unwrap();
            let (peer, text) =
                (Peer(NodeContact::from_bytes(&contact).unwrap()), vector(&format!("peer-string-{version}")));
            assert_eq!(peer.to_string(), text);
            assert_eq!(text.parse::<Peer>().unwrap().0, peer.0);
        }
    }

    #[test]
    fn peer_strings_of_another_kind_are_refused() {
        assert_eq!("127.0.0.1:8443".parse::<Peer>(), Err(PeerError::Prefix));
        assert_eq!(PEER_PREFIX.parse::<Peer>(), Err(PeerError::Damaged));
    }

    #[test]
    fn full_names_and_aliases_resolve_and_nothing_else() {
        let name = ApName(VerifyingKey([1; 32]));
        let other = ApAddress::of(&VerifyingKey([2; 32]));
        let names = names(&[("web", name.to_string()), ("git-1", other.to_string())]);
        for text in [name.to_string(), "web".into(), "web.phantom".into(), "WEB.Phantom.".into()] {
            assert_eq!(names.resolve(&text), Some(name.address()), "{text}");
        }
        assert_eq!(names.resolve("git-1.phantom"), Some(other));
        for text in ["", ".", "phantom", ".phantom", "web.", "x.web.phantom", "example.com", "web.com", "10.0.0.1"] {
            let expected = (text == "web.").then(|| name.address());
            assert_eq!(names.resolve(text), expected, "{text}");
        }
    }

    #[test]
    fn reverse_look_ups_know_aliases_and_names_seen_before() {
        let aliased = ApName(VerifyingKey([1; 32]));
        let seen = ApName(VerifyingKey([2; 32]));
        let names = names(&[("web", aliased.to_string())]);
        assert_eq!(names.name_of(aliased.address()).as_deref(), Some("web.phantom"));
        assert_eq!(names.name_of(seen.address()), None);
        names.resolve(&seen.to_string());
        assert_eq!(names.name_of(seen.address()), Some(seen.to_string()));
        let other = names.afresh();
        assert_eq!(other.name_of(aliased.address()).as_deref(), Some("web.phantom"));
        assert_eq!(other.name_of(seen.address()), None, "another identity has not asked for it");
    }

    #[test]
    fn an_identity_knows_itself_by_its_own_name() {
        let (own, other) = (ApName(VerifyingKey([1; 32])).address(), ApName(VerifyingKey([2; 32])));
        let configured = names(&[("web", other.to_string())]);
        let called = |name: &str| configured.afresh_for(Some((name.parse().unwrap(), own)));
        for text in ["shop", "shop.phantom", "SHOP.phantom."] {
            assert_eq!(called("shop").resolve(text), Some(own), "{text}");
            assert_eq!(called("mail").resolve(text), None, "it is nobody else's");
        }
        assert_eq!(called("web").resolve("web"), Some(other.address()), "what is configured holds");
    }

    #[test]
    fn remembered_names_are_bounded() {
        let names = names(&[]);
        let name = |n: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            ApName(VerifyingKey(key))
        };
        let count = u32::try_from(MAX_REMEMBERED).unwrap() + 1;
        (0..count).for_each(|n| names.remember(name(n)));
        assert_eq!(names.name_of(name(0).address()), None);
        assert!(names.name_of(name(count - 1).address()).is_some());
        assert_eq!(names.remembered.lock().unwrap().names.len(), MAX_REMEMBERED);
    }

    #[test]
    fn a_resolver_is_an_address_of_the_phantom_network_with_a_port() {
        let name = ApName(VerifyingKey([1; 32]));
        let address = name.address().ipv6();
        let whole = [format!("{name}"), format!("{name}:53"), format!("{address}"), format!("[{address}]:53")];
        for text in whole {
            let resolver = text.parse::<Resolver>().unwrap();
            assert_eq!((resolver.target.address(), resolver.port), (name.address(), 53), "{text}");
        }
        assert_eq!(format!("[{address}]:5353").parse::<Resolver>().unwrap().port, 5353);
        for text in ["", ":53", "dns:53", "1.1.1.1:53", "[::1]:53", &format!("{name}:0"), &format!("{name}:65536")] {
            assert_eq!(text.parse::<Resolver>(), Err(ResolverError), "{text}");
        }
    }

    #[test]
    fn aliases_that_mean_something_else_are_refused() {
        for text in ["", "a.b", "localhost", NAME_SUFFIX, "127"] {
            assert_eq!(text.parse::<Alias>(), Err(NameError), "{text}");
        }
    }
}
