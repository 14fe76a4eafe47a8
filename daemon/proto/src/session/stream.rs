//! The resumable byte stream under TLS: absolute offsets, acknowledgements, a bounded buffer of what was not acknowledged.

use std::collections::VecDeque;

use super::SessionError;
use crate::wire::session::{DATA_MAX, Message};

/// Most bytes that one side sends ahead of the other's acknowledgement; also the most that a receiver must hold for a program
/// that does not read. At 100 ms of round trip it allows 160 MB/s.
pub(super) const WINDOW: u64 = 16 * 1024 * 1024;

/// Bytes that arrive before an acknowledgement goes out: rare enough to cost nothing, far below [`WINDOW`].
const ACK_EVERY: u64 = 256 * 1024;

/// Both directions of the stream.
#[derive(Default)]
pub(super) struct Stream {
    /// Sent or to be sent, and not acknowledged; the first byte is at `acked`.
    unacked: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are acknowledged already.
    skip: usize,
    acked: u64,
    written: u64,
    received: u64,
    announced: u64,
    fin_sent: bool,
    fin_received: Option<u64>,
}

impl Stream {
    /// Takes bytes to send, keeps them for a resumption, and appends their DATA messages to `out`.
    pub(super) fn send(&mut self, bytes: Vec<u8>, out: &mut Vec<u8>) {
        for part in bytes.chunks(DATA_MAX) {
            Message::Data { offset: self.written, bytes: part }.write(out);
            self.written += part.len() as u64;
        }
        if !bytes.is_empty() {
            self.unacked.push_back(bytes);
        }
    }

    /// Ends our direction.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.fin_sent, true) {
            Message::Fin(self.written).write(out);
        }
    }

    /// Bytes that the other side has not acknowledged.
    pub(super) fn in_flight(&self) -> u64 {
        self.written - self.acked
    }

    /// Takes a DATA message; returns what of it is new.
    pub(super) fn data<'a>(&mut self, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8], SessionError> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(SessionError::Misbehaved("offset overflows"))?;
        if offset > self.received {
            return Err(SessionError::Misbehaved("bytes are missing"));
        }
        if self.fin_received.is_some() || end > self.announced + WINDOW + ACK_EVERY {
            return Err(SessionError::Misbehaved("more bytes than allowed"));
        }
        let known = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        self.received += new.len() as u64;
        Ok(new)
    }

    /// Takes an ACK message and forgets what it covers.
    pub(super) fn ack(&mut self, offset: u64) -> Result<(), SessionError> {
        if offset > self.written {
            return Err(SessionError::Misbehaved("acknowledges what was not sent"));
        }
        while self.acked < offset {
            let Some(first) = self.unacked.front() else { break };
            let left = (first.len() - self.skip) as u64;
            if self.acked + left <= offset {
                self.acked += left;
                self.skip = 0;
                self.unacked.pop_front();
            } else {
                self.skip += (offset - self.acked) as usize;
                self.acked = offset;
            }
        }
        Ok(())
    }

    /// Takes a FIN message; nothing may be missing before it.
    pub(super) fn fin(&mut self, offset: u64) -> Result<(), SessionError> {
        if offset != self.received || self.fin_received.is_some_and(|at| at != offset) {
            return Err(SessionError::Misbehaved("ends where it has not been"));
        }
        self.fin_received = Some(offset);
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

    pub(super) fn ended_here(&self) -> bool {
        self.fin_sent
    }

    pub(super) fn ended_there(&self) -> bool {
        self.fin_received.is_some()
    }

    /// Bytes held for a resumption.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.unacked.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_bytes_are_forgotten_and_others_kept() {
        let (mut stream, mut out) = (Stream::default(), Vec::new());
        stream.send(vec![1; 1000], &mut out);
        stream.send(vec![2; 1000], &mut out);
        stream.ack(500).unwrap();
        assert_eq!((stream.in_flight(), stream.held()), (1500, 2000));
        stream.ack(1200).unwrap();
        assert_eq!((stream.in_flight(), stream.held()), (800, 1000));
        stream.ack(1100).unwrap();
        assert_eq!(stream.in_flight(), 800);
        stream.ack(2000).unwrap();
        assert_eq!((stream.in_flight(), stream.held()), (0, 0));
        assert!(stream.ack(2001).is_err());
    }

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
        assert!(sent <= WINDOW + ACK_EVERY);
    }

    #[test]
    fn the_end_must_be_where_the_bytes_end() {
        let mut stream = Stream::default();
        stream.data(0, b"abc").unwrap();
        assert!(stream.fin(2).is_err() && stream.fin(4).is_err());
        stream.fin(3).unwrap();
        assert!(stream.data(3, b"d").is_err());
    }
}
