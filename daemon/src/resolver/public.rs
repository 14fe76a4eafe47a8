//! Which names may be asked of a resolver at all: those of the public DNS. All others stay on this computer.

use hickory_proto::rr::Name;

use super::ThisComputer;

/// Longest name in text, and longest label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Last labels that the public DNS never holds: special names (RFC 6761, 6762, 7686, 8375, 9476), those that private
/// networks use (RFC 6762, appendix G), and ours. Whoever asks for one of them tells what only this computer should
/// know. `arpa` is there because addresses have no names outside, and its other names are about the asker's network.
const PRIVATE: [&str; 15] = [
    "alt",
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "phantom",
    "private",
    "test",
];

/// The name in the form in which it is asked, lower case and whole; none if it may not be asked.
pub(super) fn public(text: &str, this_computer: &ThisComputer) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let labels: Vec<&str> = text.split('.').collect();
    let [.., _, last] = labels[..] else { return None };
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > MAX_NAME || number || PRIVATE.contains(&last) || !labels.iter().all(|label| is_label(label)) {
        return None;
    }
    if this_computer.covers(&text) {
        return None;
    }
    let mut name = Name::from_ascii(&text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Letters, digits, hyphens; underscores, which some names of hosts have.
fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_names_of_the_public_dns_are_asked() {
        for text in ["shop.example", "a.b.c.org", "SHOP.Example.", "xn--bcher-kva.de", "_x.a1.net"] {
            let name = public(text, &ThisComputer::default()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(name.to_ascii(), format!("{}.", text.trim_end_matches('.').to_lowercase()));
        }
        let long = format!("{}.org", "a".repeat(64));
        let longer = format!("{}org", "abcdefg.".repeat(32));
        for text in [
            "",
            ".",
            "..",
            "host",
            "host.",
            "printer.local",
            "x.onion",
            "db.internal",
            "router.lan",
            "a.home.arpa",
            "1.0.18.198.in-addr.arpa",
            "localhost.localdomain",
            "mistyped.phantom",
            "web.x.phantom",
            "a..org",
            ".org",
            "10.0.0.1",
            "a.1",
            "a b.org",
            "ä.org",
            "a\\.b.org",
            "a.test",
            &long,
            &longer,
        ] {
            assert_eq!(public(text, &ThisComputer::default()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String, labels in "[a-z0-9._-]{0,300}") {
            for text in [text, labels] {
                if let Some(name) = public(&text, &ThisComputer::default()) {
                    prop_assert!(name.num_labels() >= 2);
                }
            }
        }
    }
}
