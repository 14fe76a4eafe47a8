//! `phantom top`: paths and connections as they live, in a terminal.
//!
//! ```text
//!  daemon ── Sample ──> View (a value: what is shown, sorted how) ── draw ──> terminal
//!  keys ── Key ───────────^
//! ```

mod draw;
mod view;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use phantom_ipc::admin::{Peer, Request};
use ratatui::crossterm::event::{self, Event, KeyEvent};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{Client, ClientError};
use view::{Sample, View};

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Key presses that wait: nobody types faster than a screen is drawn.
const KEYS: usize = 16;

/// What comes from the terminal.
enum Typed {
    Key(KeyEvent),
    /// It has another size, or was covered.
    Redraw,
}

/// Shows until somebody presses `q` or ends it.
///
/// # Errors
/// When this is no terminal, or no daemon answers at the start; one that is lost later is said on the screen.
pub(super) async fn run(socket: &Path) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("`phantom top` needs a terminal\n  for scripts: phantom --json status, path list, connection list");
    }
    let mut view = View::new(socket);
    view.take(Instant::now(), Source::open(socket).await?.sample().await?);
    let mut ends = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    // From here to its end the screen is ours; a panic gives it back as well.
    let mut terminal = ratatui::try_init().context("the terminal cannot be taken over")?;
    let [interrupt, terminate, hangup] = &mut ends;
    let shown = tokio::select! {
        shown = show(&mut terminal, &mut view, socket) => shown,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    ratatui::restore();
    shown
}

async fn show(terminal: &mut ratatui::DefaultTerminal, view: &mut View, socket: &Path) -> anyhow::Result<()> {
    let mut typed = keys()?;
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut source = Source { socket: socket.to_owned(), client: None };
    loop {
        terminal.draw(|frame| draw::draw(frame, view))?;
        tokio::select! {
            _ = ticks.tick() => match source.sample().await {
                Ok(sample) => view.take(Instant::now(), sample),
                Err(error) => view.lose(&error.to_string()),
            },
            key = typed.recv() => match key {
                Some(Typed::Key(key)) => if !view.key(key) { return Ok(()) },
                Some(Typed::Redraw) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
        }
    }
}

/// What is typed, read by a thread of its own: it ends with the process.
fn keys() -> io::Result<mpsc::Receiver<Typed>> {
    let (typed, keys) = mpsc::channel(KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            let one = match event {
                Event::Key(key) if key.is_press() => Typed::Key(key),
                Event::Resize(..) | Event::FocusGained => Typed::Redraw,
                _ => continue,
            };
            if typed.blocking_send(one).is_err() {
                return;
            }
        }
    })?;
    Ok(keys)
}

/// A daemon, which may be started again meanwhile.
struct Source {
    socket: PathBuf,
    client: Option<Client>,
}

impl Source {
    async fn open(socket: &Path) -> Result<Self, ClientError> {
        Ok(Self { socket: socket.to_owned(), client: Some(Client::connect(socket).await?) })
    }

    async fn sample(&mut self) -> Result<Sample, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await?,
        };
        let status = client.status().await?;
        let paths = client.ask(&Request::PathList).await?;
        let connections = client.ask(&Request::Connections).await?;
        let known = client.ask::<Vec<Peer>>(&Request::PeerList).await?.len();
        self.client = Some(client);
        Ok(Sample { status, paths, connections, known })
    }
}
