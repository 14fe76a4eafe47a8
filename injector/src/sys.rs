//! The launcher's few system calls without a safe wrapper: fork, signals as a descriptor, dying by a signal.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::net::AddressFamily;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::reason;

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
        // Not for the library to judge: it takes numbers below zero for a fault of ours.
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// What the launcher does not pass on: its own children's news. KILL and STOP cannot be caught; `process` says what becomes
/// of those.
const OWN: libc::c_int = libc::SIGCHLD;

/// What the kernel sends to the whole group of a terminal: the program, in the same group, has got it already.
const OF_TERMINALS: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
];

/// A signal as it was sent to us.
pub(crate) struct Arrived {
    /// Its number.
    pub(crate) number: i32,
    /// Whether it came from the terminal, to the whole group.
    pub(crate) is_of_terminal: bool,
    /// Who sent it; of no meaning for those of the kernel.
    pub(crate) sender: i32,
    /// What came with it, if it was queued with a value.
    value: Option<u64>,
}

/// The signals that are passed on, blocked, and readable from a descriptor instead.
pub(crate) struct Signals {
    /// Where they arrive.
    pub(crate) arriving: OwnedFd,
    /// What was blocked before: the program shall find it so.
    before: libc::sigset_t,
}

/// Blocks all that can be blocked and is passed on.
pub(crate) fn signals() -> io::Result<Signals> {
    let (mut set, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
    // SAFETY: both sets are initialized before anything reads them; the other calls get valid sets.
    let (fd, before) = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::sigdelset(set.as_mut_ptr(), OWN);
        libc::sigemptyset(before.as_mut_ptr());
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
pub(crate) fn next_signal(signals: &OwnedFd) -> io::Result<Arrived> {
    let mut raw = [0; size_of::<libc::signalfd_siginfo>()];
    if rustix::io::read(signals, &mut raw)? != raw.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: the kernel has filled the whole structure, which is plain data; the read does not need alignment.
    let info: libc::signalfd_siginfo = unsafe { std::ptr::read_unaligned(raw.as_ptr().cast()) };
    let number = info.ssi_signo.cast_signed();
    // Positive codes are the kernel's: alarms and limits are ours alone all the same.
    let is_of_terminal = info.ssi_code > 0 && OF_TERMINALS.contains(&number);
    let value = (info.ssi_code == libc::SI_QUEUE).then_some(info.ssi_ptr);
    Ok(Arrived { number, is_of_terminal, sender: info.ssi_pid.cast_signed(), value })
}

/// A process that signals are sent to, by a descriptor, so that no later one of the same number gets them.
pub(crate) struct Target {
    pid: Pid,
    /// None before Linux 5.3.
    descriptor: Option<OwnedFd>,
}

/// What goes with a signal that was queued with a value, as the kernel lays it out on 64-bit machines.
#[repr(C)]
struct Queued {
    number: i32,
    error: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

impl Target {
    /// A process that has not been waited for yet.
    pub(crate) fn new(pid: Pid) -> Self {
        Self { pid, descriptor: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok() }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; nobody may be there any more.
    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        self.send_raw(signal.as_raw(), None);
    }

    /// Sends what has arrived, with the value that came with it.
    pub(crate) fn pass_on(&self, arrived: &Arrived) {
        self.send_raw(arrived.number, arrived.value);
    }

    fn send_raw(&self, number: i32, value: Option<u64>) {
        let queued = value.map(|value| Queued {
            number,
            error: 0,
            code: libc::SI_QUEUE,
            pad: 0,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            uid: rustix::process::getuid().as_raw(),
            value,
            rest: [0; 12],
        });
        let queued = queued.as_ref().map_or(std::ptr::null(), |queued| &raw const *queued);
        // SAFETY: numbers, one of them an open descriptor, and a structure of the kernel's size that lives through the call.
        unsafe {
            match &self.descriptor {
                Some(to) => drop(libc::syscall(libc::SYS_pidfd_send_signal, to.as_raw_fd(), number, queued, 0)),
                None => drop(libc::kill(self.pid.as_raw_nonzero().get(), number)),
            }
        }
    }
}

/// Whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is changed; the structure is read only if the kernel has filled it.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Has this process ignore a signal, or take the default action.
pub(crate) fn ignore(signal: i32, is_ignored: bool) {
    // SAFETY: no function is installed.
    unsafe { libc::signal(signal, if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL }) };
}

/// Has `work` done right before the process becomes the command.
pub(crate) fn before_exec(command: &mut Command, work: fn()) {
    let work = move || {
        work();
        Ok(())
    };
    // SAFETY: commands are executed in this process, which is not a copy of one with several threads.
    unsafe { command.pre_exec(work) };
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
    let left = unsafe { rustix::thread::unshare_unsafe(what) };
    left.map_err(|error| match error {
        rustix::io::Errno::NOSPC if !is_permitted(what) => {
            reason::lacking("the machine permits no more of them (/proc/sys/user)")
        }
        rustix::io::Errno::NOSPC => {
            io::Error::other("this user's programs have as many of them as the machine permits (/proc/sys/user)")
        }
        other => other.into(),
    })
}

/// How many namespaces of each kind a user may have. Looked at once, by [`look_at_limits`]: in a user namespace of one's own there
/// are no limits to be seen, and those above it count all the same.
static LIMITS: OnceLock<Vec<(UnshareFlags, i32)>> = OnceLock::new();

/// Before this process enters anything.
pub(crate) fn look_at_limits() {
    let kinds = [
        (UnshareFlags::NEWUSER, "user"),
        (UnshareFlags::NEWNS, "mnt"),
        (UnshareFlags::NEWNET, "net"),
        (UnshareFlags::NEWUTS, "uts"),
        (UnshareFlags::NEWCGROUP, "cgroup"),
    ];
    let most =
        |kind: &str| fs::read_to_string(format!("/proc/sys/user/max_{kind}_namespaces")).ok()?.trim().parse().ok();
    // Where nobody tells, there may be some.
    LIMITS.get_or_init(|| kinds.map(|(flag, kind)| (flag, most(kind).unwrap_or(1))).to_vec());
}

/// Whether there can be namespaces of these kinds, so that only other programs' number stands against it: each user has one, and
/// one of them could have used it up. Who was started in a user namespace without limits (a sandbox's) sees none of those above.
fn is_permitted(what: UnshareFlags) -> bool {
    const UNLIMITED: i32 = i32::MAX;
    let limits = LIMITS.get().into_iter().flatten().filter(|(flag, _)| what.contains(*flag));
    let limits: Vec<i32> = limits.map(|(_, most)| *most).collect();
    !limits.contains(&0) && limits.iter().any(|most| *most != UNLIMITED)
}

/// Puts a tree of mounts into another mount namespace. The calling thread stays there for good.
pub(crate) fn mount_in(mounts: BorrowedFd<'_>, tree: &OwnedFd, at: &Path) -> io::Result<()> {
    // SAFETY: root and working folder become this thread's own; the table of descriptors stays what it is.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    Ok(move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
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

/// Whether the descriptor is open and would outlast exec: false for our own, always true for inherited ones.
pub(crate) fn is_inherited(number: RawFd) -> bool {
    // SAFETY: the borrow ends with this call; a number that is not open gives an error, nothing worse.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC))
}

/// Whether there is such a descriptor.
pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: two numbers; one that is not open gives an error, nothing worse.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Lets exec close the descriptor.
pub(crate) fn close_on_exec(number: RawFd) {
    // SAFETY: as in `is_open`.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Whether the descriptor is a socket of some other network than the program's.
pub(crate) fn is_foreign_socket(number: RawFd) -> bool {
    is_open(number) && socket_domain(number).is_some_and(|domain| domain != AddressFamily::UNIX)
}

/// Index of `lo` in every network.
pub(crate) const LOOPBACK: i32 = 1;

/// The device that a socket is bound to, by its index; zero for none.
pub(crate) fn bound_to(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let (mut index, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes to the number, which lives through the call.
    let got = unsafe {
        let to = (&raw mut index).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, to, &raw mut length)
    };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// An inherited descriptor, if it is open.
pub(crate) fn borrowed(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: the caller means one that was inherited, which no value of this process owns and closes.
    is_open(number).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Gives a descriptor a number that is free, for the program.
pub(crate) fn place(descriptor: OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: two numbers; the caller found the second one not to be open.
    if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the descriptor is a place in the file system rather than an open file: a directory, or O_PATH.
pub(crate) fn is_place(number: RawFd) -> bool {
    // SAFETY: as in `is_inherited`.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let is_directory = rustix::fs::fstat(fd).is_ok_and(|about| FileType::from_raw_mode(about.st_mode).is_dir());
    is_directory || rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH))
}

/// The number of the device that a descriptor is open to; none if it is something else.
pub(crate) fn device(number: RawFd) -> Option<u64> {
    // SAFETY: as in `is_inherited`.
    let about = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    FileType::from_raw_mode(about.st_mode).is_char_device().then_some(about.st_rdev)
}

/// Puts what lies at `path` now in the place of the descriptor, if that is the same file or may be another one.
pub(crate) fn open_anew(number: RawFd, path: &Path, may_differ: bool) -> bool {
    // SAFETY: as in `is_inherited`.
    let old = unsafe { BorrowedFd::borrow_raw(number) };
    let anew = || -> rustix::io::Result<bool> {
        let flags = rustix::fs::fcntl_getfl(old)? & (OFlags::PATH | OFlags::DIRECTORY);
        let new = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?;
        let (was, is) = (rustix::fs::fstat(old)?, rustix::fs::fstat(&new)?);
        let is_right = may_differ || (was.st_dev, was.st_ino) == (is.st_dev, is.st_ino);
        // SAFETY: both numbers are plain arguments; the old one was inherited, so no value of this process owns it.
        Ok(is_right && unsafe { libc::dup2(new.as_raw_fd(), number) } >= 0)
    };
    anew().unwrap_or(false)
}

/// The family of a socket; none if the descriptor is none.
fn socket_domain(number: RawFd) -> Option<AddressFamily> {
    // SAFETY: as in `is_inherited`.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::net::sockopt::socket_domain(fd).ok()
}

/// The process at the other end of a local connection, if it has a number here.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Option<i32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a plain structure of that size, which lives through the call.
    let result = unsafe {
        let to = (&raw mut who).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut length)
    };
    (result == 0 && who.pid > 0).then_some(who.pid)
}

/// Makes the first descriptors (standard input, output, error) copies of this one.
pub(crate) fn become_stdio(file: &OwnedFd, numbers: std::ops::RangeInclusive<RawFd>) -> io::Result<()> {
    for number in numbers {
        // SAFETY: both numbers are plain arguments; no value of this process owns 0 to 2.
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
