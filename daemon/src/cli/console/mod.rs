//! `phantom console`: a web page with what the daemon does, for whoever asks it here, until Ctrl-C.
//!
//! ```text
//!  browser ── loopback ── Caller: whose program is it? ── Admission: link, cookie, headers ── answer ── Teller ── daemon
//! ```
//! It asks the daemon as its own user and has nothing that this user could not ask for. It takes no orders: all is GET.

mod admission;
mod answer;
mod proof;
mod sample;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{FileType, fstat, stat};
use rustix::process::geteuid;
use serde::Serialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::args::Console;
use super::{show, tell, wait};
use crate::local::{Caller, Listener, LocalAddress, Stream};
use crate::random::system_rng;
use admission::Admission;
use answer::answer;
use proof::Proof;
use sample::Teller;

/// Connections at one time; more wait. A browser opens six.
const VISITORS: usize = 32;

/// How long one may take, from accept to the last byte: the daemon's answers, and some.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the head of a request may take: a browser sends it at once.
const HEAD_LIMIT: Duration = Duration::from_secs(3);

/// Longest head of a request, in bytes. Cookies of others on this address come along: of those a browser keeps at most some 180, of 4 kB each.
const HEAD: usize = 1 << 20;

/// Pause after a failed accept(), mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(socket: &Path, as_json: bool, wanted: Console) -> anyhow::Result<()> {
    if !wanted.open && is_lost(io::stdout()) {
        bail!(
            "nobody would read the link: standard output is closed, or leads nowhere\n  run it in a terminal, or with --open"
        );
    }
    // Before anything is offered: a signal must end it well from the first moment on.
    let mut ends = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut ends;
    let begun = async {
        let teller = wait::shown(wait::on(socket), Teller::start(socket)).await?;
        if matches!(wanted.listen, LocalAddress::Tcp(_)) {
            Caller::is_told()
                .context("others could see the page\n  offer it at a socket of your own: --listen unix:/PATH")?;
        }
        anyhow::Ok((teller, Listener::bind(&wanted.listen, "the console").await?))
    };
    let (teller, listener) = tokio::select! {
        begun = begun => begun?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        _ = hangup.recv() => return Ok(()),
    };
    let mut rng = system_rng()?;
    let page =
        Arc::new(Page { admission: Admission::new(&mut rng, listener.tcp()?), proof: Proof::new(&mut rng), teller });
    let link = Link::new(&page.admission, &wanted.listen);
    tell(as_json, &link, |link| show::console(&link.url, link.socket.as_deref()))?;
    if wanted.open {
        open(&link.url);
    }
    tokio::select! {
        never = serve(&listener, is_let_in, Arc::new(Semaphore::new(VISITORS)), page) => match never {},
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// What one console's page needs.
struct Page {
    admission: Admission,
    proof: Proof,
    teller: Teller,
}

/// Whether nobody reads what is written there: the runtime opens /dev/null for what is closed.
fn is_lost(out: impl AsFd) -> bool {
    let null = stat("/dev/null").map(|about| about.st_rdev);
    fstat(out).is_ok_and(|about| {
        FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice && Ok(about.st_rdev) == null
    })
}

/// How the page is reached.
#[derive(Serialize)]
struct Link {
    /// With the token; where there is a socket, under the port that somebody leads to it.
    url: String,
    /// The socket, if it is one.
    socket: Option<String>,
}

impl Link {
    fn new(admission: &Admission, at: &LocalAddress) -> Self {
        match at {
            LocalAddress::Tcp(_) => Self { url: admission.link(), socket: None },
            LocalAddress::Unix(path) => Self { url: admission.link(), socket: Some(path.display().to_string()) },
        }
    }
}

/// Opens the link in a browser, which does not end with us. Others may read the link in the list of processes: it is of no use to them.
fn open(url: &str) {
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C is for us, not for the browser.
    command.process_group(0);
    match command.spawn() {
        Ok(mut browser) => drop(tokio::spawn(async move { browser.wait().await })),
        Err(error) => eprintln!("no browser can be opened (xdg-open: {error}): open the link in one yourself"),
    }
}

/// Whose programs are let in: our own user's and root's; for a root who is one by sudo, also those of whoever used it.
fn is_let_in(caller: Caller) -> bool {
    let own = geteuid();
    let by_sudo = || std::env::var("SUDO_UID").ok()?.parse::<u32>().ok().filter(|_| own.is_root());
    let uid = caller.uid().ok().flatten();
    uid.is_some_and(|uid| uid == own.as_raw() || uid == 0 || Some(uid) == by_sudo())
}

async fn serve(
    listener: &Listener,
    is_let_in: fn(Caller) -> bool,
    places: Arc<Semaphore>,
    page: Arc<Page>,
) -> Infallible {
    loop {
        let Ok((visitor, caller)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Programs of others are not heard at all, and gone before anybody waits for them.
        if !is_let_in(caller) {
            continue;
        }
        let place = places.clone().acquire_owned().await;
        let page = page.clone();
        tokio::spawn(async move {
            let _ = timeout(LIMIT, one(visitor, page)).await;
            drop(place);
        });
    }
}

/// One request.
async fn one(visitor: impl Stream + 'static, page: Arc<Page>) {
    let service = service_fn(|request| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(answer(&request, &page).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .auto_date_header(false)
        .max_buf_size(HEAD);
    let _ = http.serve_connection(TokioIo::new(visitor), service).await;
}
