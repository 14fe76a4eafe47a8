//! A world for victims: two network namespaces that look alike, a daemon's socket, and a resolver that should never be asked.
//!
//! ```text
//!   outside namespace                              phantom namespace
//!     victim with libphantom.so                      the sockets that it gets
//!     :80 of fd70::1 says "outside"                  :80 of fd70::1 says "phantom"
//!     127.0.0.1:53 counts every question             fd70::99, which is only here
//!           │
//!           └── unix socket ── hook dialect ── threads that live in the phantom namespace
//! ```
//!
//! Making namespaces takes root, or `unshare -Ur cargo test`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests fail by panic
#![allow(dead_code, unused_imports)] // each test uses its part

mod midst;
mod namespace;
mod server;

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use phantom_ipc::hook::Request;
use tempfile::TempDir;

pub(crate) use server::{ADDRESS, IPV4, answer_always};

/// Longest run of a victim.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the world saw.
#[derive(Default)]
pub(crate) struct Seen {
    requests: Mutex<Vec<Request>>,
    questions: AtomicUsize,
    connections: AtomicUsize,
    midst: midst::Midst,
}

/// See the drawing above.
pub(crate) struct World {
    directory: TempDir,
    outside: OwnedFd,
    phantom: OwnedFd,
    seen: Arc<Seen>,
}

/// What a victim said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let seen = Arc::<Seen>::default();
        let (ready_tx, ready) = mpsc::channel();
        let outside = {
            let (seen, ready_tx) = (Arc::clone(&seen), ready_tx.clone());
            spawn_inside(&ready_tx, false, move || {
                let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
                thread::spawn(move || server::count_questions(&resolver, &seen.questions));
                serve_web("outside");
            });
            ready.recv_timeout(PATIENCE).unwrap()
        };
        let phantom = {
            let (seen, path) = (Arc::clone(&seen), directory.path().join("daemon.sock"));
            spawn_inside(&ready_tx, true, move || {
                server::listen(&path, &seen);
                serve_web("phantom");
            });
            ready.recv_timeout(PATIENCE).unwrap()
        };
        let world = Self { directory, outside, phantom, seen };
        world.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        world.write("nsswitch.conf", "hosts: files dns\nnetworks: dns\nservices: files\npasswd: files\ngroup: files\n");
        world.write("hosts", "127.0.0.1 localhost\n::1 localhost\nfd70::1 web.phantom\n198.18.0.1 web.phantom\n");
        world
    }

    /// A file that victims see in /etc when its name is of one that steers resolvers.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program under the hook.
    pub(crate) fn hooked(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.bare(program);
        command.env("LD_PRELOAD", library()).env("PHANTOM_SOCKET", self.path("daemon.sock"));
        command
    }

    /// The same program in the same place without the hook.
    pub(crate) fn bare(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(&self.outside, program)
    }

    /// The program inside the phantom namespace without the hook: how things look from there.
    pub(crate) fn inside(&self, program: impl AsRef<Path>) -> Command {
        self.command_in(&self.phantom, program)
    }

    fn command_in(&self, namespace: &OwnedFd, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for name in ["LD_PRELOAD", "PHANTOM_SOCKET", "PHANTOM_IDENTITY", "PHANTOM_SESSION"] {
            command.env_remove(name);
        }
        let namespace = namespace.as_raw_fd();
        let files = ["resolv.conf", "nsswitch.conf", "hosts"];
        let files =
            files.map(|name| (namespace::text(&self.path(name)), namespace::text(&Path::new("/etc").join(name))));
        // SAFETY: between fork and exec it makes system calls only, on values made before.
        unsafe { command.pre_exec(move || namespace::enter(namespace, &files)) };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// From now on the victim gets SIGUSR1 in the midst of each of its calls, and no line to keep.
    pub(crate) fn disturb(&self) {
        self.seen.midst.disturb();
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Connections to the daemon so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Questions so far that went to the resolver of the normal network.
    pub(crate) fn questions(&self) -> usize {
        self.seen.questions.load(Ordering::SeqCst)
    }
}

/// A thread in a new namespace; its services go on until the tests end. Sends the namespace when all is ready.
fn spawn_inside(ready: &mpsc::Sender<OwnedFd>, phantom: bool, serve: impl FnOnce() + Send + 'static) {
    let ready = ready.clone();
    thread::spawn(move || {
        let namespace = namespace::create(phantom);
        serve();
        ready.send(namespace).unwrap();
    });
}

/// A web server on port 80 of all addresses that says where it is.
fn serve_web(place: &'static str) {
    let listener = TcpListener::bind("[::]:80").unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.map(|connection| server::answer_web(connection, place));
        }
    });
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let mut child = command.spawn().unwrap();
    let read = |stream: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|stream| Box::new(stream) as _));
    let err = read(child.stderr.take().map(|stream| Box::new(stream) as _));
    let (done_tx, done) = mpsc::channel();
    let id = child.id();
    let waiting = thread::spawn(move || {
        let status = child.wait().unwrap();
        done_tx.send(()).unwrap();
        status
    });
    let begun = Instant::now();
    if done.recv_timeout(PATIENCE).is_err() {
        // SAFETY: a signal to our own child, which nobody has waited for yet.
        unsafe { libc::kill(id as i32, libc::SIGKILL) };
    }
    let status = waiting.join().unwrap();
    let ran = Ran { out: out.join().unwrap(), err: err.join().unwrap(), code: status.code() };
    assert!(begun.elapsed() < PATIENCE, "took too long: {command:?} {ran:?}");
    ran
}

/// The library, built from the present source.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // The test lies in target/PROFILE/deps; an own target directory would build everything again.
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let name = if profile.ends_with("release") { "release" } else { "dev" };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--profile", name]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the library does not build");
        profile.join("libphantom.so")
    })
}

/// Whether a large tool is here; its tests say so when they are left out.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        eprintln!("left out: {program} is not installed");
    }
    found
}

/// A victim in C, compiled.
pub(crate) fn compile(world: &World, name: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/victims").join(name).with_extension("c");
    let program = world.path(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-D_GNU_SOURCE", "-Wall", "-Werror", "-g", "-o"]).arg(&program).arg(source).args(options);
    assert!(gcc.status().unwrap().success(), "{name} does not compile");
    program
}
