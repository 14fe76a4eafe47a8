//! Joins a program's connection with the stream that leads to the far end: bytes, half-close, resets.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::far::{Parked, Parking, Stream};
use crate::os;

/// Bytes in hand per direction: large enough that system calls cost little, small enough for thousands of connections.
const BUFFER: usize = 128 * 1024;

/// First buffer of a direction; it grows when reads fill it, so that quiet connections stay cheap.
const FIRST_BUFFER: usize = 8 * 1024;

/// Keep-alives show the reflector that a quiet connection lives, and us that the program's kernel does.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// Bytes of one direction that were read and not written yet, and whether they are the last.
#[derive(Default)]
struct Hand {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    over: bool,
}

impl Hand {
    fn of(bytes: Vec<u8>, over: bool) -> Self {
        Self { end: bytes.len(), buffer: bytes, start: 0, over }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Carries the direction to its end, and ends the other side of it. May be left at any await: nothing is lost then.
    async fn carry(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        loop {
            while self.start < self.end {
                let count = to.write(self.rest()).await?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.start += count;
            }
            if self.over {
                return to.shutdown().await;
            }
            to.flush().await?;
            let was_full = self.end == self.buffer.len();
            if was_full {
                let length = if self.buffer.is_empty() { FIRST_BUFFER } else { BUFFER };
                self.buffer.resize(length.max(self.buffer.len()), 0);
            }
            self.end = 0;
            self.start = 0;
            self.end = from.read(&mut self.buffer).await?;
            self.over = self.end == 0;
        }
    }
}

/// Carries bytes between a program and the far end until both directions are closed or one end resets.
///
/// A half-close of one end becomes a half-close of the other; a reset of one end resets the other, also when that end had
/// half-closed before. A connection that outlives the process is left when the process hands over: see [`Stream::parking`].
pub async fn splice(tcp: TcpStream, far: Box<dyn Stream>) {
    join(tcp, far, Hand::default(), Hand::default()).await;
}

/// Goes on with a connection that another process has left.
///
/// # Errors
/// When the runtime does not take it.
pub(crate) fn go_on(parked: Parked, far: Box<dyn Stream>) -> io::Result<impl Future<Output = ()> + Send> {
    let Parked { tcp, up, up_over, down } = parked;
    tcp.set_nonblocking(true)?;
    let tcp = TcpStream::from_std(tcp)?;
    Ok(join(tcp, far, Hand::of(up, up_over), Hand::of(down, false)))
}

async fn join(mut tcp: TcpStream, mut far: Box<dyn Stream>, mut up: Hand, mut down: Hand) {
    prepare(&tcp);
    let parking = far.parking();
    let asked = parking.as_ref().map(|parking| parking.carries());
    let result = tokio::select! {
        biased;
        result = both(&mut tcp, &mut far, &mut up, &mut down) => result,
        () = until_asked(asked) => {
            if let Some(parking) = parking {
                leave(&parking, tcp, far, (up, down)).await;
            }
            return;
        }
    };
    if result.is_ok() {
        let _ = rustix::net::sockopt::set_socket_linger(&tcp, None);
    }
}

async fn both(tcp: &mut TcpStream, far: &mut Box<dyn Stream>, up: &mut Hand, down: &mut Hand) -> io::Result<()> {
    let (mut tcp_read, mut tcp_write) = tcp.split();
    let (mut far_read, mut far_write) = tokio::io::split(far);
    // Each direction is told when the other has ended: until then its own end may still become a reset.
    let (up_over, down_over) = (Notify::new(), Notify::new());
    let up = async {
        up.carry(&mut tcp_read, &mut far_write).await?;
        up_over.notify_one();
        until(&down_over, os::resets(&tcp_read)).await
    };
    let down = async {
        down.carry(&mut far_read, &mut tcp_write).await?;
        down_over.notify_one();
        until(&up_over, far_resets(&mut far_read)).await
    };
    // The first error ends both directions; the far end is dropped by who called, before both have ended: a reset.
    tokio::try_join!(up, down).map(drop)
}

async fn until_asked(asked: Option<impl Future<Output = ()>>) {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// All that can be read without waiting: who asks for a connection writes nothing more. No end is said for it, which the program would see.
async fn what_is_there(far: &mut Box<dyn Stream>, all: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = vec![0; FIRST_BUFFER];
    // A read that is put off for fairness would look like one that has to wait.
    tokio::task::unconstrained(poll_fn(|cx| {
        loop {
            let mut read = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *far).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => all.extend_from_slice(read.filled()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }))
    .await
}

/// Leaves the connection with all that is in hand.
async fn leave(parking: &Parking, tcp: TcpStream, mut far: Box<dyn Stream>, (up, down): (Hand, Hand)) {
    let mut rest = down.rest().to_vec();
    if !down.over && what_is_there(&mut far, &mut rest).await.is_err() {
        // It was reset just now.
        return;
    }
    // What cannot be left is dropped: a reset.
    if let Ok(tcp) = tcp.into_std() {
        parking.leave(Parked { tcp, up: up.rest().to_vec(), up_over: up.over, down: rest });
    }
}

/// Waits for the other direction's end, or for an error of this one.
async fn until(other_over: &Notify, breaks: impl Future<Output = io::Error>) -> io::Result<()> {
    tokio::select! {
        biased;
        () = other_over.notified() => Ok(()),
        error = breaks => Err(error),
    }
}

/// Resolves when the far end, which has sent its last byte, resets the connection: see [`Stream`].
async fn far_resets(far: &mut (impl AsyncRead + Unpin)) -> io::Error {
    match far.read(&mut [0]).await {
        Err(error) => error,
        // It has no more to say.
        Ok(_) => std::future::pending().await,
    }
}

fn prepare(tcp: &TcpStream) {
    use rustix::net::sockopt;
    // Closing is a reset until both directions have ended well: also when this task is cut short, for a program must
    // never take that for the end of its data.
    let _ = sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
    // The far end has its own idea of packets: waiting for more bytes here would only add delay. All are best effort.
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, KEEP_ALIVE);
    let _ = sockopt::set_tcp_keepintvl(tcp, KEEP_ALIVE / 10);
}

/// Carries one direction to its end, and ends the other side of it.
pub(crate) async fn carry(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    Hand::default().carry(from, to).await
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use std::sync::Arc;

    use tokio::io::{DuplexStream, Interest};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A far end that has half-closed: takes bytes, and resets when it is told to.
    struct HalfClosed {
        ended: bool,
        reset: oneshot::Receiver<()>,
    }

    impl Stream for HalfClosed {}

    impl AsyncRead for HalfClosed {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !std::mem::replace(&mut self.ended, true) {
                return Poll::Ready(Ok(()));
            }
            Pin::new(&mut self.reset).poll(cx).map(|_| Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for HalfClosed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (program, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (program.unwrap(), accepted.unwrap().0)
    }

    /// A far end that its process leaves behind.
    struct Leaves(DuplexStream, Arc<Parking>);

    impl Stream for Leaves {
        fn parking(&self) -> Option<Arc<Parking>> {
            Some(self.1.clone())
        }
    }

    impl AsyncRead for Leaves {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Leaves {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// Writes all, and ends if it is to.
    async fn written<W: AsyncWrite + Unpin>(mut to: W, bytes: Vec<u8>, ends: bool) -> W {
        to.write_all(&bytes).await.unwrap();
        if ends {
            to.shutdown().await.unwrap();
        }
        to
    }

    /// Wherever it is left: with all buffers full, half-closed by either end, and by both.
    // protocol: S51
    #[tokio::test]
    async fn a_connection_that_is_left_goes_on_with_every_byte_and_end() {
        for (program_ends, far_ends) in [(false, false), (true, false), (false, true), (true, true)] {
            let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_ne_bytes).collect();
            let (program, gate) = tcp().await;
            let (far, other) = tokio::io::duplex(10_000);
            let parking = Arc::<Parking>::default();
            let spliced = tokio::spawn(splice(gate, Box::new(Leaves(far, parking.clone()))));
            let (mut program_read, program_write) = program.into_split();
            let program_writes = tokio::spawn(written(program_write, bytes.clone(), program_ends));
            let (mut other_read, mut other_write) = tokio::io::split(other);
            // The program reads some of it, and then nothing for a while.
            let mut down = vec![0; 100_000];
            let mut up = vec![0; 100_000];
            tokio::join!(
                async { other_write.write_all(&bytes[..200_000]).await.unwrap() },
                async { program_read.read_exact(&mut down).await.unwrap() },
                async { other_read.read_exact(&mut up).await.unwrap() },
            );
            assert!(parking.ask());
            other_read.read_to_end(&mut up).await.unwrap();
            timeout(PATIENCE, spliced).await.expect("it is left").unwrap();
            let mut parked = parking.take().expect("it was left");
            up.append(&mut parked.up);
            assert!(bytes.starts_with(&up));
            let (far, other) = tokio::io::duplex(10_000);
            // Up to here all has come; the next process is told the rest.
            let _spliced = tokio::spawn(go_on(Parked { up: Vec::new(), ..parked }, Box::new(far)).unwrap());
            let (mut other_read, other_write) = tokio::io::split(other);
            let other_writes = tokio::spawn(written(other_write, bytes[200_000..].to_vec(), far_ends));
            down.resize(bytes.len(), 0);
            timeout(PATIENCE, program_read.read_exact(&mut down[100_000..])).await.expect("all comes").unwrap();
            let missing = bytes.len() - up.len();
            let mut more = vec![0; missing];
            timeout(PATIENCE, other_read.read_exact(&mut more)).await.expect("all goes").unwrap();
            up.append(&mut more);
            assert!(up == bytes && down == bytes, "{program_ends} {far_ends}");
            let (_program_write, _other_write) = (program_writes.await.unwrap(), other_writes.await.unwrap());
            if program_ends {
                assert_eq!(timeout(PATIENCE, other_read.read(&mut [0])).await.expect("an end").unwrap(), 0);
            }
            if far_ends {
                assert_eq!(timeout(PATIENCE, program_read.read(&mut [0])).await.expect("an end").unwrap(), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_reset_after_the_programs_half_close_drops_the_far_end() {
        let (mut program, gate) = tcp().await;
        let (far, mut other) = tokio::io::duplex(1024);
        let spliced = tokio::spawn(splice(gate, Box::new(far)));
        program.shutdown().await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        rustix::net::sockopt::set_socket_linger(&program, Some(Duration::ZERO)).unwrap();
        drop(program);
        // Nothing was written: the reset alone ends it.
        timeout(PATIENCE, spliced).await.expect("the reset is noticed").unwrap();
        assert_eq!(other.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_reset_after_the_far_ends_half_close_resets_the_program() {
        let (program, gate) = tcp().await;
        let (reset, told) = oneshot::channel();
        let spliced = tokio::spawn(splice(gate, Box::new(HalfClosed { ended: false, reset: told })));
        let (mut read, _write) = program.into_split();
        assert_eq!(timeout(PATIENCE, read.read(&mut [0])).await.unwrap().unwrap(), 0);
        reset.send(()).unwrap();
        timeout(PATIENCE, spliced).await.expect("the reset ends it").unwrap();
        timeout(PATIENCE, read.ready(Interest::ERROR)).await.expect("the program is reset").unwrap();
    }

    #[tokio::test]
    async fn both_ends_in_order_are_no_reset() {
        let (mut program, gate) = tcp().await;
        let (_never, told) = oneshot::channel();
        let spliced = tokio::spawn(splice(gate, Box::new(HalfClosed { ended: false, reset: told })));
        assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
        program.shutdown().await.unwrap();
        timeout(PATIENCE, spliced).await.expect("both ends end it").unwrap();
        assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
    }
}
