//! Names that are made of this computer's own: whoever hears them knows which computer asks.

use crate::os;

/// What this computer is called, and the domains that resolvers add to names that they do not find.
#[derive(Debug, Default)]
pub struct ThisComputer {
    name: String,
    domains: Vec<String>,
}

impl ThisComputer {
    /// As the kernel and resolv.conf say now.
    pub fn now() -> Self {
        let (name, resolv_conf) = os::computer();
        Self::new(&name, &resolv_conf)
    }

    fn new(name: &str, resolv_conf: &str) -> Self {
        let name = plain(name);
        let own = name.split_once('.').map(|(_, domain)| domain.to_owned());
        let searched = resolv_conf.lines().flat_map(|line| {
            let mut words = line.split_whitespace();
            let is_list = matches!(words.next(), Some("search" | "domain"));
            words.filter(move |_| is_list).map(plain)
        });
        // A domain of one label is half of the world, and says little of whoever asks.
        let domains = own.into_iter().chain(searched).filter(|domain| domain.contains('.')).collect();
        Self { name, domains }
    }

    /// Whether a name, in lower case and without a final dot, is this computer's, or could have been made by adding one
    /// of its domains.
    pub(super) fn covers(&self, name: &str) -> bool {
        name == self.name || self.domains.iter().any(|domain| is_within(name, domain))
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_computer_and_of_its_domains_are_its_own() {
        let own = ThisComputer::new("Laptop.corp.net", "# search x.org\nsearch lab.example. net\ndomain Old.example\n");
        for name in ["laptop.corp.net", "typo.shop.corp.net", "corp.net", "a.lab.example", "b.old.example"] {
            assert!(own.covers(name), "{name}");
        }
        for name in ["shop.net", "notcorp.net", "lab.example.org", "x.org", "laptop", ""] {
            assert!(!own.covers(name), "{name}");
        }
        let short = ThisComputer::new("laptop.net", "");
        assert!(short.covers("laptop.net") && !short.covers("shop.net"));
    }
}
