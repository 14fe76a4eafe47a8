//! The daemon started anew in place: one process becomes the next, which goes on with what programs have open.
//!
//! ```text
//!   this process ── state, descriptors ──> a socket's queue ── exec: standard input ──> the next, with the same number
//! ```
//! The state lies in memory alone, and descriptors under way in a socket's queue stay open: nothing is written to a disk (I4), nothing else
//! is inherited. Whoever starts the process sees none of it. Where a service manager starts the next process, that keeps the socket meanwhile.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::children;
use crate::control::{self, KeptPrograms, Left as Sessions};
use crate::listening::Sockets;
use crate::os::{self, FileId};
use crate::service_manager;
use crate::successor::{self, VARIABLE};

/// Changes with anything that is handed over, or that is said to the gates' helpers, so that another release's is not misread: its
/// programs begin anew then.
const FORM: u32 = 3;

/// Descriptors beside one message: the most that Linux takes (SCM_MAX_FD).
const AT_ONCE: usize = 253;

/// Whether a process was asked to end since it left all.
pub struct Asked(pub(crate) os::Asked);

/// What one process leaves to the next.
pub struct Handover {
    /// Where it listens.
    pub listening: Sockets,
    /// What others have open.
    pub left: Left,
}

/// What others have open.
pub struct Left {
    /// Identities, and conversations with their programs.
    pub programs: KeptPrograms,
    /// Sessions with other ends.
    pub sessions: Sessions,
}

#[derive(Serialize, Deserialize)]
struct Written {
    form: u32,
    programs: Vec<u8>,
    /// Of the descriptors, how many are the programs'.
    of_programs: usize,
    /// Which TCP sockets are before them: for other nodes, for metrics.
    listens: [bool; 2],
    /// The files of the local ones that come then.
    local: Vec<FileId>,
    /// Processes that are to end, each with its user.
    running: Vec<(u32, u32)>,
}

/// Becomes the next process. Returns only what went wrong: the programs' connections end then, as when a daemon is killed. `None`: it was asked to
/// end meanwhile.
pub fn become_next(handover: Handover, asked: &Asked) -> Option<io::Error> {
    let packed = pack(handover).and_then(|socket| Ok((socket.try_clone()?, socket)));
    control::bury_the_last();
    let (socket, queue) = match packed {
        Ok(both) => both,
        Err(error) => return Some(error),
    };
    if asked.0.to_end() {
        control::bury_unknown([queue, socket]);
        control::bury_the_last();
        return None;
    }
    let error = successor::command().env(VARIABLE, "1").stdin(Stdio::from(socket)).exec();
    control::bury_unknown([queue]);
    control::bury_the_last();
    Some(error)
}

/// Leaves it to the process that the service manager starts next.
///
/// # Errors
/// What went wrong: the programs' connections end then.
pub fn leave_to_next(handover: Handover) -> io::Result<()> {
    let packed = pack(handover);
    let kept = packed.and_then(|socket| {
        let kept = service_manager::keep(&socket);
        control::bury_unknown([socket]);
        kept
    });
    control::bury_the_last();
    kept
}

/// What the process before has left, if it has.
pub fn take() -> Option<Handover> {
    let taken = match std::env::var_os(VARIABLE) {
        Some(_) => unpack(io::stdin().as_fd()),
        None => {
            let kept = service_manager::kept();
            kept.last()?;
            // One that was taken already is empty.
            kept.iter().rev().find_map(|socket| unpack(socket.as_fd()))
        }
    };
    if taken.is_none() {
        tracing::warn!("what the process before has left is not whole, or of another release: its programs begin anew");
    }
    taken
}

fn pack(handover: Handover) -> io::Result<OwnedFd> {
    let Handover { listening: Sockets { nodes, metrics, local }, left } = handover;
    let (programs, of_programs) = left.programs.write().map_err(io::Error::other)?;
    let written = Written {
        form: FORM,
        programs: programs.to_vec(),
        of_programs: of_programs.len(),
        listens: [nodes.is_some(), metrics.is_some()],
        local: local.iter().map(|(_, file)| *file).collect(),
        running: children::all(),
    };
    let mut descriptors: Vec<OwnedFd> = nodes.into_iter().chain(metrics).map(OwnedFd::from).collect();
    descriptors.extend(local.into_iter().map(|(socket, _)| OwnedFd::from(socket)));
    descriptors.extend(of_programs.into_iter().chain(left.sessions.descriptors));
    let state = Zeroizing::new(postcard::to_allocvec(&written).map_err(io::Error::other)?);
    // Sessions may keep hundreds of megabytes: by themselves, so that they are copied once.
    let both = [memory(&state)?, memory(&Zeroizing::new(left.sessions.state))?];
    descriptors.splice(..0, both);
    queue_of(&descriptors).inspect_err(|_| control::bury_unknown(descriptors))
}

/// A socket in whose queue they are.
fn queue_of(descriptors: &[OwnedFd]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    for batch in descriptors.chunks(AT_ONCE) {
        match send(&ours, batch) {
            Err(error) if is_too_deep(&error) => batch.iter().try_for_each(|one| send_alone(&ours, one))?,
            sent => sent?,
        }
    }
    Ok(theirs)
}

/// A socket in whose queue others wait, in whose queues others wait, and so on, may be passed on some kernels down to a depth only.
fn is_too_deep(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// In the place of one that cannot be passed goes something that nobody takes for it: it is a stranger's, and ends.
fn send_alone(to: &OwnedFd, descriptor: &OwnedFd) -> io::Result<()> {
    match send(to, std::slice::from_ref(descriptor)) {
        Err(error) if is_too_deep(&error) => {
            control::bury_unknown(descriptor.try_clone());
            send(to, &[File::open("/dev/null")?.into()])
        }
        sent => sent,
    }
}

/// A file that is in memory alone.
fn memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut memory = File::from(memfd_create("phantom-handover", MemfdFlags::CLOEXEC)?);
    memory.write_all(bytes)?;
    Ok(memory.into())
}

fn remembered(memory: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    let (mut memory, mut bytes) = (File::from(memory), Zeroizing::new(Vec::new()));
    memory.rewind()?;
    memory.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Nobody reads meanwhile: what finds no room in the queue is an error.
fn send(to: &OwnedFd, descriptors: &[OwnedFd]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

fn unpack(from: BorrowedFd<'_>) -> Option<Handover> {
    let mut descriptors = receive(from).into_iter();
    let understood = understand(&mut descriptors);
    // Strangers' among them.
    control::bury_unknown(descriptors);
    understood
}

fn understand(descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Handover> {
    let (state, sessions) = (remembered(descriptors.next()?).ok()?, remembered(descriptors.next()?).ok()?);
    let written: Written = postcard::from_bytes(&state).ok().filter(|written: &Written| written.form == FORM)?;
    control::adopt(written.running);
    let [nodes, metrics] = written.listens.map(|is_there| is_there.then(|| descriptors.next().map(TcpListener::from)));
    let local: Vec<OwnedFd> = descriptors.by_ref().take(written.local.len()).collect();
    let mut of_programs = descriptors.by_ref().take(written.of_programs);
    let Some(programs) = KeptPrograms::read(&Zeroizing::new(written.programs), &mut of_programs) else {
        control::bury_unknown(local);
        return None;
    };
    drop(of_programs);
    let local = local.into_iter().map(UnixListener::from).zip(written.local).collect();
    let listening = Sockets { nodes: nodes.flatten(), metrics: metrics.flatten(), local };
    let sessions = Sessions { state: sessions.to_vec(), descriptors: descriptors.collect() };
    Some(Handover { listening, left: Left { programs, sessions } })
}

fn receive(from: BorrowedFd<'_>) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        if recvmsg(from, &mut [IoSliceMut::new(&mut [0])], &mut control, flags).map_or(0, |message| message.bytes) == 0
        {
            return all;
        }
        for beside in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = beside {
                all.extend(descriptors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_descriptors_arrives_in_order() {
        let (mut read, write) = io::pipe().unwrap();
        let mut descriptors: Vec<OwnedFd> = (0..600).map(|_| File::open("/dev/null").unwrap().into()).collect();
        descriptors.push(write.into());
        let sessions = Sessions { state: b"state".to_vec(), descriptors };
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = metrics.local_addr().unwrap();
        let listening = Sockets { metrics: Some(metrics), ..Sockets::default() };
        let left = Left { programs: KeptPrograms::default(), sessions };
        let socket = pack(Handover { listening, left }).unwrap();
        let Handover { listening, left } = unpack(socket.as_fd()).unwrap();
        assert!(listening.nodes.is_none() && listening.local.is_empty());
        assert_eq!(listening.metrics.unwrap().local_addr().unwrap(), addr);
        assert_eq!((left.sessions.state, left.sessions.descriptors.len()), (b"state".to_vec(), 601));
        let mut last = File::from(left.sessions.descriptors.into_iter().last().unwrap());
        last.write_all(b"x").unwrap();
        drop(last);
        let mut said = Vec::new();
        read.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"x", "nobody else has it open");
    }

    #[test]
    fn what_is_not_whole_is_not_taken() {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        drop(ours);
        assert!(unpack(theirs.as_fd()).is_none());
        let state = |form| {
            let written = Written {
                form,
                programs: vec![9; 9],
                of_programs: 0,
                listens: [false; 2],
                local: Vec::new(),
                running: Vec::new(),
            };
            memory(&postcard::to_allocvec(&written).unwrap()).unwrap()
        };
        for form in [FORM, FORM + 1] {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
            send(&ours, &[state(form), memory(&[]).unwrap()]).unwrap();
            drop(ours);
            assert!(unpack(theirs.as_fd()).is_none());
        }
    }
}
