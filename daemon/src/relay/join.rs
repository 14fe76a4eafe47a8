//! The link between exit node and entry node, and its splice with the tunnel on either node.

use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::{Frame, kind};

use super::cells::{CellReader, CellWriter, Tunnel};
use super::{RelayError, Taken};
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

/// Carries DATA as BYTES and END as END, both ways, until both sides have ended or one breaks.
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

// protocol: U29
async fn cells_to_bytes(incoming: &mut CellReader, writer: &mut LinkWriter) -> Result<(), RelayError> {
    let mut gathered = Vec::with_capacity(GATHERED);
    loop {
        if !incoming.has_frame() {
            send_gathered(&mut gathered, writer).await?;
            writer.flush().await?;
        }
        let (kind, data) = incoming.read().await?.ok_or(RelayError::Ended)?;
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
async fn bytes_to_cells(
    reader: &mut LinkReader,
    mut asked: bool,
    closed: &mut bool,
    outgoing: &mut CellWriter,
) -> Result<(), RelayError> {
    loop {
        if !reader.has_frame() {
            outgoing.flush().await?;
        }
        let frame = reader.read().await?.ok_or(RelayError::Ended)?;
        match Frame::read(frame.kind, &frame.payload) {
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
    }
}
