//! One task per link that the node controls: frames up, one at a time, commands down, until the data plane takes the link over.
//!
//! ```text
//!   reading ──frame──▶ asked: nothing is read ──Read──▶ reading        the node took it
//!                                             ──HandOver──▶ Taken      it was the last of the node's
//!                                             ──(dropped)──▶ closed    the link's state does not accept it
//! ```
//!
//! Of a standing connection it says that this node is there, and hears whether the other is: that goes on beside the node, which hears when
//! nothing came any more.
//!
//! So no frame leaves the link before the node has judged the one before it: what belongs to the data plane is still unread when
//! the data plane comes, and what belongs nowhere reaches the node, whatever its kind.

use std::net::IpAddr;
use std::time::Duration;

use phantom_proto::alive::Sign;
use phantom_proto::ident::NodeId;
use phantom_proto::node::LinkId;
use phantom_proto::wire::frame::kind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Event;
use crate::link::frame::LinkWriter;
use crate::relay::{Taken, Watch};

/// Commands that may wait for one link: a standing connection forwards a few blocks at a time. A link that is further
/// behind is stuck, and is closed.
const COMMANDS: usize = 64;

/// How long one write may take before the link counts as stuck.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What the driver wants of a link.
pub(super) enum Command {
    Send {
        kind: u8,
        payload: Vec<u8>,
    },
    /// The link is a standing connection from now on.
    Stands,
    /// The node took the last frame: the next one may come.
    Read,
    /// `answers`: the node does this upon the last frame of this very link.
    HandOver {
        taken_tx: oneshot::Sender<Taken>,
        answers: bool,
    },
}

/// The driver's end of a link task; dropping it closes the link.
pub(super) struct LinkTask {
    command_tx: mpsc::Sender<Command>,
    /// The node at the other end, and where it is.
    with: (NodeId, IpAddr),
}

impl LinkTask {
    /// Starts the task of a link. Events carry `id`.
    pub(super) fn start(id: LinkId, link: Taken, event_tx: mpsc::Sender<Event>) -> Self {
        let (command_tx, command_rx) = mpsc::channel(COMMANDS);
        let with = (NodeId::of(&link.reader.peer()), link.reader.ip());
        tokio::spawn(async move {
            let end = run(id, link, command_rx, &event_tx).await;
            // The driver may be gone: then nobody needs to know.
            let _ = event_tx.send(Event::Down { id, silent: end == End::Silent }).await;
        });
        Self { command_tx, with }
    }

    /// The node at the other end, and where it is.
    pub(super) fn with(&self) -> (NodeId, IpAddr) {
        self.with
    }

    /// Queues a command; false when the link is stuck or gone.
    pub(super) fn command(&self, command: Command) -> bool {
        self.command_tx.try_send(command).is_ok()
    }
}

/// Why a link's task has ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The node let go of it, or it ended.
    Down,
    /// Nothing came any more on a standing connection.
    Silent,
}

// protocol: F3, A1
async fn run(id: LinkId, link: Taken, mut command_rx: mpsc::Receiver<Command>, event_tx: &mpsc::Sender<Event>) -> End {
    let Taken { mut reader, mut writer, back } = link;
    let (mut asked, mut standing) = (false, None::<Watch>);
    loop {
        tokio::select! {
            biased;
            command = command_rx.recv() => match command {
                Some(Command::Send { kind, payload }) => {
                    if !write(&mut writer, kind, &payload).await {
                        return End::Down;
                    }
                }
                Some(Command::Stands) => drop(standing.get_or_insert_with(Watch::new)),
                Some(Command::Read) => asked = false,
                // A frame that came before its time, which the node will not see any more, ends the link.
                Some(Command::HandOver { answers, .. }) if asked != answers => return End::Down,
                Some(Command::HandOver { taken_tx, .. }) => {
                    // A taker that is gone drops the link.
                    let _ = taken_tx.send(Taken { reader, writer, back });
                    return End::Down;
                }
                None => {
                    // protocol: L20, L21
                    let _ = timeout(WRITE_LIMIT, writer.shutdown()).await;
                    return End::Down;
                }
            },
            frame = reader.read(), if !asked => match frame {
                Ok(Some(frame)) => {
                    if let Some(watch) = &mut standing {
                        watch.heard();
                        if frame.kind == kind::ALIVE && frame.payload.is_empty() {
                            continue;
                        }
                    }
                    asked = true;
                    if event_tx.send(Event::Frame { id, frame }).await.is_err() {
                        return End::Down;
                    }
                }
                // protocol: L22
                Ok(None) | Err(_) => return End::Down,
            },
            sign = sign(&mut standing, asked) => match sign {
                Sign::Say if write(&mut writer, kind::ALIVE, &[]).await => {}
                Sign::Say => return End::Down,
                Sign::Gone => return End::Silent,
            },
        }
    }
}

async fn write(writer: &mut LinkWriter, kind: u8, payload: &[u8]) -> bool {
    let write = async {
        writer.write(kind, payload).await?;
        writer.flush().await
    };
    matches!(timeout(WRITE_LIMIT, write).await, Ok(Ok(())))
}

/// What is to be done next about a standing connection; never for a link that is none.
async fn sign(standing: &mut Option<Watch>, deaf: bool) -> Sign {
    match standing {
        Some(watch) => watch.next(deaf).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::VerifyingKey;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::link::frame::{FrameReader, FrameWriter};
    use crate::link::{Link, Purpose};

    const ID: LinkId = LinkId(1);

    struct World {
        task: LinkTask,
        event_rx: mpsc::Receiver<Event>,
        far: DuplexStream,
    }

    fn world() -> World {
        let (near, far) = duplex(1 << 20);
        let link = Link {
            peer: VerifyingKey([1; 32]),
            remote: ([127, 0, 0, 1], 1).into(),
            purpose: Purpose::Frames,
            retires: None,
            stream: Box::new(near),
        };
        let (event_tx, event_rx) = mpsc::channel(8);
        let (reader, writer) = link.into_frames();
        World { task: LinkTask::start(ID, Taken { reader, writer, back: None }, event_tx), event_rx, far }
    }

    impl World {
        async fn sends(&mut self, kinds: &[u8]) {
            let mut writer = FrameWriter::new(&mut self.far);
            for kind in kinds {
                writer.write(*kind, b"payload").await.unwrap();
            }
            writer.flush().await.unwrap();
        }

        async fn sends_exactly(&mut self, kind: u8, payload: &[u8]) {
            let mut writer = FrameWriter::new(&mut self.far);
            writer.write(kind, payload).await.unwrap();
            writer.flush().await.unwrap();
        }

        /// The kind of the next frame that the node is asked about; `None`: the link is down.
        async fn asked(&mut self) -> Option<u8> {
            match self.event_rx.recv().await.unwrap() {
                Event::Frame { id: ID, frame } => Some(frame.kind),
                Event::Down { id: ID, .. } => None,
                _ => panic!("no event of a link"),
            }
        }

        fn hand_over(&self, answers: bool) -> oneshot::Receiver<Taken> {
            let (taken_tx, taken_rx) = oneshot::channel();
            assert!(self.task.command(Command::HandOver { taken_tx, answers }));
            taken_rx
        }
    }

    // protocol: F3, L22
    #[tokio::test]
    async fn frames_of_every_kind_go_up_one_at_a_time() {
        let mut world = world();
        let kinds: Vec<_> = (0..=u8::MAX).collect();
        world.sends(&kinds).await;
        for kind in kinds {
            assert_eq!(world.asked().await, Some(kind));
            assert!(world.event_rx.try_recv().is_err(), "the next frame did not wait for the verdict");
            assert!(world.task.command(Command::Read));
        }
        drop(world.far);
        assert!(
            matches!(world.event_rx.recv().await, Some(Event::Down { id: ID, silent: false })),
            "its loss goes unnoticed"
        );
    }

    // protocol: L20
    #[tokio::test]
    async fn a_link_that_the_node_drops_is_closed_with_frames_unread() {
        let mut world = world();
        world.sends(&[0x30, 0x30]).await;
        assert_eq!(world.asked().await, Some(0x30));
        drop(world.task);
        assert_eq!(world.far.read(&mut [0; 8]).await.unwrap(), 0, "the link is open");
    }

    // protocol: F3
    #[tokio::test]
    async fn the_data_plane_finds_what_follows_the_last_frame_of_the_node() {
        let mut world = world();
        world.sends(&[0x21, 0x30, 0x31]).await;
        assert_eq!(world.asked().await, Some(0x21));
        let mut taken = world.hand_over(true).await.unwrap();
        for kind in [0x30, 0x31] {
            assert_eq!(taken.reader.read().await.unwrap().unwrap().kind, kind);
        }
    }

    /// A frame that the node will not see any more, because the link leaves it upon another link's frame.
    #[tokio::test]
    async fn a_frame_before_its_time_ends_a_link_that_is_handed_over() {
        let mut world = world();
        world.sends(&[0x30]).await;
        assert_eq!(world.asked().await, Some(0x30));
        assert!(world.hand_over(false).await.is_err());
        assert_eq!(world.asked().await, None);
        // Nothing came: nothing is lost.
        let quiet = self::world();
        assert!(quiet.hand_over(false).await.is_ok());
    }

    /// The far end hears so much for so long: how often ALIVE came.
    async fn alives(far: &mut DuplexStream, within: Duration) -> usize {
        let (mut reader, mut count) = (FrameReader::new(far), 0);
        let _ = timeout(within, async {
            while let Ok(Some(frame)) = reader.read().await {
                assert_eq!((frame.kind, frame.payload.len()), (kind::ALIVE, 0));
                count += 1;
            }
        })
        .await;
        count
    }

    // protocol: A1, A2, A3
    #[tokio::test(start_paused = true)]
    async fn a_standing_connection_on_which_nothing_comes_is_said_to_be_silent() {
        let mut world = world();
        assert!(world.task.command(Command::Stands));
        let begun = Instant::now();
        assert!((2..=3).contains(&alives(&mut world.far, Duration::from_secs(60)).await));
        assert_eq!(begun.elapsed(), Duration::from_secs(10), "it was not closed when it was silent");
        assert!(matches!(world.event_rx.recv().await, Some(Event::Down { id: ID, silent: true })));
    }

    // protocol: A1, A3
    #[tokio::test(start_paused = true)]
    async fn whoever_says_that_it_is_there_keeps_its_link_and_troubles_the_node_with_nothing() {
        let mut world = world();
        assert!(world.task.command(Command::Stands));
        for _ in 0..100 {
            world.sends_exactly(kind::ALIVE, &[]).await;
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
        assert!(world.event_rx.try_recv().is_err());
        // With something in it, it is none, as the node will say.
        world.sends_exactly(kind::ALIVE, b"x").await;
        assert_eq!(world.asked().await, Some(kind::ALIVE));
        // Until the node has said so nothing is read, and nobody is blamed.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(world.event_rx.try_recv().is_err());
    }

    /// So an idle link is silent, and what is not expected there is the node's to refuse.
    // protocol: L31, A1
    #[tokio::test(start_paused = true)]
    async fn a_link_that_is_no_standing_connection_says_nothing_and_may_be_silent() {
        let mut world = world();
        assert_eq!(alives(&mut world.far, Duration::from_secs(600)).await, 0);
        assert!(world.event_rx.try_recv().is_err());
        world.sends_exactly(kind::ALIVE, &[]).await;
        assert_eq!(world.asked().await, Some(kind::ALIVE));
    }
}
