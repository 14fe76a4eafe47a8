//! `phantom log`: what the daemon has said, the newest last.

use std::path::Path;
use std::time::Duration;

use phantom_ipc::admin::{LogLine, Request};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::{json, print, show};
use crate::client::Client;

/// How often a follower asks: sooner than a person notices.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Prints what is kept, then, for who follows, what comes, until Ctrl-C.
pub(super) async fn run(socket: &Path, as_json: bool, follow: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(socket).await?;
    let lines: Vec<LogLine> = client.ask(&Request::Log { after: 0 }).await?;
    if !follow {
        return Ok(print(&if as_json { json(&lines)? } else { show::log(&lines) })?);
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = keep_printing(&mut client, lines, as_json) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

async fn keep_printing(client: &mut Client, mut lines: Vec<LogLine>, as_json: bool) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        for line in &lines {
            after = line.number;
            print(&if as_json { json(line)? } else { show::log(std::slice::from_ref(line)) })?;
        }
        sleep(ASK_EVERY).await;
        lines = client.ask(&Request::Log { after }).await?;
    }
}
