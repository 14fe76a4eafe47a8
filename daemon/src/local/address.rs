//! An address at which only this computer is answered.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// Where something is offered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LocalAddress {
    /// A port of the loopback device.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for LocalAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:").map(PathBuf::from) {
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("after unix: comes a path from the root on")
            };
        }
        let address: SocketAddr =
            text.parse().map_err(|_| "this takes a loopback address and port, as 127.0.0.1:9464, or unix:/PATH")?;
        if !address.ip().is_loopback() {
            return Err("this is offered on the loopback device only, for it tells what this node does and when: \
                        give 127.0.0.1:PORT or unix:/PATH, and let others in by a proxy that asks who they are");
        }
        Ok(Self::Tcp(address))
    }
}

impl TryFrom<String> for LocalAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
