//! What the program's resolver shall make of this computer's names: its own ones are loopback, none is added to others.
//!
//! Resolvers add the computer's domain to names that they do not find. A name server that hears such names knows whose
//! identities ask.

use std::fs;

/// The one domain that is added to names. Root (`.`) will not do: Go's resolver takes it for no setting, and then the
/// domain of the host's name. Names below this one exist nowhere (RFC 6761), and the daemon asks nobody for them.
const DOMAIN: &str = "invalid";

/// Variable by which glibc and c-ares learn the domains, before any file.
const DOMAIN_VARIABLE: &str = "LOCALDOMAIN";

/// The line of resolv.conf.
pub(crate) fn search() -> String {
    format!("search {DOMAIN}\n")
}

/// The setting that goes before all files, also the host's, which stay where mounts cannot be made.
pub(crate) fn variable() -> (&'static str, &'static str) {
    (DOMAIN_VARIABLE, DOMAIN)
}

/// /etc/hosts as the program shall see it. Without the own name there, which some systems leave to a module of libc (nss
/// myhostname), the name would be asked for. `hidden` is a name that it is not to see, `own` the one that it sees.
pub(crate) fn hosts(hidden: Option<&str>, own: &str) -> Vec<u8> {
    let text = fs::read("/etc/hosts").unwrap_or_default();
    match hidden {
        Some(name) => with_own(&aside(&text, name), own),
        None => with_own(&text, own),
    }
}

/// Where the hidden name leads all the same, for settings that hold it: loopback, but not the address of which programs
/// ask what they are called.
const ASIDE: &str = "127.0.1.1";

fn aside(text: &[u8], name: &str) -> Vec<u8> {
    [without(text, name.as_bytes()), format!("{ASIDE} {name}\n").into_bytes()].concat()
}

/// Without the computer's name, with and without its domain, and without the addresses that had no other. Where it stands, and
/// at loopback, it may have a domain that it does not know itself; elsewhere that is another's.
fn without(text: &[u8], name: &[u8]) -> Vec<u8> {
    let short = label(name);
    let is_exact = |word: &&[u8]| word.eq_ignore_ascii_case(name) || word.eq_ignore_ascii_case(short);
    let others = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (address, names) = (words.next()?, words.collect::<Vec<_>>());
        let is_ours = names.iter().any(is_exact) || address.starts_with(b"127.") || address == b"::1";
        let is_own = |word: &&[u8]| is_exact(word) || is_ours && label(word).eq_ignore_ascii_case(short);
        let names: Vec<&[u8]> = names.into_iter().filter(|word| !is_own(word)).collect();
        (!names.is_empty()).then(|| [&[address], &names[..]].concat().join(&b' '))
    });
    others.flat_map(|line| [line, b"\n".to_vec()]).flatten().collect()
}

/// A name without its domain.
fn label(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == b'.').next().unwrap_or(name)
}

/// Loopback comes first, so that it is also what addresses of loopback are called.
fn with_own(text: &[u8], own: &str) -> Vec<u8> {
    let short = own.split('.').next().unwrap_or(own);
    let own = if short == own { own.to_owned() } else { format!("{own} {short}") };
    let ours = ["127.0.0.1", "::1"].map(|address| format!("{address} localhost\n{address} {own}\n"));
    [ours.concat().as_bytes(), text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_name_leads_aside() {
        let text = b"127.0.0.1\tlocalhost\n127.0.1.1 Laptop.corp.net laptop # laptop\n# laptop\n10.1.2.3 db laptop\n";
        let expected = b"127.0.0.1 localhost\n10.1.2.3 db\n127.0.1.1 laptop.corp.net\n";
        assert_eq!(aside(text, "laptop.corp.net"), expected);
        // The domain stands beside it alone, or at loopback.
        let text = b"127.0.1.1 laptop.lan\n10.1.2.4 laptop.corp.net laptop files\n";
        assert_eq!(aside(text, "laptop"), b"10.1.2.4 files\n127.0.1.1 laptop\n");
    }

    #[test]
    fn names_of_others_that_begin_alike_stay() {
        let text = b"10.1.2.3 laptop.other.net db\n0.0.0.0 laptop.ads.example\n10.1.2.4 caf\xe9 laptops\n";
        assert_eq!(without(text, b"laptop.corp.net"), text);
    }

    #[test]
    fn own_names_are_loopback_whatever_the_file_says() {
        let hosts = with_own(b"10.1.2.3 laptop.corp.net laptop\n", "laptop.corp.net");
        let expected =
            b"127.0.0.1 localhost\n127.0.0.1 laptop.corp.net laptop\n::1 localhost\n::1 laptop.corp.net laptop\n\
                         10.1.2.3 laptop.corp.net laptop\n";
        assert_eq!(hosts, expected);
        assert_eq!(with_own(b"", "a"), b"127.0.0.1 localhost\n127.0.0.1 a\n::1 localhost\n::1 a\n");
    }
}
