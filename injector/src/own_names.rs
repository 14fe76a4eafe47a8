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
/// myhostname), the name would be asked for. `hidden` is a name that it is not to see.
pub(crate) fn hosts(hidden: Option<&str>) -> String {
    let text = fs::read("/etc/hosts").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match hidden {
        Some(name) => with_own(&aside(&text, name), &own()),
        None => with_own(&text, &own()),
    }
}

/// Where the hidden name leads all the same, for settings that hold it: loopback, but not the address of which programs
/// ask what they are called.
const ASIDE: &str = "127.0.1.1";

fn aside(text: &str, name: &str) -> String {
    format!("{}{ASIDE} {name}\n", without(text, name))
}

/// Without the computer's name, with and without its domain, and without the addresses that had no other.
fn without(text: &str, name: &str) -> String {
    let short = name.split('.').next().unwrap_or(name);
    let own = |word: &str| word.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(short));
    let others = text.lines().filter_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?;
        let names: Vec<&str> = words.filter(|word| !own(word)).collect();
        (!names.is_empty()).then(|| format!("{address} {}\n", names.join(" ")))
    });
    others.collect()
}

fn own() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Loopback comes first, so that it is also what addresses of loopback are called.
fn with_own(text: &str, own: &str) -> String {
    let short = own.split('.').next().unwrap_or(own);
    let own = if short == own { own.to_owned() } else { format!("{own} {short}") };
    let ours = ["127.0.0.1", "::1"].map(|address| format!("{address} localhost\n{address} {own}\n"));
    format!("{}{text}", ours.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_name_leads_aside() {
        let text =
            "127.0.0.1\tlocalhost\n127.0.1.1 Laptop.corp.net laptop # laptop\n# laptop\n10.1.2.3 db laptop.lan\n";
        let expected = "127.0.0.1 localhost\n10.1.2.3 db\n127.0.1.1 laptop.corp.net\n";
        assert_eq!(aside(text, "laptop.corp.net"), expected);
    }

    #[test]
    fn own_names_are_loopback_whatever_the_file_says() {
        let hosts = with_own("10.1.2.3 laptop.corp.net laptop\n", "laptop.corp.net");
        let expected = "127.0.0.1 localhost\n127.0.0.1 laptop.corp.net laptop\n::1 localhost\n::1 laptop.corp.net laptop\n\
                        10.1.2.3 laptop.corp.net laptop\n";
        assert_eq!(hosts, expected);
        assert_eq!(with_own("", "a"), "127.0.0.1 localhost\n127.0.0.1 a\n::1 localhost\n::1 a\n");
    }
}
