//! `phantom log`: what the daemon has said, the newest last.

use std::path::Path;
use std::time::Duration;

use phantom_ipc::admin::{LogLine, Request};
use tokio::time::sleep;

use super::{show, tell, wait};
use crate::client::Client;
use crate::os::interrupted;

/// How often a follower asks: sooner than a person notices.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Prints what is kept, then, for who follows, what comes, until Ctrl-C.
pub(super) async fn run(socket: &Path, as_json: bool, follow: bool) -> anyhow::Result<()> {
    if !follow {
        let mut client = Client::connect(socket).await?;
        let lines: Vec<LogLine> = wait::answer(&mut client, &Request::Log { after: 0 }).await?;
        return tell(as_json, &lines, |lines| show::log(lines));
    }
    tokio::select! {
        // Before anything is asked: it ends in the same way whatever it waits for.
        biased;
        _ = interrupted() => Ok(()),
        ended = keep_printing(socket, as_json) => ended,
    }
}

async fn keep_printing(socket: &Path, as_json: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(socket).await?;
    let mut after = 0;
    loop {
        let lines: Vec<LogLine> = match wait::answer(&mut client, &Request::Log { after }).await {
            Ok(lines) => lines,
            Err(ended) => {
                // One that is started anew counts anew.
                (client, after) = (wait::next_daemon(socket, ended).await?, 0);
                continue;
            }
        };
        for line in &lines {
            after = line.number;
            tell(as_json, line, |line| show::log(std::slice::from_ref(line)))?;
        }
        sleep(ASK_EVERY).await;
    }
}
