//! Frames over a link: kind, length, payload; many of them per system call and TLS record.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::wire::link::{FRAME_HEADER, frame_header, write_frame_header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Link, Purpose, Stream};

/// How much is asked for at once: four TLS records.
const READ_BATCH: usize = 64 * 1024;

/// How much is gathered before it leaves by itself. One cell more and the link, which takes 64 KiB at a time, would need a
/// second system call.
const WRITE_BATCH: usize = 60 * 1024;

/// Frames that arrive on a link.
pub type LinkReader = FrameReader<ReadEnd>;

/// Frames that leave on a link.
pub type LinkWriter = FrameWriter<WriteHalf<Box<dyn Stream>>>;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// See `phantom_proto::wire::frame::kind`.
    pub kind: u8,
    /// At most `MAX_FRAME` bytes. It may be changed in place: nobody else sees it.
    pub payload: BytesMut,
}

/// Reads frames. Its buffer exists only while it holds bytes, so that idle links cost nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    read: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `read`.
    pub fn new(read: R) -> Self {
        Self { read, buffer: BytesMut::new() }
    }

    /// The next frame. `None`: the link ended between two frames. Cancel-safe: no byte is lost.
    ///
    /// # Errors
    /// `InvalidData` when the other side broke the framing, `UnexpectedEof` when the link ended inside a frame, else what the
    /// link says. After an error the link is of no use.
    pub async fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Waits until [`FrameReader::read`] would answer without waiting. Cancel-safe.
    ///
    /// # Errors
    /// What the link says.
    pub async fn arrive(&mut self) -> io::Result<()> {
        // At the link's end, too: reading says so.
        while !self.has_frame() && poll_fn(|cx| self.poll_fill(cx)).await? > 0 {}
        Ok(())
    }

    /// Whether [`FrameReader::read`] would answer without waiting: with a frame, or with broken framing.
    pub fn has_frame(&self) -> bool {
        !matches!(self.whole(), Ok(None))
    }

    /// Whether nothing has arrived that was not read.
    pub fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BATCH);
        let read = pin!(self.read.read_buf(&mut self.buffer)).poll(cx);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        read
    }

    /// Kind and length of the payload, once the whole frame has arrived.
    fn whole(&self) -> io::Result<Option<(u8, usize)>> {
        let Some(header) = self.buffer.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
        let (kind, len) = frame_header(*header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((self.buffer.len() >= FRAME_HEADER + len).then_some((kind, len)))
    }

    // protocol: F1
    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some((kind, len)) = self.whole()? else { return Ok(None) };
        self.buffer.advance(FRAME_HEADER);
        Ok(Some(Frame { kind, payload: self.buffer.split_to(len) }))
    }
}

/// Writes frames; what is written leaves with [`FrameWriter::flush`], or when a batch is full.
#[derive(Debug)]
pub struct FrameWriter<W> {
    write: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `write`.
    pub fn new(write: W) -> Self {
        Self { write, buffer: BytesMut::new() }
    }

    /// Queues a frame; waits only when a batch is full. Cancel-safe: the frame counts as queued as soon as this is polled.
    ///
    /// # Errors
    /// `InvalidInput` when the payload is too long for a frame: nothing is queued. Else what the link says.
    pub async fn write(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.queue(kind, payload)?;
        if self.is_full() { self.send().await } else { Ok(()) }
    }

    /// Queues a frame, to leave with [`FrameWriter::flush`]; not more than until [`FrameWriter::is_full`].
    ///
    /// # Errors
    /// `InvalidInput` when the payload is too long for a frame: nothing is queued.
    pub fn queue(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let header = write_frame_header(kind, payload.len())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if self.buffer.is_empty() {
            self.buffer.reserve(WRITE_BATCH + FRAME_HEADER + payload.len());
        }
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        Ok(())
    }

    /// Whether a batch waits to leave.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= WRITE_BATCH
    }

    /// Hands everything to the system. Cancel-safe: the next call goes on where this one stopped.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.send().await?;
        // Not kept while idle.
        self.buffer = BytesMut::new();
        self.write.flush().await
    }

    /// Flushes and ends this direction.
    // protocol: L21
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.write.shutdown().await
    }

    async fn send(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            if self.write.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// The arriving half of a link, which knows from whom.
pub struct ReadEnd {
    peer: VerifyingKey,
    remote: SocketAddr,
    purpose: Purpose,
    retires: Option<Instant>,
    half: ReadHalf<Box<dyn Stream>>,
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl AsyncRead for ReadEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.half).poll_read(cx, buf)
    }
}

impl FrameReader<ReadEnd> {
    /// The identity key of the node at the other end.
    pub fn peer(&self) -> VerifyingKey {
        self.read.peer
    }

    /// Where the link comes from or leads to.
    pub fn ip(&self) -> IpAddr {
        self.read.remote.ip()
    }

    /// Whether this node dialed the link.
    pub fn is_dialed(&self) -> bool {
        self.read.retires.is_some()
    }

    /// From now on the link breaks when this is said; `None`: nobody says so any more.
    pub fn cut_by(&mut self, cut: Option<CancellationToken>) {
        self.read.cut = cut.map(|cut| Box::pin(cut.cancelled_owned()));
    }
}

impl Link {
    /// The link as frames.
    pub fn into_frames(self) -> (LinkReader, LinkWriter) {
        let Self { peer, remote, purpose, retires, stream } = self;
        let (half, write) = tokio::io::split(stream);
        (FrameReader::new(ReadEnd { peer, remote, purpose, retires, half, cut: None }), FrameWriter::new(write))
    }

    /// The link of which these are the halves. `None`: they are of two links, or something was read or written by halves, and
    /// the link is of no further use.
    pub fn from_frames(reader: LinkReader, writer: LinkWriter) -> Option<Self> {
        let ReadEnd { peer, remote, purpose, retires, half, .. } = reader.read;
        let clean = reader.buffer.is_empty() && writer.buffer.is_empty() && half.is_pair_of(&writer.write);
        clean.then(|| Self { peer, remote, purpose, retires, stream: half.unsplit(writer.write) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    fn frames() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let payload = (any::<u8>(), prop_oneof![0usize..20, 4000usize..4200, 131_000usize..=131_072]);
        let frame = (any::<u8>(), payload).prop_map(|(kind, (byte, len))| (kind, vec![byte; len]));
        proptest::collection::vec(frame, 0..40)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the sizes, and however the pipe cuts them.
        #[test]
        fn frames_arrive_whole_and_in_order(frames in frames(), pipe in 1usize..100_000) {
            block_on(async {
                let (near, far) = duplex(pipe);
                let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(far));
                let send = async {
                    for (kind, payload) in &frames {
                        writer.write(*kind, payload).await.unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let receive = async {
                    let mut got = Vec::new();
                    while let Some(frame) = reader.read().await.unwrap() {
                        got.push((frame.kind, frame.payload.to_vec()));
                    }
                    got
                };
                let ((), got) = tokio::join!(send, receive);
                assert_eq!(got, frames);
            });
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            block_on(async {
                let mut reader = FrameReader::new(&bytes[..]);
                while let Ok(Some(_)) = reader.read().await {}
            });
        }

        /// Both ends are given up and begun again at every await point; no byte is lost or doubled.
        #[test]
        fn reading_and_writing_may_be_interrupted(frames in frames(), pipe in 1usize..5000) {
            use futures::FutureExt;
            // Without tokio's allowance of steps, at whose end everything would seem to wait.
            block_on(tokio::task::unconstrained(async {
                let (near, far) = duplex(pipe);
                let (mut writer, mut reader) = (FrameWriter::new(near), FrameReader::new(far));
                let mut got = Vec::new();
                let mut drain = |reader: &mut FrameReader<_>| {
                    while let Some(frame) = reader.read().now_or_never() {
                        let frame = frame.unwrap().unwrap();
                        got.push((frame.kind, frame.payload.to_vec()));
                    }
                };
                for (kind, payload) in &frames {
                    // Given up half-way or not, the frame is queued.
                    let _ = writer.write(*kind, payload).now_or_never();
                    drain(&mut reader);
                }
                // Each round moves a pipe's fill, or the end is near.
                let mut rounds = frames.iter().map(|(_, payload)| 4 + payload.len()).sum::<usize>() / pipe + 2;
                while writer.flush().now_or_never().is_none() {
                    drain(&mut reader);
                    rounds = rounds.checked_sub(1).expect("every round gets on");
                }
                drain(&mut reader);
                assert_eq!(got, frames);
            }));
        }
    }

    #[tokio::test]
    async fn broken_framing_and_cut_frames_are_errors() {
        let mut too_long = FrameReader::new(&[1, 2, 0, 1][..]);
        assert_eq!(too_long.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        for cut in [&[1][..], &[1, 0, 0], &[1, 0, 0, 2, 9]] {
            assert_eq!(FrameReader::new(cut).read().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert_eq!(FrameReader::new(&[][..]).read().await.unwrap(), None);
    }

    #[tokio::test]
    async fn too_long_a_payload_queues_nothing() {
        let mut writer = FrameWriter::new(Vec::new());
        assert_eq!(writer.write(1, &[0; 131_073]).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        writer.flush().await.unwrap();
        assert!(writer.write.is_empty());
    }

    #[tokio::test]
    async fn many_frames_leave_in_one_write() {
        let counted = Counted::default();
        let mut writer = FrameWriter::new(counted);
        for _ in 0..14 {
            writer.write(0x30, &[0; 4092]).await.unwrap();
        }
        assert_eq!(writer.write.0, 0);
        writer.write(0x30, &[0; 4092]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(writer.write.0, 1);
    }

    #[tokio::test]
    async fn halves_of_two_links_are_no_link() {
        let link = || {
            let stream: Box<dyn Stream> = Box::new(duplex(10).0);
            let (peer, remote) = (VerifyingKey([1; 32]), ([127, 0, 0, 1], 1).into());
            Link { peer, remote, purpose: Purpose::Frames, retires: None, stream }
        };
        let ((reader, writer), (_, other)) = (link().into_frames(), link().into_frames());
        assert!(Link::from_frames(reader, other).is_none());
        let (reader, _) = (link().into_frames().0, writer);
        let (_, mut writer) = link().into_frames();
        writer.write(1, b"unsent").await.unwrap();
        assert!(Link::from_frames(reader, writer).is_none());
        let (reader, writer) = link().into_frames();
        assert_eq!(Link::from_frames(reader, writer).unwrap().peer, VerifyingKey([1; 32]));
    }

    /// Counts writes.
    #[derive(Default)]
    struct Counted(usize);

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.0 += 1;
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
