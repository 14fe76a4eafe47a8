//! `phantom serve`: a folder as a read-only site at a fresh or named identity, until Ctrl-C.
//!
//! ```text
//!  visitors ── phantom network ── phantomd ── Unix socket in a private folder ── here: files of the folder
//!                                    └─ takes the offer back when our connection ends, however we end
//! ```
//! No other user of this computer reaches the site beside the network: the socket's folder is ours alone.

mod crowd;
mod site;
mod visitor;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use phantom_ipc::admin::{Forward, Lookup, Request};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use rustix::process::Uid;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::args::Serve;
use super::room::Room;
use super::{json, print, print_whole, show, wait};
use crate::client::{Client, ClientError};
use crate::os;
use crate::say::fitted;
use crowd::{Crowd, Taken};
use site::Site;
use visitor::Visitor;

/// How long a visitor may take to ask, first and next: some round trips of the slowest path.
const ASKING: Duration = Duration::from_secs(20);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether others find the site yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it is waited for that, before the rest is silence.
const FOUND_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn run(socket: &Path, as_json: bool, wanted: Serve) -> anyhow::Result<()> {
    let site = Arc::new(Site::open(&wanted.folder)?);
    // Before anything is asked: a signal must end it well from the first moment on, also while a daemon says nothing.
    let mut ends = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut ends;
    tokio::select! {
        ended = offer(socket, as_json, wanted, site) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

/// Offers the site, as long as there is a daemon.
async fn offer(socket: &Path, as_json: bool, wanted: Serve, site: Arc<Site>) -> anyhow::Result<()> {
    let mut client = Client::connect(socket).await?;
    let room = Room::make("serve")?;
    let at = room.at("site");
    let listener = UnixListener::bind(&at).context("cannot make a socket for the site")?;
    let admitted = room.let_in(Uid::from_raw(client.daemon().uid), &[&at]);
    let offer = Request::Offer { port: wanted.port, socket: at, identity: wanted.identity };
    // Whom the daemon refuses it tells why; that such a user cannot give the room away says nothing.
    let mut offered: Forward = wait::answer(&mut client, &offer).await?;
    admitted?;
    let serving = serve(listener, site);
    tokio::pin!(serving);
    loop {
        let ended = tokio::select! {
            never = &mut serving => match never {},
            ended = tell(&mut client, &offered, as_json) => ended,
        };
        let ended = ended.or_else(|error| error.downcast::<ClientError>())?;
        client = wait::next_daemon(socket, ended).await?;
        let address = offered.address;
        offered = wait::answer(&mut client, &offer).await?;
        let at = if offered.address == address { "the same address" } else { "another address" };
        eprintln!("the daemon was started anew: the folder is offered again, at {at}");
    }
}

async fn serve(listener: UnixListener, site: Arc<Site>) -> std::convert::Infallible {
    let mut crowd = Crowd::new();
    loop {
        match listener.accept().await {
            Ok((visitor, _)) => {
                let place = crowd.place().await;
                let taken = Taken::default();
                crowd.enter(place, taken.clone(), one(Visitor::new(visitor, taken), site.clone()));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One visitor. No Date, no Server: this computer's clock and program are nobody's business.
async fn one(visitor: Visitor, site: Arc<Site>) {
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, std::convert::Infallible>(site.answer(&request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASKING).auto_date_header(false);
    // A visitor who breaks off concerns nobody else.
    let _ = http.serve_connection(TokioIo::new(visitor), service).await;
}

/// Says where it is, then when others find it; ends when the daemon does.
async fn tell(client: &mut Client, offered: &Forward, as_json: bool) -> anyhow::Result<ClientError> {
    let port = if offered.port == 80 { String::new() } else { format!(":{}", offered.port) };
    let address = format!("http://{}{port}/", offered.phantom_name);
    if as_json {
        print_whole(&json(offered)?)?;
    } else {
        print(&show::served(&address, offered))?;
        if io::stdout().is_terminal() {
            print_whole(&qr(&address, os::columns(io::stdout()))?)?;
        }
        let found = wait::shown("not found by others yet", timeout(FOUND_WITHIN, found(client, offered))).await;
        match found {
            Ok(found) => {
                found?;
                eprintln!("others find it now; Ctrl-C ends it");
            }
            Err(_) => eprintln!("others do not find it yet: `phantom doctor` says what is wrong; Ctrl-C ends it"),
        }
    }
    Ok(client.ended().await)
}

async fn found(client: &mut Client, offered: &Forward) -> anyhow::Result<()> {
    let request = Request::NetdbLookup { address: offered.phantom_name.clone() };
    loop {
        match client.ask::<Lookup>(&request).await {
            Ok(lookup) if !lookup.entry_nodes.is_empty() => return Ok(()),
            // One that is busy, or stopped, offers it all the same.
            Ok(_) | Err(ClientError::Refused(_) | ClientError::TimedOut(_)) => sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// For a telephone's camera; light on dark, as terminals are. Of `columns`, as far as the terminal knows them, since a line that is
/// broken makes all of it unreadable.
fn qr(address: &str, columns: Option<usize>) -> anyhow::Result<String> {
    let code = QrCode::new(address.as_bytes()).context("the address as a QR code")?;
    let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    let width = drawn.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    if let Some(has) = columns.filter(|columns| width > *columns) {
        let narrow = format!("the address as a QR code takes {width} columns, this terminal has {has}\n");
        return Ok(fitted(&narrow, columns).into_owned());
    }
    Ok(format!("\n{drawn}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fits_a_terminal_as_a_qr_code_or_is_not_drawn() {
        let address = format!("http://{}.phantom/", "a".repeat(56));
        let drawn = qr(&address, None).unwrap();
        let lines: Vec<_> = drawn.trim_matches('\n').lines().collect();
        assert!(lines.len() > 10 && lines.len() <= 25, "{drawn}");
        assert!(lines.iter().all(|line| line.chars().count() <= 50), "{drawn}");
        let width = lines[0].chars().count();
        assert_eq!(qr(&address, Some(width)).unwrap(), drawn);
        let narrow = qr(&address, Some(width - 1)).unwrap().replace("\n  ", " ");
        assert!(narrow.lines().count() == 1 && narrow.contains(&format!("takes {width} columns")), "{narrow}");
    }
}
