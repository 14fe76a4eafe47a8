//! seccomp as the kernel has it: installing a filter, and answering the calls that it hands to a supervisor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_ulong, seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_filter};

/// Wakes the supervisor on the same processor: one system call is one exchange between the two. Since Linux 6.6.
const SYNC_WAKE_UP: u64 = 1;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Names the call in the answer.
    id: u64,
    /// The first three arguments, as the kernel takes them: their lower halves.
    pub(crate) arguments: [i32; 3],
}

/// Installs a filter for this process and all its descendants, for ever. no_new_privs must be set.
pub(crate) fn install(program: &mut [sock_filter]) -> io::Result<()> {
    seccomp(program, 0).map(drop)
}

/// Installs a filter whose questions arrive at the descriptor that is returned.
///
/// # Errors
/// EBUSY when this process is under a filter with a supervisor already; EINVAL when the kernel knows no supervisors.
pub(crate) fn install_with_listener(program: &mut [sock_filter]) -> io::Result<OwnedFd> {
    let with = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Signals must not interrupt a call whose socket is on its way (Linux 5.19); older kernels begin it anew.
    let number = match seccomp(program, with | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => seccomp(program, with)?,
        other => other?,
    };
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let listener = unsafe { OwnedFd::from_raw_fd(number) };
    // Older kernels wake the supervisor up wherever it sleeps.
    let _ = ioctl(listener.as_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP as *mut libc::c_void);
    sends_descriptors(&listener)?;
    Ok(listener)
}

fn seccomp(program: &mut [sock_filter], flags: c_ulong) -> io::Result<i32> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives through the call, and checks it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    // Zero or a descriptor: both are ints.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Whether the kernel can answer with a descriptor (Linux 5.14): to a call that does not exist it says so, or EINVAL.
fn sends_descriptors(listener: &OwnedFd) -> io::Result<()> {
    let nobody = Call { id: 0, arguments: [0; 3] };
    match add(listener.as_fd(), nobody, listener.as_fd(), false, libc::SECCOMP_ADDFD_FLAG_SEND as u32) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than 5.14"))
        }
        _ => Ok(()),
    }
}

/// Waits for the next call.
///
/// # Errors
/// ENOENT when the call was over before it could be read; another error when no process is under the filter any more.
pub(crate) fn next(listener: BorrowedFd<'_>) -> io::Result<Call> {
    // SAFETY: zeros are a value of this plain structure, and the kernel wants them.
    let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, (&raw mut call).cast())?;
    let [a, b, c, ..] = call.data.args;
    Ok(Call { id: call.id, arguments: [a, b, c].map(|argument| argument as i32) })
}

/// Whether a call whose question was read is interrupted by nothing but death (Linux 5.19). Nothing is installed: there is no
/// program, which the kernel finds only after it has looked at the flags.
pub(crate) fn only_death_interrupts() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel answers EFAULT to a program at no address, and reads nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Answers a call with a descriptor, the lowest that is free in the program, which is its only owner when the call returns:
/// what it closes is closed, and a port that it gives up is free.
///
/// # Errors
/// What the kernel says: EMFILE, or ENOENT when nobody waits any more.
pub(crate) fn give(listener: BorrowedFd<'_>, call: Call, descriptor: OwnedFd, close_on_exec: bool) -> io::Result<()> {
    let number = add(listener, call, descriptor.as_fd(), close_on_exec, 0)?;
    drop(descriptor);
    respond(listener, seccomp_notif_resp { id: call.id, val: number.into(), error: 0, flags: 0 })
}

/// The same in one step, for kernels on which a signal may interrupt the call between two: for a moment the descriptor is
/// here too.
pub(crate) fn give_at_once(
    listener: BorrowedFd<'_>,
    call: Call,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    // A bit of 32.
    add(listener, call, descriptor, close_on_exec, libc::SECCOMP_ADDFD_FLAG_SEND as u32).map(drop)
}

/// A copy of a descriptor in the program whose call waits; its number there.
fn add(
    listener: BorrowedFd<'_>,
    call: Call,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
    flags: u32,
) -> io::Result<i32> {
    let mut copy = seccomp_notif_addfd {
        id: call.id,
        flags,
        // Descriptors are not negative.
        srcfd: descriptor.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, (&raw mut copy).cast())
}

/// Answers a call with an error number.
pub(crate) fn refuse(listener: BorrowedFd<'_>, call: Call, error: i32) -> io::Result<()> {
    respond(listener, seccomp_notif_resp { id: call.id, val: 0, error: -error, flags: 0 })
}

fn respond(listener: BorrowedFd<'_>, mut answer: seccomp_notif_resp) -> io::Result<()> {
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut answer).cast()).map(drop)
}

fn ioctl(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<i32> {
    // SAFETY: the callers pass the structure that the request wants, alive through the call, or a number in its place.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
