//! `--publish`: which of the program's ports others reach, and at which identity. Nothing else of it is reached.

use std::net::Ipv6Addr;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{IdentityRef, Ports, Reply, Request};
use phantom_ipc::publish::Publish;

use crate::control::Line;

/// Asks the daemon to publish all of it, as long as `line` is open. Returns sentences about it, for people.
pub(crate) fn open(line: &mut Line, identity: &IdentityRef, wanted: &[Publish]) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for Publish { ports, at } in wanted {
        for ports in ports {
            said.extend(one(line, identity, *ports, at.as_deref()).with_context(|| format!("publishing {ports}"))?);
        }
    }
    Ok(said)
}

fn one(line: &mut Line, identity: &IdentityRef, ports: Ports, at: Option<&str>) -> Result<Vec<String>> {
    let request = Request::Publish { identity: identity.clone(), ports, at: at.map(str::to_owned), stays: false };
    match line.ask(&request)?.0 {
        Reply::Published { address, name, is_new } => {
            let whose = at.map(|at| format!(", identity {at}")).unwrap_or_default();
            let published = format!("publishes {ports} at {name} ({}){whose}", Ipv6Addr::from(address));
            // Whoever has mistyped a name sees it here.
            let new = at.filter(|_| is_new).map(|at| {
                format!("identity {at} is new, and lasts: `phantom identity remove {at}` ends it, `phantom identity export` keeps a copy")
            });
            Ok([published].into_iter().chain(new).collect())
        }
        Reply::Failed { message, .. } => bail!("{message}"),
        _ => bail!("the daemon's answer makes no sense: is it of another version?"),
    }
}
