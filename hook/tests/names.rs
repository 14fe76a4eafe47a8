//! The platform-neutral half: names, literals, services and DNS packets, with a directory of the test's own.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic
#![allow(dead_code)] // the library uses what the tests do not

#[path = "../src/names/mod.rs"]
mod names;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use names::forward::{Family, Refusal, Wanted, find};
use names::literal::{Scoped, parse, parse_v4};
use names::{Addresses, Directory, Unknown, dns, resolve, reverse, services};
use proptest::prelude::*;

const V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 1);
const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Knows one name, and fails the test when it is asked what must not be asked.
struct Book;

impl Directory for Book {
    fn addresses(&self, name: &str) -> Result<Addresses, Unknown> {
        assert!(!name.to_ascii_lowercase().ends_with("localhost") && name != "me", "asked for {name}");
        if name == "web.phantom" { Ok(Addresses { v6: Some(V6), v4: Some(V4) }) } else { Err(Unknown::NotFound) }
    }

    fn name(&self, address: IpAddr) -> Result<String, Unknown> {
        assert!(!address.is_loopback() && !address.is_unspecified(), "asked for {address}");
        if [V6.into(), V4.into()].contains(&address) { Ok("web.phantom".to_owned()) } else { Err(Unknown::NotFound) }
    }

    fn own_name(&self) -> Option<String> {
        Some("me".to_owned())
    }

    fn interface(&self, name: &str) -> Option<u32> {
        (name == "lo").then_some(1)
    }

    fn interface_name(&self, index: u32) -> Option<String> {
        (index == 1).then(|| "lo".to_owned())
    }

    fn services(&self) -> Vec<u8> {
        b"# comment\nhttp 80/tcp www # more\nhttp\t80/udp\nbroken\nbad x/tcp\nntp 123/udp\n".to_vec()
    }
}

#[test]
fn what_is_local_is_asked_of_nobody() {
    for name in ["localhost", "LOCALHOST", "localhost.", "a.b.localhost", "me", "me.", "Me"] {
        assert_eq!(resolve(name, &Book).unwrap().v4, Some(Ipv4Addr::LOCALHOST), "{name}");
    }
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(reverse::name_of(address.parse().unwrap(), &Book), Ok("localhost".to_owned()));
    }
    assert_eq!(reverse::name_of(Ipv6Addr::UNSPECIFIED.into(), &Book), Err(Unknown::NotFound));
}

#[test]
fn what_is_no_name_is_asked_of_nobody() {
    struct Nobody;
    impl Directory for Nobody {
        fn addresses(&self, name: &str) -> Result<Addresses, Unknown> {
            panic!("asked for {name}")
        }
        fn name(&self, address: IpAddr) -> Result<String, Unknown> {
            panic!("asked for {address}")
        }
        fn own_name(&self) -> Option<String> {
            None
        }
        fn interface(&self, _: &str) -> Option<u32> {
            None
        }
        fn interface_name(&self, _: u32) -> Option<String> {
            None
        }
        fn services(&self) -> Vec<u8> {
            Vec::new()
        }
    }
    for name in ["", ".", "with space", "tab\t", "new\nline", "\u{fc}.phantom", "\u{fffd}", "\u{7f}"] {
        assert_eq!(resolve(name, &Nobody), Err(Unknown::NotFound), "{name}");
    }
    let numeric = Wanted { node: Some("web.phantom"), numeric_host: true, ..Wanted::default() };
    assert_eq!(find(&numeric, &Nobody), Err(Refusal::NoName));
    for node in ["127.1", "::1", "fd70::1", "0x7f.1"] {
        assert!(find(&Wanted { node: Some(node), ..Wanted::default() }, &Nobody).is_ok(), "{node}");
    }
}

#[test]
fn families_get_the_addresses_that_they_can_use() {
    let found = |family, v4_mapped, all| {
        let wanted = Wanted { node: Some("web.phantom"), family, v4_mapped, all, kind: 1, ..Wanted::default() };
        find(&wanted, &Book).map(|found| found.entries.iter().map(|entry| entry.to.address).collect::<Vec<_>>())
    };
    let (v6, v4, mapped): (IpAddr, IpAddr, IpAddr) = (V6.into(), V4.into(), V4.to_ipv6_mapped().into());
    assert_eq!(found(None, false, false), Ok(vec![v6, v4]));
    assert_eq!(found(Some(Family::V4), true, true), Ok(vec![v4]));
    assert_eq!(found(Some(Family::V6), true, false), Ok(vec![v6]));
    assert_eq!(found(Some(Family::V6), true, true), Ok(vec![v6, mapped]));
    assert_eq!(found(Some(Family::V6), false, true), Ok(vec![v6]));
    assert_eq!(found(Some(Family::Other), false, false), Err(Refusal::Family));
}

#[test]
fn scopes_are_of_links_only() {
    let scope = |text| parse(text, |name| Book.interface(name)).map(|at| at.scope);
    assert_eq!(scope("fe80::1%lo"), Some(1));
    assert_eq!(scope("ff02::1%lo"), Some(1));
    assert_eq!(scope("fe80::1%9"), Some(9));
    for bad in ["fe80::1%nope", "fe80::1%", "fd70::1%lo", "127.0.0.1%lo", "%lo"] {
        assert_eq!(scope(bad), None, "{bad}");
    }
}

#[test]
fn services_have_names_aliases_and_protocols() {
    let file = Book.services();
    assert_eq!(services::port(&file, "www", "tcp"), Some(80));
    assert_eq!(services::port(&file, "www", "udp"), None);
    assert_eq!(services::port(&file, "more", "tcp"), None);
    assert_eq!(services::port(&file, "bad", "tcp"), None);
    assert_eq!(services::name(&file, 123, "udp"), Some("ntp".to_owned()));
    assert_eq!(services::name(&file, 123, "tcp"), None);
    assert_eq!(reverse::service(81, false, false, &Book), "81");
}

#[test]
fn packets_name_addresses_backwards() {
    let answer = |name: &str, kind| dns::answer(&dns::question(7, name, 1, kind).unwrap(), &Book).unwrap();
    let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.d.f.ip6.arpa";
    for name in [nibbles, "1.0.18.198.in-addr.arpa", "1.0.18.198.IN-ADDR.ARPA."] {
        let packet = answer(name, 12);
        assert_eq!(dns::verdict(&packet), Some((dns::NO_ERROR, 1)), "{name}");
        assert!(packet.ends_with(b"\x03web\x07phantom\0"), "{name}");
    }
    assert_eq!(dns::verdict(&answer("2.0.18.198.in-addr.arpa", 12)), Some((dns::NAME_ERROR, 0)));
    // Not an address: an ordinary name, which the book does not have.
    assert_eq!(dns::verdict(&answer("0.18.198.in-addr.arpa", 12)), Some((dns::NAME_ERROR, 0)));
    assert_eq!(dns::verdict(&answer("web.phantom", 255)), Some((dns::NO_ERROR, 2)));
    assert_eq!(dns::question(7, &"a".repeat(64), 1, 1), None);
    assert_eq!(dns::question(7, "a..b", 1, 1), None);
}

proptest! {
    #[test]
    fn plain_ipv4_is_read_as_everywhere(address: Ipv4Addr, scope: u32) {
        prop_assert_eq!(parse_v4(&address.to_string()), Some(address));
        prop_assert_eq!(parse_v4(&u32::from(address).to_string()), Some(address));
        let [a, b, c, d] = address.octets();
        prop_assert_eq!(parse_v4(&format!("{a:#x}.0{b:o}.{}", u32::from(c) << 8 | u32::from(d))), Some(address));
        prop_assert_eq!(parse(&format!("{}%{scope}", V6), |_| None), Some(Scoped { address: V6.into(), scope }));
    }

    #[test]
    fn any_text_is_read_without_panic(text: String, service: String) {
        let _ = (parse(&text, |_| None), resolve(&text, &Book));
        let wanted = Wanted { node: Some(&text), service: Some(&service), ..Wanted::default() };
        let _ = find(&wanted, &Book);
        let _ = (services::port(text.as_bytes(), &service, "tcp"), services::name(text.as_bytes(), 80, "tcp"));
    }

    #[test]
    fn any_packet_is_answered_without_panic(mut packet: Vec<u8>, from in 0usize..40, byte: u8) {
        let _ = dns::answer(&packet, &Book);
        packet = dns::question(1, "web.phantom", 1, 28).unwrap();
        if let Some(at) = packet.get_mut(from) {
            *at = byte;
        }
        // Whatever is changed, the answer has the question's id and says that it is an answer.
        let answer = dns::answer(&packet, &Book).unwrap();
        prop_assert_eq!(&answer[..2], &packet[..2]);
        prop_assert_eq!(answer[2] & 0x80, 0x80);
        for end in 0..packet.len() {
            let _ = dns::answer(&packet[..end], &Book);
        }
    }
}
