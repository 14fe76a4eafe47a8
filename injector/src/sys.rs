//! The launcher's few system calls without a safe wrapper: fork, signals as a descriptor, dying by a signal.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::AddressFamily;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork we are on.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the number of the new one.
    Parent(Pid),
}

/// Makes a copy of this process, which has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the launcher starts no thread before its last fork, so the copy is whole: no lock is held by a thread that is not there.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Fork::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// Signals that the launcher passes on. Job control (TSTP, TTIN, TTOU, CONT) keeps its default: the whole group stops.
const FORWARDED: [libc::c_int; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGWINCH,
];

/// A signal as it was sent to us.
pub(crate) struct Signal {
    /// Its number.
    pub(crate) number: i32,
    /// Sent by a process to us alone; not by the kernel to the whole group of the terminal.
    pub(crate) is_personal: bool,
}

/// The signals that are passed on, blocked, and readable from a descriptor instead.
pub(crate) struct Signals {
    /// Where they arrive.
    pub(crate) arriving: OwnedFd,
    /// What was blocked before: the program shall find it so.
    before: libc::sigset_t,
}

/// Blocks the signals that are passed on.
pub(crate) fn signals() -> io::Result<Signals> {
    let (mut set, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
    // SAFETY: sigemptyset initializes both sets before anything reads them; the other calls get valid sets.
    let (fd, before) = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigemptyset(before.as_mut_ptr());
        for signal in FORWARDED {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
        (libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC), before.assume_init())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd has just returned this descriptor; nobody else owns it.
    let arriving = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Signals { arriving, before })
}

impl Signals {
    /// Blocks again what was blocked before, and nothing else.
    pub(crate) fn restore(&self) {
        // SAFETY: the set was filled by sigprocmask.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Reads one signal from the descriptor of [`signals`].
pub(crate) fn next_signal(signals: &OwnedFd) -> io::Result<Signal> {
    let mut raw = [0; size_of::<libc::signalfd_siginfo>()];
    if rustix::io::read(signals, &mut raw)? != raw.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel has filled the whole structure, which is plain data; the read does not need alignment.
    let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(raw.as_ptr().cast()) };
    Ok(Signal { number: info.ssi_signo.cast_signed(), is_personal: info.ssi_code <= 0 })
}

/// Blocks every signal that can be blocked.
pub(crate) fn block_all_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initializes the set before sigprocmask reads it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Dies by the signal, as the program did, so that a shell sees the same; returns if the signal does not kill.
pub(crate) fn die_by(signal: i32) {
    // The program has written its core; ours would be in its way.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialized before use; the default action replaces a handler, it installs no function.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::raise(signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Gives this process namespaces of its own.
pub(crate) fn unshare(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: only namespaces are left, in a process of one thread; the table of descriptors stays what it is.
    unsafe { rustix::thread::unshare_unsafe(what) }.map_err(io::Error::from)
}

/// Keeps other processes of the same user from looking into this one and from changing it.
pub(crate) fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Undoes [`hide`], which a new process has inherited.
pub(crate) fn show() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?)
}

/// Closes an inherited descriptor.
pub(crate) fn close(number: RawFd) {
    // SAFETY: the caller found it to be inherited, so no value of this process owns it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Whether the descriptor would be closed by exec: true for our own, never for inherited ones.
pub(crate) fn is_close_on_exec(number: RawFd) -> bool {
    // SAFETY: the borrow ends with this call; a number that is not open gives an error, nothing worse.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(fd).is_ok_and(|flags| flags.contains(rustix::io::FdFlags::CLOEXEC))
}

/// Whether the descriptor is a place in the file system rather than an open file: a directory, or O_PATH.
pub(crate) fn is_place(number: RawFd) -> bool {
    // SAFETY: as in `is_close_on_exec`.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let is_directory = rustix::fs::fstat(fd).is_ok_and(|about| FileType::from_raw_mode(about.st_mode).is_dir());
    is_directory || rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH))
}

/// Puts what lies at `path` now in the place of the descriptor, if that is the same file.
pub(crate) fn open_anew(number: RawFd, path: &Path) -> bool {
    // SAFETY: as in `is_close_on_exec`.
    let old = unsafe { BorrowedFd::borrow_raw(number) };
    let anew = || -> rustix::io::Result<bool> {
        let flags = rustix::fs::fcntl_getfl(old)? & (OFlags::PATH | OFlags::DIRECTORY);
        let new = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?;
        let (was, is) = (rustix::fs::fstat(old)?, rustix::fs::fstat(&new)?);
        // SAFETY: both numbers are plain arguments; the old one was inherited, so no value of this process owns it.
        Ok((was.st_dev, was.st_ino) == (is.st_dev, is.st_ino) && unsafe { libc::dup2(new.as_raw_fd(), number) } >= 0)
    };
    anew().unwrap_or(false)
}

/// The family of a socket; none if the descriptor is none.
pub(crate) fn socket_domain(number: RawFd) -> Option<AddressFamily> {
    // SAFETY: as in `is_close_on_exec`.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_domain(fd).ok()
}

/// Makes standard input, output and error copies of the descriptor.
pub(crate) fn become_stdio(file: &OwnedFd) -> io::Result<()> {
    for number in 0..=2 {
        // SAFETY: both numbers are plain arguments; the keeper uses 0 to 2 for nothing else from here on.
        if unsafe { libc::dup2(file.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Starts a network interface.
pub(crate) fn interface_up(any: &OwnedFd, name: &str) -> io::Result<()> {
    // SAFETY: zeros are a value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call and holds a name that ends with a zero.
    if unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
