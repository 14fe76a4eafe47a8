//! DNS over TCP between a program and the gate (RFC 7766): one message after the other, each with its length before it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest question, in bytes: a name, and what EDNS adds.
const MAX_QUESTION: u16 = 4_096;

/// A connection on which nobody asks or reads is closed; resolvers expect that.
const IDLE: Duration = Duration::from_secs(10);

/// The next question; none when the program closes, falls silent, or asks what is no question.
pub(super) async fn question(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    timeout(IDLE, read(stream)).await.ok()?
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok().filter(|length| *length <= MAX_QUESTION)?;
    let mut question = vec![0; length.into()];
    stream.read_exact(&mut question).await.ok()?;
    Some(question)
}

/// Sends an answer; none when the program does not take it.
pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), answer: &[u8]) -> Option<()> {
    let length = u16::try_from(answer.len()).ok()?;
    let message = [&length.to_be_bytes()[..], answer].concat();
    timeout(IDLE, stream.write_all(&message)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_come_one_after_the_other() {
        let mut sent = &b"\0\x03abc\0\x01z"[..];
        assert_eq!(question(&mut sent).await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(question(&mut sent).await.as_deref(), Some(&b"z"[..]));
        assert_eq!(question(&mut sent).await, None);
        let mut got = Vec::new();
        assert_eq!(answer(&mut got, b"abc").await, Some(()));
        assert_eq!(got, b"\0\x03abc");
    }

    #[tokio::test]
    async fn what_is_no_question_is_none() {
        for mut sent in [&b""[..], b"\0", b"\0\x03ab", b"\xff\xffab"] {
            assert_eq!(question(&mut sent).await, None);
        }
        assert_eq!(answer(&mut Vec::new(), &[0; 70_000]).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_falls_silent_is_left() {
        let (mut gate, _program) = tokio::io::duplex(4);
        assert_eq!(question(&mut gate).await, None);
        assert_eq!(answer(&mut gate, b"more than fits").await, None);
    }
}
