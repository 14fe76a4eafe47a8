//! The gate's few system calls without a safe wrapper: TUN devices, new namespaces, fork; the only unsafe file of the gate.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Where the kernel offers TUN devices.
pub(super) const TUN_DEVICE: &str = "/dev/net/tun";

/// Opens the TUN driver, without a device behind it yet.
pub(super) fn open_tun_driver() -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN_DEVICE)?;
    Ok(file.into())
}

/// Creates the TUN device `name` in this process's network namespace: packets with a virtio header, segmentation and
/// checksums left to us.
pub(super) fn create_tun(driver: &OwnedFd, name: &str) -> io::Result<()> {
    // SAFETY: ifreq is plain data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the kernel reads a C string.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call; the descriptor is open.
    check(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // SAFETY: TUNSETOFFLOAD takes its argument by value; the descriptor is open.
    check(unsafe { libc::ioctl(driver.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) })
}

/// Moves this process, which has one thread, into new namespaces of the given kinds.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only user, network and mount namespaces are asked for: the table of descriptors stays shared, so no
    // descriptor that another thread owns changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Does something as the owner of root's files, for this thread alone; whoever may not become others stays who they are.
pub(super) fn with_files_of_root<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: setfsuid takes any number and returns the one before.
    let own = unsafe { libc::setfsuid(0) };
    let done = work();
    // SAFETY: as above; it was this thread's own a moment ago.
    unsafe { libc::setfsuid(own.cast_unsigned()) };
    done
}

/// The number of the network namespace in which a socket lives; that of an accepted local socket is where its peer's was made.
pub(crate) fn network_of(socket: impl AsFd) -> io::Result<u64> {
    let (mut number, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, which are there; the descriptor is open.
    check(unsafe {
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, (&raw mut number).cast(), &raw mut length)
    })?;
    Ok(number)
}

/// A handle of the process that connected to an accepted local socket; ENOPROTOOPT before Linux 6.5.
pub(crate) fn process_behind(accepted: impl AsFd) -> io::Result<OwnedFd> {
    let (mut handle, mut length) = (-1_i32, size_of::<i32>() as libc::socklen_t);
    let descriptor = accepted.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, which are there; the descriptor is open.
    check(unsafe {
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut handle).cast(), &raw mut length)
    })?;
    // SAFETY: it succeeded: this is a new descriptor, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

/// What the kernel is asked about a namespace: ioctls of group 0xb7 without an argument, or with a number's place.
const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// Whether it is a network namespace.
pub(super) fn is_network(namespace: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: this ioctl takes no argument, and returns a number; the descriptor is open.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) };
    check(kind)?;
    Ok(kind == libc::CLONE_NEWNET)
}

/// The user namespace that owns a namespace. EPERM when it is beyond our own.
pub(super) fn owning_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(namespace, NS_GET_USERNS)
}

/// The user namespace in which another was made. EPERM when it is beyond our own.
pub(super) fn parent_namespace(users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(users, NS_GET_PARENT)
}

fn related(namespace: BorrowedFd<'_>, which: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: these ioctls take no argument, and return a descriptor; the one they are about is open.
    let related = unsafe { libc::ioctl(namespace.as_raw_fd(), which as _) };
    check(related)?;
    // SAFETY: it succeeded: this is a new descriptor, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(related) })
}

/// The user to whom a user namespace belongs.
pub(super) fn owner_of(users: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the kernel writes one number, which has its place; the descriptor is open.
    check(unsafe { libc::ioctl(users.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) })?;
    Ok(uid)
}

/// Which side of a fork we are on.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the number of the new one.
    Parent(Pid),
}

/// Makes a copy of this process, which has one thread.
pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: the helper never starts a thread, so the copy is whole: no lock is held by a thread that is not there.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Fork::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Ends the child of a fork: nothing of the parent's is flushed or cleaned up.
pub(super) fn end(status: i32) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(status) }
}

/// Lets this process live through what a terminal or a service manager sends to a whole group: it ends by itself.
pub(super) fn outlive_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        // SAFETY: ignoring a signal installs no function.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
