//! What a command does, in words that people type and read.

use std::net::Ipv6Addr;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use phantom_proto::command::{Action, Target, key_of};
use phantom_proto::ident::{ApAddress, ApName, NodeId};
use phantom_proto::netdb::{Key, ap_key, node_key};

/// One thing that a command does.
pub fn action(action: &Action, issued: u64) -> String {
    match action {
        Action::Ban(target) => format!("ban {}", name(target)),
        Action::Unban(target) => format!("unban {}", name(target)),
        Action::Remove { key, until } => {
            format!("keep the entry {} empty until {}", HEXLOWER.encode(key), date(*until))
        }
        Action::Insert(record) => {
            let key = key_of(record, issued).map(|key| HEXLOWER.encode(&key)).unwrap_or_default();
            format!("insert a record of {} bytes as the entry {key}", record.len())
        }
    }
}

fn name(target: &Target) -> String {
    match target {
        Target::Range(range) => range.to_string(),
        Target::Node(node) => format!("node {node}"),
    }
}

/// A time, of seconds since 1970.
pub fn date(seconds: u64) -> String {
    // The last second that the form can say.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)))
}

/// Who is to be banned: a range as 192.0.2.0/24, or a node's id.
///
/// # Errors
/// What a target is.
pub fn target(text: &str) -> Result<Target, String> {
    if let Some(node) = node(text) {
        return Ok(Target::Node(node));
    }
    text.parse().map(Target::Range).map_err(|error| format!("{error}; or a node's id, of 64 characters"))
}

/// Which entry of the database: of a node's id, of an AP address, or of a name that ends in .phantom.
///
/// # Errors
/// What an entry is named by.
pub fn subject(text: &str) -> Result<Key, String> {
    let address = || text.parse::<Ipv6Addr>().ok().and_then(ApAddress::from_ipv6);
    let named = || text.parse::<ApName>().ok().map(|name| name.address());
    let ap = || address().or_else(named).map(|address| ap_key(&address));
    let key = node(text).map(|node| node_key(&node)).or_else(ap);
    key.ok_or_else(|| {
        "an entry is named by a node's id, an AP address (fd70:…) or a name that ends in .phantom".to_owned()
    })
}

fn node(text: &str) -> Option<NodeId> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;

    use super::*;

    #[test]
    fn targets_and_entries_are_what_people_have() {
        let id = NodeId([0xab; 32]);
        assert_eq!(target(&id.to_string()), Ok(Target::Node(id)));
        assert_eq!(target("192.0.2.0/24").map(|target| name(&target)), Ok("192.0.2.0/24".into()));
        for wrong in ["192.0.2.1", "192.0.0.0/8", "ab", &"AB".repeat(32)] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
        let key = SigningKey::from_seed(&[1; 32]).verifying_key();
        let address = ApAddress::of(&key);
        assert_eq!(subject(&id.to_string()), Ok(node_key(&id)));
        assert_eq!(subject(&address.to_string()), Ok(ap_key(&address)));
        assert_eq!(subject(&ApName(key).to_string()), Ok(ap_key(&address)));
        assert!(subject("2001:db8::1").is_err() && subject("web").is_err());
    }
}
