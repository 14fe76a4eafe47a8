//! Requests for records on streams of libp2p: one message each way, to the end of its direction (docs/protocol.md, section 7.3).

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};
use phantom_proto::netdb::{ANSWER_MAX, Answer, REQUEST_MAX, Request};
use phantom_proto::wire::Wire;

/// The protocol's name.
const RECORDS: StreamProtocol = StreamProtocol::new("/phantom/records/1");

/// How long an answer is waited for, the link to the node included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Requests of one connection that are under way at once; more wait.
const STREAMS: usize = 32;

/// The behaviour that carries them.
pub(super) type Records = request_response::Behaviour<Codec>;

pub(super) fn records() -> Records {
    let config =
        request_response::Config::default().with_request_timeout(ANSWER_LIMIT).with_max_concurrent_streams(STREAMS);
    Records::new([(RECORDS, ProtocolSupport::Full)], config)
}

/// Bytes of a stream to messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Codec;

// protocol: D30
impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, REQUEST_MAX).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, ANSWER_MAX).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&request.to_bytes()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
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
