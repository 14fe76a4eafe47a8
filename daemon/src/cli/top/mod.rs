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
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::wait;
use crate::client::{Client, ClientError};
use crate::os::{Continued, Signals, suspend};
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
    let first = async { Source::open(socket).await?.sample().await };
    view.take(Instant::now(), wait::shown(wait::on(socket), first).await?);
    let mut signals = Signals::new()?;
    // From here to its end the screen is ours; a panic gives it back as well.
    let mut terminal = ratatui::try_init().context("the terminal cannot be taken over")?;
    let shown = tokio::select! {
        shown = show(&mut terminal, &mut view, socket) => shown,
        _ = signals.next() => Ok(()),
    };
    ratatui::restore();
    shown
}

async fn show(terminal: &mut ratatui::DefaultTerminal, view: &mut View, socket: &Path) -> anyhow::Result<()> {
    let (mut typed, mut continued) = (keys()?, Continued::new()?);
    let source = Source { socket: socket.to_owned(), client: None };
    // Beside the keys: whoever wants to end does not wait for a daemon that is silent.
    let mut asking = Box::pin(source.next());
    loop {
        terminal.draw(|frame| draw::draw(frame, view))?;
        tokio::select! {
            (source, said) = &mut asking => {
                match said {
                    Ok(sample) => view.take(Instant::now(), sample),
                    Err(error) => view.lose(&error.to_string()),
                }
                asking.set(source.next());
            }
            // The shell had the terminal meanwhile, and left its own ways of it.
            () = continued.next() => *terminal = taken_again()?,
            key = typed.recv() => match key {
                Some(Typed::Key(key)) if is_suspend(key) => {
                    ratatui::restore();
                    suspend().await?;
                    *terminal = taken_again()?;
                }
                Some(Typed::Key(key)) => if !view.key(key) { return Ok(()) },
                Some(Typed::Redraw) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
        }
    }
}

/// Ctrl-Z: no signal comes of it while the screen is ours.
fn is_suspend(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// The terminal, after somebody else had it: as new, whatever is on it.
fn taken_again() -> io::Result<ratatui::DefaultTerminal> {
    // What is believed to be set is not set again.
    disable_raw_mode()?;
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
    ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))
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

    /// A sample after the pause between two, and what asks for the one after it.
    async fn next(mut self) -> (Self, Result<Sample, ClientError>) {
        sleep(ASK_EVERY).await;
        let said = self.sample().await;
        (self, said)
    }

    async fn sample(&mut self) -> Result<Sample, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await?,
        };
        let status = client.status().await?;
        let paths = client.ask(&Request::PathList).await?;
        let connections = client.ask(&Request::Connections).await?;
        let forwards = client.ask(&Request::ForwardList).await?;
        let known = client.ask::<Vec<Peer>>(&Request::PeerList).await?.len();
        self.client = Some(client);
        Ok(Sample { status, paths, connections, forwards, known })
    }
}
