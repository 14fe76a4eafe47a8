//! `phantom serve`: a folder as a read-only site at a fresh or named identity, until Ctrl-C.
//!
//! ```text
//!  visitors ── phantom network ── phantomd ── Unix socket in a private folder ── here: files of the folder
//!                                    └─ takes the offer back when our connection ends, however we end
//! ```
//! No other user of this computer reaches the site beside the network: the socket's folder is ours alone.

mod site;
mod visitor;

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use data_encoding::HEXLOWER;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use phantom_ipc::admin::{Forward, Lookup, Request};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use rand::Rng;
use rustix::fs::chown;
use rustix::process::{Uid, geteuid};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::args::Serve;
use super::{json, print, show, wait};
use crate::client::Client;
use crate::random::system_rng;
use site::Site;
use visitor::Visitor;

/// Visitors at one time; more wait.
const VISITORS: usize = 128;

/// How long a visitor may take to ask, first and next.
const ASKING: Duration = Duration::from_secs(60);

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether others find the site yet, and later whether the daemon still runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it is waited for that, before the rest is silence.
const FOUND_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn run(socket: &Path, as_json: bool, wanted: Serve) -> anyhow::Result<()> {
    let site = Arc::new(Site::open(&wanted.folder)?);
    // Before anything is offered: a signal must end it well from the first moment on.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut client = Client::connect(socket).await?;
    let room = Room::make()?;
    let listener = UnixListener::bind(room.socket()).context("cannot make a socket for the site")?;
    room.let_in(client.daemon())?;
    let offer = Request::Offer { port: wanted.port, socket: room.socket(), identity: wanted.identity };
    let offered: Forward = client.ask(&offer).await?;
    tokio::select! {
        never = serve(listener, site) => match never {},
        ended = tell(&mut client, &offered, as_json) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// A folder that nobody else may enter; removed with the value.
struct Room(PathBuf);

impl Room {
    fn make() -> anyhow::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        // A daemon that is a service sees neither root's session nor the same temporary files.
        let base = if geteuid().is_root() { PathBuf::from("/run") } else { runtime.unwrap_or_else(std::env::temp_dir) };
        let mut name = [0; 8];
        system_rng()?.fill_bytes(&mut name);
        let path = base.join(format!("phantom-serve-{}", HEXLOWER.encode(&name)));
        // Fails where something is already, also a link that somebody else put there.
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Root may enter anyhow; a daemon that gave root up may only what is its own.
    fn let_in(&self, daemon: Uid) -> anyhow::Result<()> {
        if daemon != geteuid() && !daemon.is_root() {
            for path in [&self.0, &self.socket()] {
                chown(path, Some(daemon), None)
                    .with_context(|| format!("cannot let the daemon into {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.0.join("site")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.0);
    }
}

async fn serve(listener: UnixListener, site: Arc<Site>) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(VISITORS));
    loop {
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((visitor, _)) => {
                let site = site.clone();
                tokio::spawn(async move {
                    one(visitor, site).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One visitor. No Date, no Server: this computer's clock and program are nobody's business.
async fn one(visitor: UnixStream, site: Arc<Site>) {
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, std::convert::Infallible>(site.answer(&request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASKING).auto_date_header(false);
    // A visitor who breaks off concerns nobody else.
    let _ = http.serve_connection(TokioIo::new(Visitor::new(visitor)), service).await;
}

/// Says where it is, then when others find it; ends when the daemon does.
async fn tell(client: &mut Client, offered: &Forward, as_json: bool) -> anyhow::Result<()> {
    let port = if offered.port == 80 { String::new() } else { format!(":{}", offered.port) };
    let address = format!("http://{}{port}/", offered.phantom_name);
    if as_json {
        print(&json(offered)?)?;
    } else {
        print(&show::served(&address, offered))?;
        if io::stdout().is_terminal() {
            print(&qr(&address)?)?;
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
    loop {
        sleep(LOOK_EVERY).await;
        let _: Vec<Forward> = client.ask(&Request::ForwardList).await?;
    }
}

async fn found(client: &mut Client, offered: &Forward) -> anyhow::Result<()> {
    let request = Request::NetdbLookup { address: offered.phantom_name.clone() };
    loop {
        match client.ask::<Lookup>(&request).await {
            Ok(lookup) if !lookup.entry_nodes.is_empty() => return Ok(()),
            Ok(_) | Err(crate::client::ClientError::Refused(_)) => sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// For a telephone's camera; light on dark, as terminals are.
fn qr(address: &str) -> anyhow::Result<String> {
    let code = QrCode::new(address.as_bytes()).context("the address as a QR code")?;
    let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Ok(format!("\n{drawn}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fits_a_terminal_as_a_qr_code() {
        let drawn = qr(&format!("http://{}.phantom/", "a".repeat(56))).unwrap();
        let lines: Vec<_> = drawn.trim_matches('\n').lines().collect();
        assert!(lines.len() > 10 && lines.len() <= 25, "{drawn}");
        assert!(lines.iter().all(|line| line.chars().count() <= 50), "{drawn}");
    }

    #[test]
    fn the_room_is_private_and_gone_afterwards() {
        use std::os::unix::fs::PermissionsExt;
        let room = Room::make().unwrap();
        let path = room.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(room.socket(), "").unwrap();
        drop(room);
        assert!(!path.exists());
    }
}
