//! Descriptors that others pass to local sockets of ours. Who receives one without wanting it closes it, and that may take as long as
//! whoever passed it likes: they are refused by the kernel, or, by one before Linux 6.16, seen before they are received.

mod sys;

use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags};

pub(crate) use sys::{take_no_descriptors, takes_descriptors};

/// What a stranger's socket holds, left there: how many bytes, and whether a descriptor is beside them.
pub(crate) fn look(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, bool)> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut none = RecvAncillaryBuffer::default();
    let seen = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut none, flags)?;
    Ok((seen.bytes, seen.flags.contains(ReturnFlags::CTRUNC)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    pub(crate) use super::sys::take_descriptors;

    /// Says a byte, with a descriptor beside it.
    pub(crate) fn pass(socket: impl AsFd, descriptor: impl AsFd) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let passed = [descriptor.as_fd()];
        assert!(beside.push(SendAncillaryMessage::ScmRights(&passed)));
        rustix::net::sendmsg(socket, &[IoSlice::new(b"x")], &mut beside, SendFlags::NOSIGNAL).map(drop)
    }
}
