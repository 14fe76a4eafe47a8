//! Windows: what lies in the user's profile is the user's by the rights that it inherits; a console's events for signals.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, CtrlLogoff, CtrlShutdown};
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};

use super::{Owner, Shared};

/// There is no such thing here.
pub(crate) const HAS_NAMESPACES: bool = false;

/// The daemon serves one user, its own: the pipe lets nobody else in.
pub(super) fn own_user() -> Owner {
    Owner { uid: 0, gid: 0 }
}

/// Not needed: what measures time here goes on while the computer sleeps.
pub(crate) fn uptime() -> Option<Duration> {
    None
}

/// Not asked of Windows yet: then no router is asked for anything.
pub(crate) fn router() -> Option<Ipv4Addr> {
    None
}

/// Consoles of Windows break lines by themselves, and are not asked.
pub(crate) fn columns<T>(_: T) -> Option<usize> {
    None
}

/// Makes a file that nobody else may read, where there is none.
pub(crate) fn new_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Opens a file, to be read and written, or makes one.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Makes a folder, and those in which it lies.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)
}

/// Windows is not asked: see [`folder_is_ours`].
pub(crate) fn is_own(_: &Metadata) -> bool {
    true
}

/// Who may do what is not in what Windows tells of a folder here: what lies in the profile is the user's.
pub(crate) fn folder_is_ours(_: &Metadata) -> Result<(), Shared> {
    Ok(())
}

/// See [`folder_is_ours`].
pub(crate) fn file_is_ours(_: &Metadata) -> Result<(), Shared> {
    Ok(())
}

/// Gives a file another name, if nothing has that: std's own renaming would take it away from whatever has.
pub(crate) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        // A file system without second names.
        Err(error) if error.kind() != ErrorKind::AlreadyExists && !to.try_exists()? => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// What lies in a folder has the rights of what lies there.
pub(crate) fn give_to_owner_of(_: &Metadata, _: &File) -> io::Result<()> {
    Ok(())
}

/// Names are in NTFS's journal; a folder cannot be flushed.
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Bytes that are free for this user on the disk of a folder.
pub(crate) fn free_space(folder: &Path) -> io::Result<u64> {
    fs4::available_space(folder)
}

/// Whether a folder is there and can be read; only writing would tell more.
pub(crate) fn writable(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder).map(drop)
}

/// Asks the other end of a connection that has been silent for so long; ten questions without an answer end it.
pub(crate) fn ask_after_silence(tcp: &TcpStream, time: Duration) -> io::Result<()> {
    SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time / 10))
}

/// Windows sends five times, for about twenty seconds, and then gives up by itself: sooner than is asked for.
pub(crate) fn give_up_after(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}

/// Nothing tells of it here before something is sent: then the sending fails.
pub(crate) async fn resets(_: &ReadHalf<'_>) -> io::Error {
    std::future::pending().await
}

/// It may here anyhow. The option of that name lets any program take the port away from a daemon that has it.
pub(crate) fn take_port_again(_: &TcpSocket) -> io::Result<()> {
    Ok(())
}

/// What this computer is called. Its resolver adds domains to names in programs' own processes, where the library answers first.
pub(crate) fn computer() -> (String, String) {
    (std::env::var("COMPUTERNAME").unwrap_or_default(), String::new())
}

/// What asks a process to end.
pub(crate) struct Signals {
    c: CtrlC,
    pause: CtrlBreak,
    close: CtrlClose,
    logoff: CtrlLogoff,
    shutdown: CtrlShutdown,
}

impl Signals {
    /// From now on they are heard; the system gives a few seconds to who hears the last three.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            c: ctrl_c()?,
            pause: ctrl_break()?,
            close: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.c.recv() => "Ctrl-C",
            _ = self.pause.recv() => "Ctrl-Break",
            _ = self.close.recv() => "the end of its console",
            _ = self.logoff.recv() => "the end of the user's session",
            _ = self.shutdown.recv() => "the end of the computer's session",
        }
    }
}

/// Resolves when a command is to end, also when it was told so between this call and the wait: with what shells say of whom Ctrl-C has
/// ended.
pub(crate) fn interrupted() -> impl Future<Output = u8> {
    let signals = Signals::new();
    async move {
        match signals {
            Ok(mut signals) => drop(signals.next().await),
            Err(_) => std::future::pending().await,
        }
        130
    }
}

/// Nothing is stopped here from a terminal.
pub(crate) async fn suspend() -> io::Result<()> {
    Ok(())
}

/// Of what is never stopped.
pub(crate) struct Continued;

impl Continued {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

/// There is none.
pub(crate) fn raise_descriptor_limit() {}
