//! Does what the control tunnel of a path says, at either end: a task for each path.

use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::node::{Input as ToNode, Of, PathNo};
pub(crate) use phantom_proto::terminating::Whose;
use phantom_proto::terminating::{Control as Machine, ControlInput as Input, ControlOutput as Output};
use tokio::sync::mpsc;

use super::{Event, want};
use crate::relay::cells::Tunnel;
use crate::relay::{RelayError, Steps};

/// What may wait to reach the task while something is being said.
const SAID: usize = 4;

enum Said {
    Record(Vec<u8>),
    Adopt(Box<Tunnel>),
}

/// Speaks to the task of one path's control tunnel; the task ends with it.
pub(super) struct Control(mpsc::Sender<Said>);

impl Control {
    pub(super) fn start(whose: Whose, path: PathNo, event_tx: mpsc::Sender<Event>) -> Self {
        let (said_tx, said_rx) = mpsc::channel(SAID);
        tokio::spawn(async move {
            let steps = Steps::default();
            let machine = Machine::new(steps.now(), whose, &mut crate::random());
            Task { path, event_tx, steps, machine, tunnel: None, offered: None }.run(said_rx).await;
        });
        Self(said_tx)
    }

    /// Owner: says SERVE.
    pub(super) fn serve(&self, record: Vec<u8>) {
        // A path on which so many wait is of no use any more; the next record finds another.
        let _ = self.0.try_send(Said::Record(record));
    }

    /// A tunnel that the other end began to use for control.
    pub(super) fn adopt(&self, tunnel: Box<Tunnel>) {
        let _ = self.0.try_send(Said::Adopt(tunnel));
    }
}

struct Task {
    path: PathNo,
    event_tx: mpsc::Sender<Event>,
    steps: Steps,
    machine: Machine,
    tunnel: Option<Box<Tunnel>>,
    /// One that the other end began to use, and of which the machine has not said whether it stays.
    offered: Option<Box<Tunnel>>,
}

impl Task {
    async fn run(mut self, mut said_rx: mpsc::Receiver<Said>) {
        loop {
            while let Some(output) = self.machine.poll() {
                self.carry_out(output).await;
            }
            let input = tokio::select! {
                biased;
                said = said_rx.recv() => match said {
                    Some(Said::Record(record)) => Input::Serve(record),
                    Some(Said::Adopt(tunnel)) => {
                        self.offered = Some(tunnel);
                        Input::Offered
                    }
                    None => return,
                },
                () = self.steps.until(self.machine.deadline()) => {
                    self.machine.tick(self.steps.now(), &mut crate::random());
                    continue;
                }
                input = hear(&mut self.tunnel) => input,
            };
            self.machine.handle(self.steps.now(), input);
        }
    }

    async fn carry_out(&mut self, output: Output) {
        let due = Some(self.machine.deadline());
        let done = match output {
            Output::Want { limit } => {
                let given = want(&self.event_tx, Of::Path(self.path), Duration::from_millis(limit));
                self.tunnel = self.steps.by(due, given).await.flatten().map(|given| Box::new(given.tunnel));
                Input::Given(self.tunnel.is_some())
            }
            Output::Say { kind, data } => {
                let said = self.steps.by(due, say(self.tunnel.as_deref_mut(), kind, &data)).await;
                Input::Said(said.unwrap_or(false))
            }
            Output::Keep => return self.tunnel = self.offered.take(),
            Output::Reject => return self.offered = None,
            Output::Drop => return self.tunnel = None,
            Output::Abort(reason) => {
                // Beside us: its sender may be slow to hear so.
                return self.tunnel.take().into_iter().for_each(|tunnel| drop(tokio::spawn(tunnel.abort(reason))));
            }
            Output::Use { kind, data } => {
                let Some(tunnel) = self.tunnel.take() else { return };
                return self.tell(Event::Used { path: self.path, tunnel, kind, data }).await;
            }
            Output::Served(record) => {
                return self.tell(Event::Input(ToNode::Served { path: self.path, record })).await;
            }
            Output::Misused => return self.tell(Event::Input(ToNode::Misused(self.path))).await,
        };
        self.machine.handle(self.steps.now(), done);
    }

    async fn tell(&mut self, event: Event) {
        // The control task is gone only when the daemon stops.
        let _ = self.event_tx.send(event).await;
    }
}

async fn say(tunnel: Option<&mut Tunnel>, kind: CellKind, data: &[u8]) -> bool {
    let Some(Tunnel { outgoing, .. }) = tunnel else { return false };
    outgoing.write(kind, data).await.is_ok() && outgoing.flush().await.is_ok()
}

/// The next cell; never without a tunnel.
async fn hear(tunnel: &mut Option<Box<Tunnel>>) -> Input {
    let Some(tunnel) = tunnel else { return std::future::pending().await };
    match tunnel.incoming.read().await {
        Ok(Some((kind, data))) => Input::Heard { kind, data: data.to_vec() },
        Ok(None) => Input::Broke { noise: false },
        Err(error) => Input::Broke { noise: matches!(error, RelayError::Noise) },
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::ident::NodeId;
    use phantom_proto::wire::Wire;
    use phantom_proto::wire::cells::{Open, Word};
    use phantom_proto::wire::frame::Reason;
    use tokio::time::Instant;

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
        let Some(Event::Used { path: PATH, mut tunnel, kind: CellKind::Open, data }) = event_rx.recv().await else {
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
        assert!(matches!(event_rx.recv().await, Some(Event::Input(ToNode::Misused(PATH)))));
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

    // protocol: U12, U14
    #[tokio::test(start_paused = true)]
    async fn a_terminating_node_hands_on_what_its_owner_serves_and_pads_now_and_again() {
        let (event_tx, mut event_rx) = mpsc::channel(8);
        let control = Control::start(Whose::End, PATH, event_tx);
        let [end, mut owner] = tunnel(1 << 20);
        control.adopt(Box::new(end));
        for record in [&b"record"[..], b""] {
            says(&mut owner, Word::Serve(record)).await;
            let Some(Event::Input(ToNode::Served { path: PATH, record: served })) = event_rx.recv().await else {
                panic!("it is not served");
            };
            assert_eq!(served, record);
        }
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(hears(&mut owner).await.0, CellKind::Padding);
        }
        let mean = begun.elapsed().as_secs() / 200;
        assert!((400..850).contains(&mean), "{mean} s between two");
    }

    /// When both ends began one, the terminating node's stays.
    // protocol: U15
    #[tokio::test(start_paused = true)]
    async fn of_two_control_tunnels_that_of_the_terminating_node_stays() {
        for whose in [Whose::End, Whose::Own] {
            let (event_tx, mut event_rx) = mpsc::channel(8);
            let control = Control::start(whose, PATH, event_tx);
            let [begun, mut other_end] = tunnel(1 << 20);
            give(&mut event_rx, begun).await;
            assert_eq!(hears(&mut other_end).await.0, CellKind::Padding);
            let [adopted, mut others] = tunnel(1 << 20);
            control.adopt(Box::new(adopted));
            let (stays, goes) = match whose {
                Whose::End => (&mut other_end, &mut others),
                Whose::Own => (&mut others, &mut other_end),
            };
            assert_eq!(hears(stays).await.0, CellKind::Padding, "{whose:?}");
            assert!(matches!(goes.incoming.read().await, Ok(None) | Err(_)), "{whose:?}");
        }
    }

    /// What does not belong on a control tunnel ends the path: DATA, or SERVE towards the owner.
    // protocol: U4
    #[tokio::test(start_paused = true)]
    async fn what_does_not_belong_on_a_control_tunnel_ends_the_path() {
        for (whose, word) in [(Whose::End, Word::Data(b"data")), (Whose::Own, Word::Serve(b"record"))] {
            let (event_tx, mut event_rx) = mpsc::channel(8);
            let control = Control::start(whose, PATH, event_tx);
            let [ours, mut theirs] = tunnel(1 << 20);
            control.adopt(Box::new(ours));
            says(&mut theirs, word).await;
            assert!(matches!(event_rx.recv().await, Some(Event::Input(ToNode::Misused(PATH)))), "{whose:?}");
            assert_eq!(hears(&mut theirs).await, (CellKind::Abort, vec![Reason::Protocol as u8]), "{whose:?}");
        }
    }
}
