//! Questions and answers on streams of libp2p: one message each way, its bytes to the end of its direction.

use std::io;
use std::marker::PhantomData;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use phantom_proto::wire::Wire;

/// Messages of these two kinds, each with the most bytes that it may have.
pub(super) struct Messages<Q, A> {
    question: usize,
    answer: usize,
    kinds: PhantomData<fn() -> (Q, A)>,
}

impl<Q, A> Messages<Q, A> {
    pub(super) fn of(question: usize, answer: usize) -> Self {
        Self { question, answer, kinds: PhantomData }
    }
}

impl<Q, A> Clone for Messages<Q, A> {
    fn clone(&self) -> Self {
        Self::of(self.question, self.answer)
    }
}

// protocol: D30, M15

impl<Q: Wire + Send + 'static, A: Wire + Send + 'static> request_response::Codec for Messages<Q, A> {
    type Protocol = StreamProtocol;
    type Request = Q;
    type Response = A;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Q> {
        read(io, self.question).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<A> {
        read(io, self.answer).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, question: Q) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&question.to_bytes()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: A) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&answer.to_bytes()).await
    }
}

async fn read<M: Wire>(io: &mut (impl AsyncRead + Unpin + Send), most: usize) -> io::Result<M> {
    let mut bytes = Vec::new();
    // One more than there may be: then it is too long, and not cut.
    io.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    M::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
