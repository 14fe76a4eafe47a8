//! The resumable byte stream under TLS: absolute offsets, acknowledgements, a bounded buffer of what was not acknowledged.
//!
//! ```text
//!     acked        sent         written
//!   ────┼────────────┼─────────────┼──▶ offset
//!       │◀─ kept in case of a resumption ─▶│
//!                    │◀─ DATA still to be made ─▶
//! ```

use std::collections::VecDeque;

use super::SessionError;
use crate::wire::session::{DATA_MAX, Message};

/// Most bytes that one side sends ahead of the other's acknowledgement; also the most that a receiver must hold for a program
/// that does not read. At 100 ms of round trip it allows 160 MB/s.
// protocol: S13
pub(super) const WINDOW: u64 = 16 * 1024 * 1024;

/// Bytes that arrive before an acknowledgement goes out of its own accord: each costs the path a cell, so one per 256 KiB is 1.6 % of
/// the traffic, and it is far below [`WINDOW`].
// protocol: S14
const ACK_EVERY: u64 = 256 * 1024;

/// What the buffer keeps for new bytes after it was larger.
const BUFFER_KEPT: usize = 64 * 1024;

/// Both directions of the stream.
#[derive(Default)]
pub(super) struct Stream {
    /// Not acknowledged; the first byte is at `acked`.
    buffer: VecDeque<u8>,
    acked: u64,
    sent: u64,
    finished: bool,
    fin_sent: bool,
    received: u64,
    announced: u64,
    fin_received: bool,
}

impl Stream {
    /// Where TLS writes what it has to send.
    pub(super) fn writer(&mut self) -> &mut VecDeque<u8> {
        &mut self.buffer
    }

    /// No more bytes will be written.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Appends DATA messages for all that was written and not sent, then FIN when that is all.
    pub(super) fn frame(&mut self, out: &mut Vec<u8>) {
        let start = offset_in_buffer(self.sent - self.acked);
        out.reserve(self.unsent() + self.unsent() / 1024 + 32);
        let (first, second) = self.buffer.as_slices();
        let parts = [first.get(start..).unwrap_or_default(), &second[start.saturating_sub(first.len())..]];
        for bytes in parts.iter().flat_map(|part| part.chunks(DATA_MAX)) {
            Message::Data { offset: self.sent, bytes }.write(out);
            self.sent += bytes.len() as u64;
        }
        if self.finished && !std::mem::replace(&mut self.fin_sent, true) {
            Message::Fin(self.sent).write(out);
        }
    }

    /// Bytes that were written and not sent.
    pub(super) fn unsent(&self) -> usize {
        self.buffer.len() - offset_in_buffer(self.sent - self.acked)
    }

    /// Bytes that were written and not acknowledged: those that are held.
    pub(super) fn in_flight(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Takes a DATA message; returns what of it is new.
    // protocol: S2
    pub(super) fn data<'a>(&mut self, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8], SessionError> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(SessionError::Misbehaved("offset overflows"))?;
        if offset > self.received {
            return Err(SessionError::Misbehaved("bytes are missing"));
        }
        if self.fin_received || end > self.announced + WINDOW {
            return Err(SessionError::Misbehaved("more bytes than allowed"));
        }
        let known = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        self.received += new.len() as u64;
        Ok(new)
    }

    /// Takes an ACK message and forgets what it covers; one that says nothing new is ignored.
    // protocol: S3
    pub(super) fn ack(&mut self, offset: u64) -> Result<(), SessionError> {
        if offset > self.sent {
            return Err(SessionError::Misbehaved("acknowledges what was not sent"));
        }
        let news = offset.saturating_sub(self.acked);
        self.buffer.drain(..offset_in_buffer(news));
        self.acked += news;
        if self.buffer.capacity() > BUFFER_KEPT && self.buffer.len() < self.buffer.capacity() / 8 {
            self.buffer.shrink_to(BUFFER_KEPT.max(self.buffer.len() * 2));
        }
        Ok(())
    }

    /// Takes a FIN message; nothing may be missing before it.
    pub(super) fn fin(&mut self, offset: u64) -> Result<(), SessionError> {
        if offset != self.received {
            return Err(SessionError::Misbehaved("ends where it has not been"));
        }
        self.fin_received = true;
        Ok(())
    }

    /// Acknowledges what arrived, when it is enough or `now`.
    pub(super) fn announce(&mut self, now: bool, out: &mut Vec<u8>) {
        let news = self.received - self.announced;
        if news >= ACK_EVERY || (now && news > 0) {
            self.announced = self.received;
            Message::Ack(self.received).write(out);
        }
    }

    /// Every byte of the other side before this offset has arrived: where it would go on after a resumption.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether our direction has ended; its end may still have to be sent.
    pub(super) fn ended_here(&self) -> bool {
        self.finished
    }

    /// Whether something of our direction, if only its end, waits to be sent.
    pub(super) fn has_news(&self) -> bool {
        self.unsent() > 0 || self.finished != self.fin_sent
    }

    pub(super) fn ended_there(&self) -> bool {
        self.fin_received
    }
}

/// A distance within the buffer, which memory bounds.
fn offset_in_buffer(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(stream: &mut Stream) -> Vec<u8> {
        let mut out = Vec::new();
        stream.frame(&mut out);
        out
    }

    // protocol: S3
    #[test]
    fn acknowledged_bytes_are_forgotten_and_others_kept() {
        let mut stream = Stream::default();
        stream.writer().extend([1; 1000]);
        stream.writer().extend([2; 1000]);
        assert!(stream.ack(1).is_err(), "not sent yet");
        frames(&mut stream);
        stream.ack(500).unwrap();
        assert_eq!(stream.in_flight(), 1500);
        stream.ack(1200).unwrap();
        assert!(stream.in_flight() == 800 && stream.buffer.iter().all(|byte| *byte == 2));
        stream.ack(1100).unwrap();
        assert_eq!(stream.in_flight(), 800);
        stream.ack(2000).unwrap();
        assert_eq!(stream.in_flight(), 0);
        assert!(stream.ack(2001).is_err());
    }

    #[test]
    fn memory_is_given_back() {
        let mut stream = Stream::default();
        stream.writer().extend(std::iter::repeat_n(1, WINDOW as usize));
        frames(&mut stream);
        stream.ack(WINDOW).unwrap();
        assert!(stream.buffer.capacity() <= BUFFER_KEPT);
    }

    // protocol: S2
    #[test]
    fn gaps_and_bytes_beyond_the_window_are_refused_and_repeats_skipped() {
        let mut stream = Stream::default();
        assert_eq!(stream.data(0, b"abc").unwrap(), b"abc");
        assert_eq!(stream.data(1, b"bcde").unwrap(), b"de");
        assert_eq!(stream.data(0, b"ab").unwrap(), b"");
        assert!(stream.data(6, b"g").is_err());
        assert!(stream.data(u64::MAX, b"g").is_err());
        let mut sent = 5;
        let refused = loop {
            match stream.data(sent, &[0; 8192]) {
                Ok(_) => sent += 8192,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SessionError::Misbehaved("more bytes than allowed"));
        assert!((WINDOW - 8192..=WINDOW).contains(&sent));
        let mut out = Vec::new();
        stream.announce(false, &mut out);
        assert_eq!(Message::read(&out), Ok(Some((Message::Ack(sent), out.len()))));
        assert!(stream.data(sent, &[0; 8192]).is_ok());
    }

    #[test]
    fn the_end_must_be_where_the_bytes_end() {
        let mut stream = Stream::default();
        stream.data(0, b"abc").unwrap();
        assert!(stream.fin(2).is_err() && stream.fin(4).is_err());
        stream.fin(3).unwrap();
        stream.fin(3).unwrap();
        assert!(stream.data(3, b"d").is_err());
    }

    proptest! {
        /// Whatever is written, sent and acknowledged in whatever order: the other side has the bytes, and we hold the rest.
        #[test]
        fn bytes_stay_in_order(steps in prop::collection::vec((0u8..3, 0usize..40_000), 1..12)) {
            let (mut here, mut there) = (Stream::default(), Stream::default());
            let (mut written, mut arrived) = (Vec::new(), Vec::new());
            for (step, count) in steps {
                match step {
                    0 => {
                        let bytes: Vec<u8> = (0..count).map(|at| (written.len() + at) as u8).collect();
                        here.writer().extend(&bytes);
                        written.extend(bytes);
                    }
                    1 => {
                        let out = frames(&mut here);
                        let mut at = 0;
                        while let Some((message, len)) = Message::read(&out[at..]).unwrap() {
                            let Message::Data { offset, bytes } = message else { panic!("{message:?}") };
                            arrived.extend_from_slice(there.data(offset, bytes).unwrap());
                            at += len;
                        }
                        prop_assert_eq!(at, out.len());
                        prop_assert_eq!(&arrived, &written);
                    }
                    _ => here.ack((count as u64).min(arrived.len() as u64)).unwrap(),
                }
                prop_assert_eq!(here.buffer.make_contiguous(), &written[here.acked as usize..]);
                prop_assert_eq!(here.unsent(), written.len() - arrived.len());
            }
        }
    }
}
