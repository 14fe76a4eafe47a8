//! What a process that is about to become the program tells the keeper: ready, perhaps with the filter's listener, or why not.

use std::fs::File;
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

/// Descriptors beside it.
const MOST: usize = 3;

/// The namespaces in which the program begins.
pub(crate) struct Spaces {
    pub(crate) mounts: OwnedFd,
    pub(crate) users: OwnedFd,
}

impl Spaces {
    /// Those of this process.
    pub(crate) fn own() -> io::Result<Self> {
        let own = |kind| File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from);
        Ok(Self { mounts: own("mnt")?, users: own("user")? })
    }
}

/// What the keeper gets when the program starts.
pub(crate) struct Kept {
    /// Where the filter's questions arrive, or a socket that the next daemon is to have.
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) spaces: Spaces,
}

/// What the keeper hears.
pub(crate) enum News {
    /// The program starts now.
    Ready(Kept),
    /// This way cannot be had: never here, or not now.
    Failed { why: String, is_passing: bool },
    /// The process has ended without a word.
    Ended,
}

/// Says that all is ready.
pub(crate) fn send_ready(to: &OwnedFd, kept: &Kept) -> io::Result<()> {
    let spaces = [kept.spaces.mounts.as_fd(), kept.spaces.users.as_fd()];
    let descriptors: Vec<_> = spaces.into_iter().chain(kept.listener.as_ref().map(AsFd::as_fd)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let length = rustix::io::retry_on_intr(|| recvmsg(from, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC))?.bytes;
    let passed = beside.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(passed) => Some(passed),
        _ => None,
    });
    let mut passed = passed.flatten();
    Ok(match message[..length].split_first() {
        Some((&READY, _)) => {
            let (Some(mounts), Some(users)) = (passed.next(), passed.next()) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            News::Ready(Kept { spaces: Spaces { mounts, users }, listener: passed.next() })
        }
        Some((kind, why)) => {
            News::Failed { why: String::from_utf8_lossy(why).into_owned(), is_passing: *kind == PASSING }
        }
        None => News::Ended,
    })
}
