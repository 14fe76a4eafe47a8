//! What others are to reach of a program, as `--publish` and [`crate::ENV_PUBLISH`] say it: `80`, `80,443:shop`, `all`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::name;

/// Most ports in one saying, and of one connection to the daemon.
pub const MAX_PORTS: usize = 64;

/// Ports of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Ports {
    /// This one, not 0.
    One(u16),
    /// Every port that the program listens on, now and later.
    All,
}

impl fmt::Display for Ports {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => write!(to, "port {port}"),
            Self::All => to.write_str("all ports"),
        }
    }
}

/// What others are to reach, and at which identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// At least one.
    pub ports: Vec<Ports>,
    /// The persistent identity at which they are reached; none for the program's own.
    pub at: Option<String>,
}

/// Why a text says no such thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPublish {
    /// Before the colon.
    #[error("a port is a number from 1 to 65535, or `all`, as in `80`, `80,443`, `80:shop` or `all`")]
    Port,
    /// The other way round.
    #[error("the port comes first, then the identity: `{ports}:{name}`")]
    Turned {
        /// What stands after the colon.
        ports: String,
        /// What stands before it.
        name: String,
    },
    /// Too many.
    #[error("{MAX_PORTS} ports are the most that can be published: `all` publishes whatever the program listens on")]
    Many,
    /// After the colon.
    #[error("after the colon stands the name of an identity, as in `80:shop`; {0}")]
    Name(#[from] name::NameError),
}

impl FromStr for Publish {
    type Err = NotPublish;

    fn from_str(text: &str) -> Result<Self, NotPublish> {
        let (ports, at) = match text.split_once(':') {
            Some((ports, at)) => (ports, Some(at)),
            None => (text, None),
        };
        let ports = match (all_of(ports), at) {
            (Err(NotPublish::Port), Some(after)) if name::check(ports).is_ok() && all_of(after).is_ok() => {
                return Err(NotPublish::Turned { ports: after.to_owned(), name: ports.to_owned() });
            }
            (ports, _) => ports?,
        };
        if ports.len() > MAX_PORTS {
            return Err(NotPublish::Many);
        }
        at.map(name::check).transpose()?;
        Ok(Self { ports, at: at.map(str::to_owned) })
    }
}

fn all_of(text: &str) -> Result<Vec<Ports>, NotPublish> {
    if text == "all" {
        return Ok(vec![Ports::All]);
    }
    let mut ports = text.split(',').map(port).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    ports.retain(|port| seen.insert(*port));
    Ok(ports)
}

fn port(text: &str) -> Result<Ports, NotPublish> {
    // A sign, which parse() would take, is no digit.
    let number = text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
    number.map(Ports::One).ok_or(NotPublish::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_the_name_first_is_told_the_order() {
        for (said, meant) in [("web:80", "`80:web`"), ("shop:80,443", "`80,443:shop`"), ("web:all", "`all:web`")] {
            assert!(said.parse::<Publish>().unwrap_err().to_string().contains(meant), "{said}");
        }
        assert_eq!("http:x".parse::<Publish>(), Err(NotPublish::Port));
    }

    #[test]
    fn ports_have_a_number_and_perhaps_a_name() {
        let says = |ports: &[Ports], at: Option<&str>| Ok(Publish { ports: ports.to_vec(), at: at.map(str::to_owned) });
        assert_eq!("80".parse(), says(&[Ports::One(80)], None));
        assert_eq!("80,443".parse(), says(&[Ports::One(80), Ports::One(443)], None));
        assert_eq!("1,65535:shop".parse(), says(&[Ports::One(1), Ports::One(65_535)], Some("shop")));
        assert_eq!("all".parse(), says(&[Ports::All], None));
        assert_eq!("all:shop".parse(), says(&[Ports::All], Some("shop")));
        let many = (1..=MAX_PORTS + 1).map(|port| port.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!("80,443,80".parse(), says(&[Ports::One(80), Ports::One(443)], None));
        for text in [
            "80:A b",
            "80:a/b",
            "80:80",
            "",
            "0",
            "65536",
            "-1",
            "+80",
            "http",
            "80:",
            ":shop",
            " 80",
            "80 ",
            "80,",
            ",80",
            "80,,81",
            "80,all",
            "ALL",
            &many,
            &format!("80:{}", "a".repeat(65)),
        ] {
            assert!(text.parse::<Publish>().is_err(), "{text}");
        }
    }
}
