//! The control tunnel of a path, at either end: one tunnel on which now and again something passes, so that what an owner tells its
//! terminating node does not stand out (docs/protocol.md, section 5.2).

use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::node::{Input, Of, PathNo, exponential};
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Event, want};
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

/// Mean time between two cells of padding from one end, in milliseconds: one cell then says nothing, and costs as little.
// protocol: U14
const PADDING_MEAN: u64 = 600_000;

/// How long a ready tunnel may take when something must be said.
const TUNNEL_LIMIT: Duration = Duration::from_secs(30);

/// Tunnels over which something is tried to be said: a record that is lost leaves its path without one for an hour.
const ATTEMPTS: usize = 2;

/// What may wait to be said on one path: a record, perhaps its successor, and a tunnel of the other end's.
const SAID: usize = 4;

/// Which end of the path this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Its owner's.
    Own,
    /// Its terminating node's.
    End,
}

enum Said {
    Record(Vec<u8>),
    Adopt(Box<Tunnel>),
}

/// Speaks to the task of one path's control tunnel; the task ends with it.
pub(super) struct Control(mpsc::Sender<Said>);

impl Control {
    pub(super) fn start(whose: Whose, path: PathNo, event_tx: mpsc::Sender<Event>) -> Self {
        let (said_tx, said_rx) = mpsc::channel(SAID);
        let task = Task { whose, path, event_tx, tunnel: None, begun: false, unheard: None };
        tokio::spawn(task.run(said_rx));
        Self(said_tx)
    }

    /// Owner: says SERVE.
    pub(super) fn serve(&self, record: Vec<u8>) {
        // A path on which four records wait is of no use any more; the next one finds another.
        let _ = self.0.try_send(Said::Record(record));
    }

    /// A tunnel that the other end began to use for control.
    pub(super) fn adopt(&self, tunnel: Box<Tunnel>) {
        let _ = self.0.try_send(Said::Adopt(tunnel));
    }
}

struct Task {
    whose: Whose,
    path: PathNo,
    event_tx: mpsc::Sender<Event>,
    tunnel: Option<Tunnel>,
    /// This end began it, and has heard nothing on it yet.
    begun: bool,
    /// The last record that was said on such a tunnel: the other end may have closed it for one that it began itself.
    unheard: Option<Vec<u8>>,
}

impl Task {
    async fn run(mut self, mut said_rx: mpsc::Receiver<Said>) {
        let mut padding = next_padding();
        loop {
            let said = tokio::select! {
                biased;
                said = said_rx.recv() => match said {
                    Some(Said::Record(record)) => self.say_record(record).await,
                    Some(Said::Adopt(tunnel)) => self.adopt(tunnel).await,
                    None => return,
                },
                () = sleep_until(padding) => {
                    padding = next_padding();
                    self.say(CellKind::Padding, &[]).await
                }
                heard = hear(&mut self.tunnel) => self.heard(heard).await,
            };
            if said.is_err() {
                // The next cell takes another.
                self.tunnel = None;
            }
        }
    }

    /// Both ends may begin one at the same time: then the terminating node's stays. What was said on the other is said again.
    // protocol: U15, U28
    async fn adopt(&mut self, tunnel: Box<Tunnel>) -> Result<(), RelayError> {
        if self.tunnel.is_none() || self.whose == Whose::Own {
            (self.tunnel, self.begun) = (Some(*tunnel), false);
        }
        match self.unheard.take() {
            Some(record) => self.say(CellKind::Serve, &record).await,
            None => Ok(()),
        }
    }

    async fn say_record(&mut self, record: Vec<u8>) -> Result<(), RelayError> {
        let said = self.say(CellKind::Serve, &record).await;
        self.unheard = Some(record).filter(|_| self.begun);
        said
    }

    /// Says it over the control tunnel; when that has broken, over another.
    async fn say(&mut self, kind: CellKind, data: &[u8]) -> Result<(), RelayError> {
        let mut said = Ok(());
        for _ in 0..ATTEMPTS {
            said = self.say_once(kind, data).await;
            if said.is_ok() {
                break;
            }
            self.tunnel = None;
        }
        said
    }

    async fn say_once(&mut self, kind: CellKind, data: &[u8]) -> Result<(), RelayError> {
        if self.tunnel.is_none() {
            let given = want(&self.event_tx, Of::Path(self.path), TUNNEL_LIMIT).await;
            (self.tunnel, self.begun) = (given.map(|given| given.tunnel), true);
        }
        let Some(tunnel) = &mut self.tunnel else { return Err(RelayError::TimedOut) };
        let said = async {
            tunnel.outgoing.write(kind, data).await?;
            tunnel.outgoing.flush().await
        };
        tokio::time::timeout(TUNNEL_LIMIT, said).await.map_err(|_| RelayError::TimedOut)?
    }

    // protocol: U2, U4, U16
    async fn heard(&mut self, heard: Result<(CellKind, Vec<u8>), RelayError>) -> Result<(), RelayError> {
        if matches!(heard, Err(RelayError::Noise)) && self.whose == Whose::Own {
            let _ = self.event_tx.send(Event::Input(Input::Misused(self.path))).await;
        }
        let (kind, data) = heard?;
        let first = std::mem::replace(&mut self.begun, false);
        self.unheard = None;
        let event = match (Word::read(kind, &data), self.whose) {
            (Ok(Word::Padding), _) => return Ok(()),
            (Ok(Word::Serve(_)), Whose::End) => Event::Input(Input::Served { path: self.path, record: data }),
            (Ok(Word::Open(_) | Word::Lookup(_) | Word::Incoming(_)), whose) if first => {
                // The other end took the same tunnel at the same moment. It ignores our padding; the tunnel is for what it said.
                let Some(tunnel) = self.tunnel.take().map(Box::new) else { return Ok(()) };
                Event::Used { path: self.path, whose, tunnel, kind, data }
            }
            _ => {
                // Beside us: its sender may be slow to hear so.
                self.tunnel.take().into_iter().for_each(|tunnel| drop(tokio::spawn(tunnel.abort(Reason::Protocol))));
                Event::Input(Input::Misused(self.path))
            }
        };
        let _ = self.event_tx.send(event).await;
        Ok(())
    }
}

fn next_padding() -> Instant {
    Instant::now() + Duration::from_millis(exponential(&mut crate::random(), PADDING_MEAN))
}

/// The next cell; never without a tunnel.
async fn hear(tunnel: &mut Option<Tunnel>) -> Result<(CellKind, Vec<u8>), RelayError> {
    match tunnel {
        Some(tunnel) => {
            let (kind, data) = tunnel.incoming.read().await?.ok_or(RelayError::Ended)?;
            Ok((kind, data.to_vec()))
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::ident::NodeId;
    use phantom_proto::wire::Wire;
    use phantom_proto::wire::cells::Open;

    use super::*;
    use crate::driver::ready::Given;
    use crate::relay::cells::pair as tunnel;

    const PATH: PathNo = PathNo(1);

    /// As the node, grants a tunnel of the path.
    async fn give(event_rx: &mut mpsc::Receiver<Event>, tunnel: Tunnel) {
        let Some(Event::Want { of: Of::Path(PATH), tunnel_tx, .. }) = event_rx.recv().await else {
            panic!("nobody wants one");
        };
        assert!(tunnel_tx.send(Given { path: None, tunnel }).is_ok());
    }

    async fn hears(tunnel: &mut Tunnel) -> (CellKind, Vec<u8>) {
        let (kind, data) = tunnel.incoming.read().await.unwrap().unwrap();
        (kind, data.to_vec())
    }

    async fn says(tunnel: &mut Tunnel, word: Word<'_>) {
        tunnel.outgoing.say(&word).await.unwrap();
        tunnel.outgoing.flush().await.unwrap();
    }

    /// One end pads what the other opens, at the same moment: the path of honest nodes was dropped as misused.
    // protocol: U2, U3, U4, U16
    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_both_ends_begin_to_use_is_for_what_the_other_said() {
        let (event_tx, mut event_rx) = mpsc::channel(8);
        let _control = Control::start(Whose::End, PATH, event_tx);
        let [end, mut owner] = tunnel(1 << 20);
        give(&mut event_rx, end).await;
        assert_eq!(hears(&mut owner).await.0, CellKind::Padding);
        let open = Open { node: NodeId([1; 32]), handle: [2; 16], first: b"data".to_vec() };
        says(&mut owner, Word::Open(open.clone())).await;
        let Some(Event::Used { path: PATH, whose: Whose::End, mut tunnel, kind: CellKind::Open, data }) =
            event_rx.recv().await
        else {
            panic!("it is no connection");
        };
        assert_eq!(data, open.to_bytes());
        says(&mut owner, Word::Data(b"data")).await;
        assert_eq!(hears(&mut tunnel).await.0, CellKind::Data);
        // On one that is for control by what both have said, it is an error.
        let [end, mut owner] = self::tunnel(1 << 20);
        give(&mut event_rx, end).await;
        assert_eq!(hears(&mut owner).await.0, CellKind::Padding);
        says(&mut owner, Word::Padding).await;
        says(&mut owner, Word::Open(open)).await;
        assert!(matches!(event_rx.recv().await, Some(Event::Input(Input::Misused(PATH)))));
        assert_eq!(hears(&mut owner).await, (CellKind::Abort, vec![Reason::Protocol as u8]), "its sender hears so");
    }

    /// The terminating node had closed the owner's tunnel for its own when the record was on its way: it was lost for an hour.
    // protocol: U28
    #[tokio::test(start_paused = true)]
    async fn a_record_that_crosses_the_other_ends_tunnel_is_said_again_on_it() {
        let (event_tx, mut event_rx) = mpsc::channel(8);
        let control = Control::start(Whose::Own, PATH, event_tx);
        let [_closed, owner] = tunnel(1 << 20);
        control.serve(b"record".to_vec());
        give(&mut event_rx, owner).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let [mut end, owner] = tunnel(1 << 20);
        control.adopt(Box::new(owner));
        assert_eq!(hears(&mut end).await, (CellKind::Serve, b"record".to_vec()));
        // It is heard: the next tunnel says it no more.
        says(&mut end, Word::Padding).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let [mut next, owner] = tunnel(1 << 20);
        control.adopt(Box::new(owner));
        assert_eq!(hears(&mut next).await.0, CellKind::Padding);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_a_broken_tunnel_does_not_take_goes_over_another() {
        let (event_tx, mut event_rx) = mpsc::channel(8);
        let control = Control::start(Whose::Own, PATH, event_tx);
        // Its neighbour reads nothing; less than a cell is under way.
        let [_end, stuck] = tunnel(1024);
        let [mut end, owner] = tunnel(1 << 20);
        control.serve(b"record".to_vec());
        give(&mut event_rx, stuck).await;
        give(&mut event_rx, owner).await;
        assert_eq!(hears(&mut end).await, (CellKind::Serve, b"record".to_vec()));
    }
}
