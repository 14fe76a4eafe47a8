//! The resumable stream of the programs' bytes: absolute offsets, acknowledgements, a bounded buffer of what was not taken.
//!
//! ```text
//!     taken      arrived      sent         written
//!   ────┼───────────┼───────────┼─────────────┼──▶ offset
//!       │◀──────── kept, and bounded ────────▶│
//!                   │◀──── again after the loss of the tunnel
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::SessionError;
use super::seal::Sealer;
use crate::wire::session::{DATA_MAX, Sealed};

/// Most bytes that one side sends ahead of what the other's program took; also the most that a receiver must hold for a program
/// that does not read. At 100 ms of round trip it allows 160 MB/s.
// protocol: S13
pub(super) const WINDOW: u64 = 16 * 1024 * 1024;

/// Bytes that are taken before an acknowledgement goes out of its own accord: each costs the path a cell, so one per 256 KiB is 1.6 %
/// of the traffic, and it is far below [`WINDOW`].
// protocol: S14
const ACK_EVERY: u64 = 256 * 1024;

/// Bytes on another tunnel before the first acknowledgement there: whoever makes a client move has it send so much in vain.
// protocol: S36
pub(super) const FIRST_BYTES: u64 = 64 * 1024;

/// As [`ACK_EVERY`], at first on another tunnel: half of what the sender may have under way, so that it never waits for what is not due.
// protocol: S36
const FIRST_ACK: u64 = FIRST_BYTES / 2;

/// What the buffer keeps for new bytes after it was larger.
const BUFFER_KEPT: usize = 64 * 1024;

/// Both directions of the stream.
pub(super) struct Stream {
    /// Not taken; the first byte is at `taken`.
    buffer: VecDeque<u8>,
    taken: u64,
    arrived: u64,
    sent: u64,
    /// The most that was ever sent, over any tunnel.
    reached: u64,
    /// May be under way on this tunnel.
    allowed: u64,
    finished: bool,
    /// On this tunnel.
    fin_sent: bool,
    /// Over any.
    fin_reached: bool,
    fin_arrived: bool,
    received: u64,
    /// What we have said of the other side's bytes.
    said: Said,
    ack_every: u64,
    fin_received: bool,
}

/// What of it does not depend on a tunnel.
#[derive(Serialize, Deserialize)]
pub(super) struct Carried {
    buffer: Vec<u8>,
    taken: u64,
    arrived: u64,
    reached: u64,
    finished: bool,
    fin_reached: bool,
    fin_arrived: bool,
    received: u64,
    said: Said,
    fin_received: bool,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Said {
    arrived: u64,
    taken: u64,
    fin: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            buffer: VecDeque::new(),
            taken: 0,
            arrived: 0,
            sent: 0,
            reached: 0,
            allowed: WINDOW,
            finished: false,
            fin_sent: false,
            fin_reached: false,
            fin_arrived: false,
            received: 0,
            said: Said::default(),
            ack_every: ACK_EVERY,
            fin_received: false,
        }
    }
}

impl Stream {
    pub(super) fn carry(&self) -> Carried {
        Carried {
            buffer: self.buffer.iter().copied().collect(),
            taken: self.taken,
            arrived: self.arrived,
            reached: self.reached,
            finished: self.finished,
            fin_reached: self.fin_reached,
            fin_arrived: self.fin_arrived,
            received: self.received,
            said: self.said,
            fin_received: self.fin_received,
        }
    }

    /// As it was, on no tunnel: [`Stream::go_on`] says from where.
    pub(super) fn of_carried(carried: &mut Carried) -> Self {
        Self {
            buffer: std::mem::take(&mut carried.buffer).into(),
            taken: carried.taken,
            arrived: carried.arrived,
            sent: carried.arrived,
            reached: carried.reached,
            finished: carried.finished,
            fin_sent: carried.fin_arrived,
            fin_reached: carried.fin_reached,
            fin_arrived: carried.fin_arrived,
            received: carried.received,
            said: carried.said,
            fin_received: carried.fin_received,
            ..Self::default()
        }
    }

    /// Takes bytes of the program.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// No more bytes will be written.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Appends messages for what was written and not sent, then FIN when that is all.
    pub(super) fn frame(&mut self, sealer: &mut Sealer, out: &mut Vec<u8>) {
        let end = self.written().min(self.arrived + self.allowed).max(self.sent);
        let (start, end) = (distance(self.sent - self.taken), distance(end - self.taken));
        out.reserve(end - start + (end - start) / 256 + 64);
        let (first, second) = self.buffer.as_slices();
        let cut = first.len();
        let parts = [&first[start.min(cut)..end.min(cut)], &second[start.max(cut) - cut..end.max(cut) - cut]];
        for bytes in parts.iter().flat_map(|part| part.chunks(DATA_MAX)) {
            sealer.say(&Sealed::Data { offset: self.sent, bytes }, out);
            self.sent += bytes.len() as u64;
        }
        self.reached = self.reached.max(self.sent);
        if self.finished && self.sent == self.written() && !std::mem::replace(&mut self.fin_sent, true) {
            self.fin_reached = true;
            sealer.say(&Sealed::Fin(self.sent), out);
        }
    }

    fn written(&self) -> u64 {
        self.taken + self.buffer.len() as u64
    }

    /// Bytes that were written and not sent.
    pub(super) fn unsent(&self) -> usize {
        distance(self.written() - self.sent)
    }

    /// Bytes that were written and not taken: those that are held.
    pub(super) fn held(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Takes a DATA message; returns what of it is new.
    // protocol: S2
    pub(super) fn data<'a>(&mut self, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8], SessionError> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(SessionError::Misbehaved("offset overflows"))?;
        if offset > self.received {
            return Err(SessionError::Misbehaved("bytes are missing"));
        }
        if end > self.said.taken + WINDOW || (self.fin_received && end > self.received) {
            return Err(SessionError::Misbehaved("more bytes than allowed"));
        }
        let new = bytes.get(distance(self.received - offset)..).unwrap_or_default();
        self.received += new.len() as u64;
        Ok(new)
    }

    /// Takes what the other side says of our bytes, and forgets what it has taken; what says nothing new is ignored.
    // protocol: S3
    pub(super) fn ack(&mut self, arrived: u64, taken: u64) -> Result<(), SessionError> {
        let before = self.arrived;
        self.learn(arrived, taken)?;
        if self.arrived > before {
            self.allowed = (self.allowed * 2).min(WINDOW);
        }
        Ok(())
    }

    /// As [`Stream::ack`], said first on another tunnel: it says from where to go on, not that this one carries well.
    pub(super) fn learn(&mut self, arrived: u64, taken: u64) -> Result<(), SessionError> {
        let fin = self.fin_reached && arrived == self.reached + 1;
        let bytes = arrived - u64::from(fin);
        if bytes > self.reached || taken > bytes {
            return Err(SessionError::Misbehaved("acknowledges what was not sent"));
        }
        self.fin_arrived |= fin;
        self.fin_sent |= fin;
        self.arrived = self.arrived.max(bytes);
        self.sent = self.sent.max(self.arrived);
        let news = taken.saturating_sub(self.taken);
        self.buffer.drain(..distance(news));
        self.taken += news;
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

    /// What to say of the other side's bytes, when it is enough or `now`; `takes`: the program has taken all but a little.
    // protocol: S14
    pub(super) fn news(&mut self, now: bool, takes: bool) -> Option<Sealed<'static>> {
        let taken = if takes { self.received } else { self.said.taken };
        let (to_take, to_come) = (taken - self.said.taken, self.received - self.said.arrived);
        let due = to_take >= ACK_EVERY || to_come >= self.ack_every || (self.fin_received && !self.said.fin);
        (due || (now && to_take + to_come > 0)).then(|| {
            self.ack_every = (self.ack_every * 2).min(ACK_EVERY);
            self.say(taken)
        })
    }

    fn say(&mut self, taken: u64) -> Sealed<'static> {
        self.said = Said { arrived: self.received, taken, fin: self.fin_received };
        Sealed::Ack { arrived: self.received + u64::from(self.fin_received), taken }
    }

    /// Goes on over another tunnel, where this is the first that is said.
    // protocol: S35, S36
    pub(super) fn go_on(&mut self) -> Sealed<'static> {
        self.sent = self.arrived;
        self.fin_sent = self.fin_arrived;
        (self.allowed, self.ack_every) = (FIRST_BYTES, FIRST_ACK);
        self.say(self.said.taken)
    }

    /// What was said of the other's bytes, once more.
    pub(super) fn again(&mut self) -> Sealed<'static> {
        self.say(self.said.taken)
    }

    /// What this end would say of the other's bytes, whoever asks.
    pub(super) fn last_word(&self) -> Sealed<'static> {
        Sealed::Ack { arrived: self.received + u64::from(self.fin_received), taken: self.said.taken }
    }

    /// Whether something of our direction, if only its end, waits to be sent.
    pub(super) fn has_news(&self) -> bool {
        self.unsent() > 0 || self.finished != self.fin_sent
    }

    /// Something was sent over this tunnel of which nobody has said that it came.
    pub(super) fn is_owed(&self) -> bool {
        self.sent > self.arrived || (self.fin_sent && !self.fin_arrived)
    }

    /// Something has come that was not acknowledged.
    pub(super) fn has_unsaid(&self) -> bool {
        self.received > self.said.arrived || self.fin_received != self.said.fin
    }

    pub(super) fn ended_there(&self) -> bool {
        self.fin_received
    }

    /// Both directions have ended, and both ends know it.
    // protocol: S32
    pub(super) fn is_over(&self) -> bool {
        self.fin_arrived && self.fin_received && self.said.fin
    }
}

/// A distance within the buffer, which memory bounds.
fn distance(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::seal::{End, Opener, Secret};
    use crate::wire::session::{HEADER, Message};
    use proptest::prelude::*;

    /// One end's stream, with what seals for it and opens for the other.
    struct Sender {
        stream: Stream,
        sealer: Sealer,
        opener: Opener,
    }

    impl Sender {
        fn new() -> Self {
            let secret = Secret::test(1);
            let (sealer, opener) = (Sealer::new(&secret, 0, End::Client), Opener::new(&secret, 0, End::Client));
            Self { stream: Stream::default(), sealer, opener }
        }

        /// Everything that is sent: its offsets and bytes; FIN without.
        fn frames(&mut self) -> Vec<(u64, Vec<u8>)> {
            let (mut out, mut found, mut at) = (Vec::new(), Vec::new(), 0);
            self.stream.frame(&mut self.sealer, &mut out);
            while let Some((Message::Sealed(_), len)) = Message::read(&out[at..]).unwrap() {
                match self.opener.open(&mut out[at + HEADER..at + len]).unwrap() {
                    Sealed::Data { offset, bytes } => found.push((offset, bytes.to_vec())),
                    Sealed::Fin(offset) => found.push((offset, Vec::new())),
                    other => panic!("{other:?}"),
                }
                at += len;
            }
            assert_eq!(at, out.len());
            found
        }
    }

    // protocol: S3
    #[test]
    fn taken_bytes_are_forgotten_and_others_kept() {
        let mut sender = Sender::new();
        sender.stream.write(&[1; 1000]);
        sender.stream.write(&[2; 1000]);
        assert!(sender.stream.ack(1, 1).is_err(), "not sent yet");
        sender.frames();
        let stream = &mut sender.stream;
        stream.ack(1000, 500).unwrap();
        assert_eq!(stream.held(), 1500);
        stream.ack(1200, 1200).unwrap();
        assert!(stream.held() == 800 && stream.buffer.iter().all(|byte| *byte == 2));
        stream.ack(1100, 1100).unwrap();
        assert_eq!((stream.held(), stream.arrived), (800, 1200));
        assert!(stream.ack(1500, 1501).is_err(), "taken before it came");
        stream.ack(2000, 2000).unwrap();
        assert_eq!(stream.held(), 0);
        assert!(stream.ack(2001, 2000).is_err());
    }

    #[test]
    fn memory_is_given_back() {
        let mut sender = Sender::new();
        sender.stream.write(&vec![1; WINDOW as usize]);
        sender.frames();
        sender.stream.ack(WINDOW, WINDOW).unwrap();
        assert!(sender.stream.buffer.capacity() <= BUFFER_KEPT);
    }

    // protocol: S2, S13
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
        // That it came opens no window; that it was taken does.
        assert_eq!(stream.news(false, false), Some(Sealed::Ack { arrived: sent, taken: 0 }));
        assert_eq!((stream.news(true, false), stream.data(sent, &[0; 8192]).is_ok()), (None, false));
        assert_eq!(stream.news(false, true), Some(Sealed::Ack { arrived: sent, taken: sent }));
        assert!(stream.data(sent, &[0; 8192]).is_ok());
    }

    // protocol: S14
    #[test]
    fn what_comes_and_what_is_taken_is_said_at_each_mark_and_the_end_at_once() {
        for takes in [false, true] {
            let (mut stream, mut said) = (Stream::default(), 0);
            for _ in 0..100 {
                let offset = stream.received;
                stream.data(offset, &[0; 10_000]).unwrap();
                if let Some(news) = stream.news(false, takes) {
                    let taken = if takes { stream.received } else { 0 };
                    assert_eq!(news, Sealed::Ack { arrived: stream.received, taken });
                    said = stream.received;
                }
                assert!(stream.received - said < ACK_EVERY, "{said} of {}", stream.received);
            }
            assert_eq!(said, 3 * 270_000, "and no more often");
            assert!(
                stream.news(true, takes).is_some() && stream.news(true, takes).is_none(),
                "beside what goes anyway"
            );
            stream.fin(1_000_000).unwrap();
            assert!(
                stream.news(false, false).is_some_and(|news| matches!(news, Sealed::Ack { arrived: 1_000_001, .. }))
            );
        }
    }

    #[test]
    fn the_end_must_be_where_the_bytes_end() {
        let mut stream = Stream::default();
        stream.data(0, b"abc").unwrap();
        assert!(stream.fin(2).is_err() && stream.fin(4).is_err());
        stream.fin(3).unwrap();
        assert_eq!(stream.news(false, false), Some(Sealed::Ack { arrived: 4, taken: 0 }), "FIN counts");
        stream.fin(3).unwrap();
        assert!(stream.data(3, b"d").is_err());
        assert_eq!(stream.data(1, b"bc").unwrap(), b"", "again, after the loss of a tunnel");
    }

    /// What got lost goes again, at first no more than a little, and FIN after it; what has arrived does not.
    // protocol: S35, S36
    #[test]
    fn what_had_not_arrived_goes_again_and_slowly_at_first() {
        let mut sender = Sender::new();
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
        sender.stream.write(&bytes);
        sender.stream.finish();
        assert_eq!(sender.frames().last(), Some(&(300_000, Vec::new())));
        sender.stream.ack(50_000, 10_000).unwrap();
        assert_eq!(sender.stream.go_on(), Sealed::Ack { arrived: 0, taken: 0 });
        let sent =
            |frames: Vec<(u64, Vec<u8>)>| (frames[0].0, frames.into_iter().flat_map(|(_, bytes)| bytes).collect());
        let again: (u64, Vec<u8>) = sent(sender.frames());
        assert_eq!(again, (50_000, bytes[50_000..][..FIRST_BYTES as usize].to_vec()));
        assert!(sender.frames().is_empty());
        // The other end had more than it could say.
        sender.stream.learn(200_000, 10_000).unwrap();
        assert_eq!(sent(sender.frames()).1.len(), FIRST_BYTES as usize);
        sender.stream.ack(232_768, 10_000).unwrap();
        let last = sender.frames();
        assert_eq!(last.last(), Some(&(300_000, Vec::new())), "all of it, and FIN");
        assert!(sender.stream.ack(300_002, 0).is_err());
        sender.stream.ack(300_001, 300_000).unwrap();
        assert!(sender.stream.fin_arrived && !sender.stream.is_over());
        sender.stream.go_on();
        assert!(sender.frames().is_empty(), "nothing is missing");
    }

    proptest! {
        /// Whatever is written, sent, acknowledged and lost in whatever order: the other side has the bytes, and we hold the rest.
        #[test]
        fn bytes_stay_in_order(steps in prop::collection::vec((0u8..5, 0usize..40_000), 1..24)) {
            let (mut here, mut there) = (Sender::new(), Stream::default());
            let (mut written, mut arrived) = (Vec::new(), Vec::new());
            for (step, count) in steps {
                match step {
                    0 => {
                        let bytes: Vec<u8> = (0..count).map(|at| (written.len() + at) as u8).collect();
                        here.stream.write(&bytes);
                        written.extend(bytes);
                    }
                    1 | 2 => {
                        let sent = here.frames();
                        // The tunnel ends behind so many messages.
                        let passes = if step == 1 { sent.len() } else { count % (sent.len() + 1) };
                        for (offset, bytes) in &sent[..passes] {
                            arrived.extend_from_slice(there.data(*offset, bytes).unwrap());
                        }
                        prop_assert!(written.starts_with(&arrived));
                        if passes < sent.len() {
                            here.stream.go_on();
                            here.stream.learn(there.received, there.said.taken).unwrap();
                        }
                    }
                    _ => {
                        if let Some(Sealed::Ack { arrived, taken }) = there.news(step == 3, count % 2 == 0) {
                            here.stream.ack(arrived, taken).unwrap();
                        }
                    }
                }
                prop_assert_eq!(&*here.stream.buffer.make_contiguous(), &written[here.stream.taken as usize..]);
            }
            while arrived.len() < written.len() {
                for (offset, bytes) in here.frames() {
                    arrived.extend_from_slice(there.data(offset, &bytes).unwrap());
                }
                let Some(Sealed::Ack { arrived, taken }) = there.news(true, true) else { panic!("it hangs") };
                here.stream.ack(arrived, taken).unwrap();
            }
            prop_assert_eq!(arrived, written);
        }
    }
}
