//! A daemon for the launcher's tests: it knows one network namespace, and gives sockets of it.
#![allow(dead_code)] // each file of tests takes what it needs

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use phantom_ipc::hook::{HEADER, IdentityRef, Note, PREAMBLE, Reply, Request, body_length};
use rustix::net::{
    AddressFamily, Protocol, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The user "nobody" of Debian: what an ordinary user may do.
const NOBODY: u32 = 65534;

/// A type of netlink that the stand-in answers only when somebody has asked for the other one.
pub(crate) const SLOW: i32 = 9;
pub(crate) const RELEASE: i32 = 15;

/// A daemon that knows one network namespace, held by a process.
pub(crate) struct Daemon {
    pub(crate) directory: TempDir,
    holder: Child,
    pub(crate) network: PathBuf,
    pub(crate) sessions: Receiver<(IdentityRef, UnixStream)>,
    space: Arc<Space>,
}

/// What it hands out.
struct Space {
    spaces: Vec<File>,
    refusal: Option<&'static str>,
    /// Whether slow requests may be answered now.
    released: Mutex<bool>,
    release: Condvar,
    /// What whoever follows a run is told at once.
    notes: Mutex<Vec<Note>>,
    /// Connections, to be closed when the daemon is to be gone.
    lines: Mutex<Vec<UnixStream>>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::answering(None)
    }

    /// With `refusal` it refuses every session for that reason.
    pub(crate) fn answering(refusal: Option<&'static str>) -> Self {
        let mut unshare = Command::new("unshare");
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            unshare.args(["--user", "--map-current-user"]);
        }
        let script = "ip link set lo up; echo ready; exec cat";
        unshare.args(["--net", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = unshare.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "these tests need network namespaces: be root, or allow user namespaces");
        let space = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", holder.id())).unwrap();
        let network = std::fs::read_link(format!("/proc/{}/ns/net", holder.id())).unwrap();
        let spaces: Vec<File> = if is_root { vec![space("net")] } else { vec![space("net"), space("user")] };
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("daemon.sock")).unwrap();
        let (opened, sessions) = channel();
        let space = Arc::new(Space {
            spaces,
            refusal,
            released: Mutex::default(),
            release: Condvar::new(),
            notes: Mutex::default(),
            lines: Mutex::default(),
        });
        let own = Arc::clone(&space);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, opened, own) = (connection.unwrap(), opened.clone(), Arc::clone(&own));
                own.lines.lock().unwrap().push(connection.try_clone().unwrap());
                std::thread::spawn(move || converse(connection, &own, &opened));
            }
        });
        Self { directory, holder, network, sessions, space }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("daemon.sock")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.with(Command::new(env!("CARGO_BIN_EXE_phantom-run")), arguments)
    }

    fn with(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env("PHANTOM_SOCKET", self.socket());
        command.env_remove("PHANTOM_IDENTITY").stdin(Stdio::null());
        command
    }

    /// The launcher as a user who may not enter what root has made. Takes root.
    pub(crate) fn command_of_nobody(&self, arguments: &[&str]) -> Command {
        let launcher = self.open_to_all();
        let mut command = self.with(Command::new(launcher), arguments);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }

    /// Where everybody may execute the launcher, and reach the daemon.
    pub(crate) fn open_to_all(&self) -> PathBuf {
        let launcher = self.directory.path().join("phantom-run");
        if !launcher.exists() {
            // By another process: a file that a child of some other test still has open for writing cannot be executed.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_phantom-run")).arg(&launcher).status().unwrap();
            assert!(copied.success());
        }
        for path in [self.directory.path(), &launcher, &self.socket()] {
            std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        launcher
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a shell script inside prints.
    pub(crate) fn script(&self, script: &str) -> String {
        let output = self.output(&["sh", "-c", script]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A socket of the namespace, as programs get them.
    pub(crate) fn phantom_socket(&self) -> OwnedFd {
        self.space.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
    }

    /// Tells this to whoever follows a run from now on.
    pub(crate) fn will_note(&self, note: Note) {
        self.space.notes.lock().unwrap().push(note);
    }

    /// From here on nobody answers.
    pub(crate) fn die(&self) {
        std::fs::remove_file(self.socket()).unwrap();
        for line in self.space.lines.lock().unwrap().drain(..) {
            let _ = line.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Answers until the other end is gone.
fn converse(mut connection: UnixStream, space: &Space, opened: &Sender<(IdentityRef, UnixStream)>) {
    let mut preamble = [0; PREAMBLE.len()];
    if connection.read_exact(&mut preamble).is_err() {
        return;
    }
    assert_eq!(preamble, PREAMBLE);
    let mut header = [0; HEADER];
    while connection.read_exact(&mut header).is_ok() {
        let mut body = vec![0; body_length(header).unwrap()];
        connection.read_exact(&mut body).unwrap();
        let (reply, descriptors) = match Request::decode(&body).unwrap() {
            Request::Enter { identity } => {
                let entered = space.enter();
                send(&connection, &entered.0, &entered.1);
                let _ = opened.send((identity, connection.try_clone().unwrap()));
                continue;
            }
            Request::Socket { domain, kind, protocol, .. } => {
                space.wait(domain, protocol);
                match space.socket(domain, kind, protocol) {
                    Ok(socket) => (Reply::Descriptor, vec![socket]),
                    Err(error) => (Reply::failed(error.raw_os_error(), "no"), vec![]),
                }
            }
            Request::Publish { .. } => {
                (Reply::Published { address: [0; 16], name: "someone.phantom".into(), is_new: false }, vec![])
            }
            Request::Lend { .. } | Request::ProgramSocket { .. } => {
                (Reply::Info { address: [0; 16], ipv4: [0; 4], name: "someone.phantom".into() }, vec![])
            }
            Request::Follow { .. } => {
                send(&connection, &Reply::Done, &[]);
                let notes = space.notes.lock().unwrap().clone();
                notes.into_iter().for_each(|note| send(&connection, &Reply::Note(note), &[]));
                continue;
            }
            other => panic!("{other:?}"),
        };
        send(&connection, &reply, &descriptors);
    }
}

impl Space {
    fn enter(&self) -> (Reply, Vec<OwnedFd>) {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0xfd, 0x70]);
        let has_user_namespace = self.spaces.len() == 2;
        let name = "someone.phantom".into();
        let entered = Reply::Entered { address, ipv4: [198, 18, 0, 1], name, has_user_namespace };
        let reply = self.refusal.map_or(entered, |why| Reply::failed(1, why));
        let spaces = self.spaces.iter().take(reply.descriptors());
        (reply, spaces.map(|space| space.try_clone().unwrap().into()).collect())
    }

    fn wait(&self, domain: i32, protocol: i32) {
        let mut released = self.released.lock().unwrap();
        match (domain, protocol) {
            (libc::AF_NETLINK, RELEASE) => {
                *released = true;
                self.release.notify_all();
            }
            (libc::AF_NETLINK, SLOW) => {
                let waited = self.release.wait_timeout_while(released, PATIENCE, |released| !*released).unwrap();
                assert!(!waited.1.timed_out(), "nobody asked meanwhile");
            }
            _ => {}
        }
    }

    /// Made by a thread that enters the namespace. Takes root.
    fn socket(&self, domain: i32, kind: i32, protocol: i32) -> rustix::io::Result<OwnedFd> {
        let network = self.spaces[0].as_fd();
        let make = || {
            move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
            let flags = SocketFlags::from_bits_retain(kind.cast_unsigned() & !0xf) | SocketFlags::CLOEXEC;
            let protocol = std::num::NonZero::new(protocol.cast_unsigned()).map(Protocol::from_raw);
            let kind = SocketType::from_raw(kind.cast_unsigned() & 0xf);
            socket_with(AddressFamily::from_raw(domain as u16), kind, flags, protocol)
        };
        std::thread::scope(|scope| scope.spawn(make).join().unwrap())
    }
}

fn send(connection: &UnixStream, reply: &Reply, descriptors: &[OwnedFd]) {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    let message = reply.encode().unwrap();
    // Who asked may be gone.
    let _ = sendmsg(connection, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL);
}

/// Compiles a program of `tests/victims`.
pub(crate) fn compile(compiler: &str, name: &str, options: &[&str], into: &Path) -> PathBuf {
    let program = into.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/victims").join(name).with_extension("c");
    let mut command = Command::new(compiler);
    command.args(["-D_GNU_SOURCE", "-Wall", "-Werror", "-g", "-pthread", "-o"]).arg(&program).arg(source).args(options);
    assert!(command.status().unwrap().success(), "{name} does not compile");
    program
}
