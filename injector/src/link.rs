//! What a process that is about to become the program tells the keeper: ready, perhaps with the filter's listener, or why not.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// First byte of a message.
const READY: u8 = 1;
const FAILED: u8 = 2;
const PASSING: u8 = 3;

/// Longest message; longer reasons are cut.
const LONGEST: usize = 2048;

/// What the keeper hears.
pub(crate) enum News {
    /// The program starts now; with the listener of its filter, if a supervisor is to answer.
    Ready(Option<OwnedFd>),
    /// This way cannot be had: never here, or not now.
    Failed { why: String, is_passing: bool },
}

/// Says that all is ready.
pub(crate) fn send_ready(to: &OwnedFd, listener: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<_> = listener.map(AsFd::as_fd).into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(to, &[IoSlice::new(&[READY])], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Says why not, and whether it may pass.
pub(crate) fn send_failure(to: &OwnedFd, why: &str, is_passing: bool) -> io::Result<()> {
    let why = &why.as_bytes()[..why.len().min(LONGEST - 1)];
    let kind = [if is_passing { PASSING } else { FAILED }];
    let parts = [IoSlice::new(&kind), IoSlice::new(why)];
    sendmsg(to, &parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for either.
pub(crate) fn receive(from: &OwnedFd) -> io::Result<News> {
    let mut message = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let length = rustix::io::retry_on_intr(|| recvmsg(from, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC))?.bytes;
    let listener = beside.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
        _ => None,
    });
    Ok(match message[..length].split_first() {
        Some((&READY, _)) => News::Ready(listener),
        Some((kind, why)) => {
            News::Failed { why: String::from_utf8_lossy(why).into_owned(), is_passing: *kind == PASSING }
        }
        None => {
            let why = "the process that was to become the program was killed".to_owned();
            News::Failed { why, is_passing: true }
        }
    })
}
