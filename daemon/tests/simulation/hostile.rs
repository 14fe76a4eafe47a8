//! Nodes that work against the others: what they do to the frames that they send, and to the network database.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use phantom_daemon::link::Stream;
use phantom_proto::wire::frame::kind;
use phantom_proto::wire::link::{FRAME_HEADER, frame_header};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Conduct {
    #[default]
    Honest,
    /// Drops every array.
    Drop,
    /// Holds every frame back for so many milliseconds.
    Delay(u64),
    /// Ends standing connections so many seconds after they came to stand.
    KillLate(u64),
    /// With its friends: drops second rounds in which none of them has seen the first.
    Select,
    /// Passes no seed on: its paths stand and are of no use.
    Mute,
    /// Changes a bit of every cell.
    Garble,
    /// Publishes nothing that owners give it, and finds nothing that they ask for.
    Withhold,
    /// Tells a wrong address, of itself and of others.
    Lie,
}

impl Conduct {
    pub(crate) const HOSTILE: [Self; 8] = [
        Self::Drop,
        Self::Delay(700),
        Self::KillLate(90),
        Self::Select,
        Self::Mute,
        Self::Garble,
        Self::Withhold,
        Self::Lie,
    ];
}

/// Time in which an array passes through a whole circle: who saw one in that time saw the same.
const ONE_ROUND: Duration = Duration::from_secs(2);

/// What hostile nodes tell each other.
#[derive(Clone, Default)]
pub(crate) struct Gang(Arc<Mutex<Sightings>>);

#[derive(Default)]
struct Sightings {
    /// First rounds, by the build id under which they left.
    first: BTreeMap<[u8; 16], Instant>,
    all: Vec<(usize, Instant)>,
}

impl Gang {
    /// Whether an array that leaves a node is a first round, or a second one of which a friend has seen the first.
    fn lets_pass(&self, node: usize, build: [u8; 16]) -> bool {
        let Sightings { first, all } = &mut *self.0.lock().expect("no panic while it is held");
        let Some(then) = first.remove(&build) else {
            first.insert(build, Instant::now());
            all.push((node, Instant::now()));
            return true;
        };
        let near = |at: &Instant| at.max(&then).duration_since(*at.min(&then)) < ONE_ROUND;
        all.iter().any(|(friend, at)| *friend != node && near(at))
    }
}

/// Stands between a hostile node and one of its links.
pub(crate) struct Filter {
    conduct: Conduct,
    node: usize,
    gang: Gang,
    /// A frame that is not whole yet.
    partial: Vec<u8>,
    /// What leaves, and not before that time.
    out: Vec<u8>,
    held: Option<Pin<Box<Sleep>>>,
    /// When the link is ended.
    end: Option<Pin<Box<Sleep>>>,
}

impl Filter {
    /// `None`: nothing is to be done to frames.
    pub(crate) fn of(conduct: Conduct, node: usize, gang: Gang) -> Option<Self> {
        let (partial, out) = Default::default();
        match conduct {
            Conduct::Honest | Conduct::Withhold | Conduct::Lie => None,
            _ => Some(Self { conduct, node, gang, partial, out, held: None, end: None }),
        }
    }

    pub(crate) fn killed(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_elapsed())
    }

    /// Has the link's reader woken when the link is to be ended.
    pub(crate) fn watch_the_time(&mut self, cx: &mut Context<'_>) {
        if let Some(end) = &mut self.end {
            let _ = end.as_mut().poll(cx);
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        inner: &mut Box<dyn Stream>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One batch at a time, so that a slow reader is felt.
        ready!(self.poll_out(inner, cx))?;
        self.partial.extend_from_slice(buf);
        while let Some(frame) = self.take() {
            self.judge(frame);
        }
        if !self.out.is_empty()
            && let Conduct::Delay(millis) = self.conduct
        {
            self.held = Some(Box::pin(sleep(Duration::from_millis(millis))));
        }
        Poll::Ready(Ok(buf.len()))
    }

    pub(crate) fn poll_flush(&mut self, inner: &mut Box<dyn Stream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(inner, cx))?;
        Pin::new(inner).poll_flush(cx)
    }

    fn poll_out(&mut self, inner: &mut Box<dyn Stream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(held) = &mut self.held {
            ready!(held.as_mut().poll(cx));
            self.held = None;
        }
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut *inner).poll_write(cx, &self.out))?;
            self.out.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let header = *self.partial.first_chunk::<FRAME_HEADER>()?;
        let (_, len) = frame_header(header).expect("the node's own frames are well formed");
        (self.partial.len() >= FRAME_HEADER + len).then(|| self.partial.drain(..FRAME_HEADER + len).collect())
    }

    fn judge(&mut self, mut frame: Vec<u8>) {
        let passes = match (self.conduct, frame[0]) {
            (Conduct::Drop, kind::ARRAY) | (Conduct::Mute, kind::SEED) => false,
            (Conduct::Select, kind::ARRAY) => {
                let build = frame[FRAME_HEADER..].first_chunk().expect("an array begins with its id");
                self.gang.lets_pass(self.node, *build)
            }
            (Conduct::KillLate(seconds), kind::ATTACH | kind::ATTACHED) => {
                self.end = Some(Box::pin(sleep(Duration::from_secs(seconds))));
                true
            }
            (Conduct::Garble, kind::CELL) => {
                frame[FRAME_HEADER + 100] ^= 1;
                true
            }
            _ => true,
        };
        if passes {
            self.out.append(&mut frame);
        }
    }
}
