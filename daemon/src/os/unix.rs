//! Unix: owners and modes, signals.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Access, CWD, RenameFlags, renameat_with};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, kill_current_process_group, setrlimit};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use tokio::io::Interest;
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::{Owner, Shared};

/// Descriptors wanted, as far as the system's hard limit goes: two links per relayed tunnel, one for each connection of the
/// programs of all users. What systemd allows; where there is no limit to speak of, a bound for what others may use up.
const DESCRIPTORS: u64 = 524_288;

/// How long a process may take to stop.
const STOPS_WITHIN: Duration = Duration::from_millis(300);

/// Whether programs can be put into networks of their own, where the computer lets them.
pub(crate) const HAS_NAMESPACES: bool = true;

pub(super) fn own_user() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

/// How long this computer has been up, its sleep included, in full seconds.
pub(crate) fn uptime() -> Option<Duration> {
    u64::try_from(rustix::system::sysinfo().uptime).ok().map(Duration::from_secs)
}

/// The router by which IPv4 leaves this network, if there is one.
pub(crate) fn router() -> Option<Ipv4Addr> {
    router_of(&fs::read_to_string("/proc/net/route").ok()?)
}

/// Of the kernel's table: interface, destination, gateway, flags, references, uses, metric; addresses as they lie in memory.
fn router_of(table: &str) -> Option<Ipv4Addr> {
    let route = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "00000000", gateway, _, _, _, metric, ..] = words[..] else { return None };
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        // A way that leads to no router leads into a tunnel.
        Some((metric.parse::<u32>().ok()?, gateway))
    };
    let (_, gateway) = table.lines().filter_map(route).min()?;
    Some(gateway).filter(|gateway| !gateway.is_unspecified())
}

/// Which file lies somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The one that lies there, be it a link.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let about = fs::symlink_metadata(path)?;
        Ok(Self { device: about.dev(), inode: about.ino() })
    }
}

/// A file of this process's own, removed when dropped, unless it is gone, and maybe another's lies in its place.
#[derive(Debug)]
pub(crate) struct OwnFile {
    path: PathBuf,
    id: FileId,
}

impl OwnFile {
    /// The one that lies there.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: FileId::of(path)? })
    }

    /// Which one it is.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if FileId::of(&self.path).is_ok_and(|now| now == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How many columns a terminal has; of what is none, nothing.
pub(crate) fn columns(out: impl AsFd) -> Option<usize> {
    let size = tcgetwinsize(out).ok()?;
    // A line to another computer may not know it (a serial console).
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0).or_else(said)
}

/// Makes a file that nobody else may read, where there is none.
pub(crate) fn new_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file, to be read and written; makes one that nobody else may read where there is none.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a folder that nobody else may enter, and those in which it lies.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether a file or folder is this user's.
pub(crate) fn is_own(about: &Metadata) -> bool {
    about.uid() == own_user().uid
}

/// Whether a folder is this user's, and nobody else may write into it.
pub(crate) fn folder_is_ours(about: &Metadata) -> Result<(), Shared> {
    if !is_own(about) {
        return Err(Shared { what: "belongs to another user", hint: "give a folder of your own" });
    }
    if about.mode() & 0o022 != 0 {
        let hint = "run `chmod go-w` on it, or give another";
        return Err(Shared { what: "can be written by other users", hint });
    }
    Ok(())
}

/// Whether nobody else may read a file.
pub(crate) fn file_is_ours(about: &Metadata) -> Result<(), Shared> {
    if about.mode() & 0o077 != 0 {
        let hint = "run `chmod 600` on it if that was a mistake";
        return Err(Shared { what: "can be read by other users", hint });
    }
    Ok(())
}

/// Gives a file another name, if nothing has that.
pub(crate) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot say it in one step.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.try_exists()? => fs::rename(from, to),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Err(ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// Makes a new file that of the user and the group who have another one.
pub(crate) fn give_to_owner_of(old: &Metadata, new: &File) -> io::Result<()> {
    fchown(new, Some(old.uid()), Some(old.gid()))
}

/// Makes names in a folder outlive a crash.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Bytes that are free on the disk of a folder.
pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    // What is reserved is root's.
    let blocks = if own_user().uid == 0 { disk.f_bfree } else { disk.f_bavail };
    Ok(blocks.saturating_mul(disk.f_frsize))
}

/// Whether files can be made in a folder; nothing is.
pub(crate) fn writable(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Asks the other end of a connection that has been silent for so long, and ends it when there is no answer for as long again.
pub(crate) fn ask_after_silence(tcp: &TcpStream, time: Duration) -> io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, time)?;
    sockopt::set_tcp_keepintvl(tcp, time / 4)?;
    Ok(sockopt::set_tcp_keepcnt(tcp, 4)?)
}

/// Ends a connection when what was sent stays unacknowledged for so long.
pub(crate) fn give_up_after(tcp: &TcpStream, time: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(tcp, milliseconds)?)
}

/// Resolves when whoever has sent the last byte of a connection resets it.
pub(crate) async fn resets(tcp: &ReadHalf<'_>) -> io::Error {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// Lets a socket have a port from which connections of another are still in TIME_WAIT: a restarted daemon need not wait for those.
pub(crate) fn take_port_again(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseaddr(true)
}

/// What this computer is called, and how its resolver is set, as resolv.conf has it.
pub(crate) fn computer() -> (String, String) {
    let settings = fs::read("/etc/resolv.conf").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (name, String::from_utf8_lossy(&settings).into_owned())
}

/// What asks a process to end.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// From now on they are heard, and end nothing by themselves.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
            _ = self.hup.recv() => "SIGHUP",
        }
    }
}

/// Whether one has come since, also to a process that has no runtime any more.
pub(crate) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// From now on.
    pub(crate) fn since_now() -> io::Result<Self> {
        let asked = Arc::default();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    /// Whether it is to end.
    pub(crate) fn to_end(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A limit of file sizes (`ulimit -f`) is an error of whoever writes, and not the end of the process. It counts for files in memory as well.
pub(crate) fn outlive_file_limit() {
    let limit = getrlimit(Resource::Fsize);
    let _ = setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Resolves when a command is to end, also when it was told so between this call and the wait: with what shells say of whom that signal
/// has ended. What becomes of one whose terminal is gone is for the system, and whoever started it, to say.
pub(crate) fn interrupted() -> impl Future<Output = u8> {
    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    async move {
        tokio::select! {
            () = heard(interrupt) => 130,
            () = heard(terminate) => 143,
        }
    }
}

async fn heard(signal: Option<Signal>) {
    match signal {
        Some(mut signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Stops this process and those that were started with it, as a terminal's Ctrl-Z does; resolves when it goes on. Where no shell is there
/// that could continue them the kernel stops nothing.
pub(crate) async fn suspend() -> io::Result<()> {
    let mut goes_on = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    kill_current_process_group(rustix::process::Signal::TSTP)?;
    // Another thread may be the one that takes the signal: this one could run on for a moment.
    let _ = timeout(STOPS_WITHIN, goes_on.recv()).await;
    Ok(())
}

/// Resolves when the process goes on after it was stopped, by whomever.
pub(crate) struct Continued(Signal);

impl Continued {
    /// From now on it is heard.
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).map(Self)
    }

    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// The usual soft limit of 1024 is for programs that use select(); a relay has more connections than that.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |hard| hard.min(DESCRIPTORS));
    if limit.current.is_some_and(|soft| soft < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("cannot raise the limit of open files: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_that_of_the_nearest_way_out() {
        let of = |lines: &str| {
            router_of(&format!(
                "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n{lines}"
            ))
        };
        let hex = |text: &str| format!("{:08X}", u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets()));
        let way = |gateway: &str, metric: u32| {
            format!("eth0\t00000000\t{}\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n", hex(gateway))
        };
        assert_eq!(of(&(way("10.0.0.1", 600) + &way("192.168.1.1", 100))), Some(Ipv4Addr::new(192, 168, 1, 1)));
        let near = format!("eth0\t{}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", hex("192.168.1.0"));
        assert_eq!(of(&near), None, "a network, and no way out");
        // A tunnel takes all that leaves: the router behind it would lead others past it.
        assert_eq!(of(&(way("0.0.0.0", 50) + &way("192.168.1.1", 100))), None);
        assert!(router_of("").is_none() && of("eth0 00000000 zz 0003 0 0 0\n").is_none());
    }
}
