//! `--publish`: which of the program's ports others reach, and at which identity.

use std::net::Ipv6Addr;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{IdentityRef, Reply, Request};
use phantom_ipc::name;

use crate::control::Line;

/// A port that is to be reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    number: u16,
    /// The persistent identity at which it is reached; none for the program's own.
    at: Option<String>,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, at) = match text.split_once(':') {
            Some((number, at)) => (number, Some(at)),
            None => (text, None),
        };
        // A sign, which parse() would take, is no digit.
        let number = number.parse().ok().filter(|port| *port != 0 && number.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number else {
            return Err("a port is a number from 1 to 65535, as in `80` or `80:shop`".to_owned());
        };
        if let Some(Err(odd)) = at.map(name::check) {
            return Err(format!("after the colon stands the name of an identity, as in `80:shop`; {odd}"));
        }
        Ok(Self { number, at: at.map(str::to_owned) })
    }
}

/// Asks the daemon to publish all of them, as long as `line` is open. Returns a sentence about each, for people.
pub(crate) fn ports(line: &mut Line, identity: &IdentityRef, ports: &[Port]) -> Result<Vec<String>> {
    let mut publish = |Port { number, at }: &Port| {
        let request = Request::Publish { identity: identity.clone(), port: *number, at: at.clone() };
        match line.ask(&request)?.0 {
            Reply::Info { address, name, .. } => {
                let whose = at.as_ref().map(|at| format!(", identity {at}")).unwrap_or_default();
                Ok(format!("others reach port {number} at {name} ({}){whose}", Ipv6Addr::from(address)))
            }
            Reply::Failed { message, .. } => bail!("{message}"),
            _ => bail!("the daemon's answer makes no sense: is it of another version?"),
        }
    };
    ports.iter().map(|port| publish(port).with_context(|| format!("publishing port {}", port.number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_number_and_perhaps_a_name() {
        let port = |number, at: Option<&str>| Ok(Port { number, at: at.map(str::to_owned) });
        assert_eq!("80".parse(), port(80, None));
        assert_eq!("65535:shop".parse(), port(65_535, Some("shop")));
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
            &format!("80:{}", "a".repeat(65)),
        ] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }
}
