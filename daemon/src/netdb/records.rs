//! Requests for records, and the answers to them (docs/protocol.md, section 7.3).

use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p::request_response::{self, ProtocolSupport};
use phantom_proto::netdb::{ANSWER_MAX, Answer, REQUEST_MAX, Request};

use super::messages::Messages;

/// The protocol's name.
const RECORDS: StreamProtocol = StreamProtocol::new("/phantom/records/1");

/// How long an answer is waited for, the link to the node included.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Requests of one connection that are under way at once; more wait.
const STREAMS: usize = 32;

/// The behaviour that carries them.
pub(super) type Records = request_response::Behaviour<Messages<Request, Answer>>;

pub(super) fn records() -> Records {
    let config =
        request_response::Config::default().with_request_timeout(ANSWER_LIMIT).with_max_concurrent_streams(STREAMS);
    Records::with_codec(Messages::of(REQUEST_MAX, ANSWER_MAX), [(RECORDS, ProtocolSupport::Full)], config)
}
