//! The link between exit node and entry node, and its splice with the tunnel on either node.

use phantom_proto::alive::Sign;
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::{Frame, kind};

use super::cells::{CellReader, CellWriter, Tunnel};
use super::{RelayError, Taken, Watch};
use crate::link::frame::{LinkReader, LinkWriter};

/// Largest BYTES frame that we send; a reader accepts up to the protocol's 65 536.
const GATHERED: usize = 16 * 1024;

/// What is said to who sends anything else on a joined link.
const STRANGE: RelayError = RelayError::Misbehaved("a frame that does not belong on a joined link");

/// A link on which JOIN went through.
pub struct Joined {
    /// The link.
    pub link: Taken,
    /// Whether we sent JOIN and may hear REFUSED instead of the session's first bytes.
    pub asked: bool,
}

impl From<Taken> for Joined {
    fn from(link: Taken) -> Self {
        Self { link, asked: false }
    }
}

/// Carries DATA as BYTES and END as END, both ways, until both sides have ended, one breaks, or the other node is gone.
// protocol: U8, U24, U25, U26
pub async fn carry(mut tunnel: Tunnel, joined: Joined) -> Result<(), RelayError> {
    let Joined { mut link, asked } = joined;
    let mut closed = false;
    let done = tokio::try_join!(
        cells_to_bytes(&mut tunnel.incoming, &mut link.writer),
        bytes_to_cells(&mut link.reader, asked, &mut closed, &mut tunnel.outgoing)
    );
    match &done {
        Ok(_) => {
            tokio::join!(tunnel.close(), link.close(closed));
        }
        Err(error @ (RelayError::Link(_) | RelayError::Misbehaved(_) | RelayError::Noise | RelayError::TimedOut)) => {
            drop(link);
            tunnel.abort(error.reason()).await;
        }
        // The owner must learn that this was no orderly end; the other node learns it by the missing END frame.
        Err(error @ (RelayError::Ended | RelayError::Aborted(_))) => {
            tokio::join!(tunnel.abort(error.reason()), link.close(closed));
        }
    }
    done.map(|_| ())
}

// protocol: U29, A1, A6
async fn cells_to_bytes(incoming: &mut CellReader, writer: &mut LinkWriter) -> Result<(), RelayError> {
    let mut gathered = Vec::with_capacity(GATHERED);
    // What the other node says is heard beside this.
    let mut says = Watch::new();
    loop {
        if !incoming.has_frame() {
            send_gathered(&mut gathered, writer).await?;
            writer.flush().await?;
        }
        let (kind, data) = tokio::select! {
            biased;
            cell = incoming.read() => cell?.ok_or(RelayError::Ended)?,
            _ = says.next(true) => {
                writer.write(kind::ALIVE, &[]).await?;
                writer.flush().await?;
                continue;
            }
        };
        match Word::read(kind, data) {
            Ok(Word::Data(data)) => {
                if gathered.len() + data.len() > GATHERED {
                    send_gathered(&mut gathered, writer).await?;
                }
                gathered.extend_from_slice(data);
            }
            Ok(Word::End) => {
                send_gathered(&mut gathered, writer).await?;
                writer.write(kind::END, &[]).await?;
                return Ok(writer.flush().await?);
            }
            Ok(Word::Padding) => {}
            _ => return Err(RelayError::Misbehaved("a cell that does not belong here")),
        }
    }
}

async fn send_gathered(gathered: &mut Vec<u8>, writer: &mut LinkWriter) -> Result<(), RelayError> {
    if !gathered.is_empty() {
        writer.write(kind::BYTES, gathered).await?;
        gathered.clear();
    }
    Ok(())
}

/// `closed` tells whether the other node's CLOSE has come.
// protocol: A6
async fn bytes_to_cells(
    reader: &mut LinkReader,
    mut asked: bool,
    closed: &mut bool,
    outgoing: &mut CellWriter,
) -> Result<(), RelayError> {
    let mut hears = Watch::new();
    loop {
        if !reader.has_frame() {
            outgoing.flush().await?;
        }
        let frame = loop {
            tokio::select! {
                biased;
                frame = reader.read() => break frame?.ok_or(RelayError::Ended)?,
                // Whoever was asked says nothing before it has a tunnel.
                sign = hears.next(asked) => if sign == Sign::Gone {
                    return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
                }
            }
        };
        match Frame::read(frame.kind, &frame.payload) {
            Ok(Frame::Alive) => {}
            Ok(Frame::Bytes(bytes)) => outgoing.write_data(bytes).await?,
            Ok(Frame::End) => {
                outgoing.say(&Word::End).await?;
                return outgoing.flush().await;
            }
            Ok(Frame::Close) => {
                *closed = true;
                return Err(RelayError::Ended);
            }
            Ok(Frame::Refused(reason)) if asked => return Err(RelayError::Aborted(reason)),
            _ => return Err(STRANGE),
        }
        asked = false;
        // Not before: the tunnel takes what came at its own pace.
        hears.heard();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use phantom_proto::cell::CellKind;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::frame::Reason;
    use tokio::io::duplex;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::link::{Link, Purpose};
    use crate::relay::cells::pair;

    /// One node between a tunnel, whose other end is the owner's, and a joined link, whose other end is the other node's.
    fn carried(asked: bool) -> (Tunnel, Taken, JoinHandle<Result<(), RelayError>>) {
        let (near, far) = duplex(1 << 20);
        let [near, far] = [near, far].map(|stream| {
            let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
            let remote = ([127, 0, 0, 1], 443).into();
            let link = Link { peer, remote, purpose: Purpose::Frames, retires: None, stream: Box::new(stream) };
            let (reader, writer) = link.into_frames();
            Taken { reader, writer, back: None }
        });
        let [end, owner] = pair(1 << 20);
        (owner, far, tokio::spawn(carry(end, Joined { link: near, asked })))
    }

    async fn says(other: &mut Taken, kind: u8, payload: &[u8]) {
        other.writer.write(kind, payload).await.unwrap();
        other.writer.flush().await.unwrap();
    }

    /// A frozen entry node kept a whole download: its client waited for bytes, and owed none that could show that nobody takes them.
    // protocol: A3, A6
    #[tokio::test(start_paused = true)]
    async fn an_owner_hears_that_the_other_node_is_gone() {
        let (mut owner, mut other, carried) = carried(true);
        says(&mut other, kind::BYTES, b"answer").await;
        assert_eq!(owner.incoming.read().await.unwrap().unwrap().0, CellKind::Data);
        let begun = Instant::now();
        let (kind, data) = owner.incoming.read().await.unwrap().unwrap();
        assert_eq!((kind, data), (CellKind::Abort, &[Reason::Unreachable as u8][..]));
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        assert!(carried.await.unwrap().is_err());
    }

    // protocol: A1, A2, A6
    #[tokio::test(start_paused = true)]
    async fn two_nodes_that_are_there_keep_a_connection_that_says_nothing() {
        let (mut owner, mut other, carried) = carried(false);
        for _ in 0..200 {
            says(&mut other, kind::ALIVE, &[]).await;
            let begun = Instant::now();
            let frame = other.reader.read().await.unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload.len()), (kind::ALIVE, 0));
            assert!((3_000..=4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        }
        // Behind its END a side says nothing, and nobody waits for it: the other direction may go on for hours.
        says(&mut other, kind::END, &[]).await;
        assert_eq!(owner.incoming.read().await.unwrap().unwrap().0, CellKind::End);
        sleep(Duration::from_secs(3600)).await;
        owner.outgoing.write_data(b"late").await.unwrap();
        owner.outgoing.say(&Word::End).await.unwrap();
        owner.outgoing.flush().await.unwrap();
        let mut kinds = Vec::new();
        while let Ok(Some(frame)) = other.reader.read().await {
            kinds.push(frame.kind);
        }
        assert_eq!(kinds.iter().filter(|kind| **kind != kind::ALIVE).collect::<Vec<_>>(), [&kind::BYTES, &kind::END]);
        assert_eq!(kinds.last(), Some(&kind::END));
        assert!(carried.await.unwrap().is_ok());
    }

    /// An entry node says nothing before it has a tunnel, and a program may take its time: that is no silence.
    // protocol: A4, A6
    #[tokio::test(start_paused = true)]
    async fn nobody_is_gone_who_has_not_begun_or_cannot_be_heard() {
        let (_owner, _other, carried) = carried(true);
        sleep(Duration::from_secs(60)).await;
        assert!(!carried.is_finished());
        // The owner reads nothing, and the tunnel takes no more.
        let (mut owner, mut other, carried) = self::carried(false);
        let much = vec![7; 1 << 16];
        for _ in 0..20 {
            says(&mut other, kind::BYTES, &much).await;
        }
        sleep(Duration::from_secs(600)).await;
        assert!(!carried.is_finished());
        let mut left = 20 * much.len();
        while left > 0 {
            left -= owner.incoming.read().await.unwrap().unwrap().1.len();
        }
        assert!(!carried.is_finished());
    }
}
