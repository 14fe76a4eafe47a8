//! Doors: what the programs of one run may ask, and nothing else.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

/// A named identity that a launcher has entered, and a socket for the programs that hold its token.
struct Run {
    world: World,
    launcher: Program,
    folder: tempfile::TempDir,
}

const TOKEN: u8 = 9;

impl Run {
    async fn start() -> Self {
        let world = world();
        let _: Address = world.client().await.ask(&admin::Request::AddressNew { name: "web".into() }).await.unwrap();
        let _: Address = world.client().await.ask(&admin::Request::AddressNew { name: "mail".into() }).await.unwrap();
        let mut launcher = world.hook().await;
        let web = || IdentityRef::Named("web".into());
        launcher.ask(&hook::Request::Hold { identity: web() }).await;
        launcher.ask(&hook::Request::Lend { identity: web(), token: [TOKEN; 16] }).await;
        let folder = tempfile::tempdir().unwrap();
        let listening = std::os::unix::net::UnixListener::bind(folder.path().join("program_socket")).unwrap();
        let mut run = Self { world, launcher, folder };
        let reply = run.offer(&session(TOKEN), Some(listening.into())).await;
        assert!(matches!(reply, hook::Reply::Info { .. }), "{reply:?}");
        run
    }

    async fn offer(&mut self, identity: &IdentityRef, listening: Option<OwnedFd>) -> hook::Reply {
        let frame = hook::Request::ProgramSocket { identity: identity.clone() }.encode().unwrap();
        let descriptors: Vec<_> = listening.iter().map(std::os::fd::AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(&self.launcher.0, &[io::IoSlice::new(&frame)], &mut control, SendFlags::empty()).unwrap();
        self.launcher.read().await.0
    }

    async fn program(&self) -> Program {
        let mut program = Program(UnixStream::connect(self.folder.path().join("program_socket")).await.unwrap());
        program.0.write_all(&PREAMBLE).await.unwrap();
        program
    }
}

#[tokio::test]
async fn programs_get_what_they_need_by_a_door() {
    let run = Run::start().await;
    let mut program = run.program().await;
    let web = run.world.control.identities.find(Whose::Operator, "web").unwrap();
    assert_eq!(program.address(&session(TOKEN)).await, web.address().octets());
    let kind = libc::SOCK_STREAM;
    let socket = hook::Request::Socket { identity: session(TOKEN), domain: libc::AF_INET6, kind, protocol: 0 };
    assert_eq!(program.ask(&socket).await.0, hook::Reply::Descriptor);
    let resolve = hook::Request::Resolve { identity: session(TOKEN), name: "friend".into() };
    assert!(matches!(program.ask(&resolve).await.0, hook::Reply::Addresses { .. }));
}

#[tokio::test]
async fn by_a_door_nobody_is_another_and_nobody_commands() {
    let run = Run::start().await;
    let mut program = run.program().await;
    let own = || session(TOKEN);
    let refused = [
        hook::Request::Info { identity: IdentityRef::Named("mail".into()) },
        hook::Request::Info { identity: IdentityRef::Named("web".into()) },
        hook::Request::Info { identity: session(TOKEN + 1) },
        hook::Request::Enter { identity: own() },
        hook::Request::Hold { identity: own() },
        hook::Request::Publish { identity: own(), ports: Ports::One(80), at: Some("mail".into()), stays: false },
        hook::Request::Publish { identity: own(), ports: Ports::All, at: None, stays: true },
        hook::Request::Follow { identity: own() },
        hook::Request::Lend { identity: own(), token: [1; 16] },
        hook::Request::ProgramSocket { identity: own() },
    ];
    for request in refused {
        assert_eq!(errno_of(&program.ask(&request).await.0), libc::EPERM, "{request:?}");
    }
    assert_eq!(run.world.daemon.opened.load(Ordering::SeqCst), 1, "nobody else was made");
    let mut admin = UnixStream::connect(run.folder.path().join("program_socket")).await.unwrap();
    admin.write_all(admin::Request::Stop.to_line().unwrap().as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = admin.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "no commands");
    assert!(run.world.client().await.ask::<Status>(&admin::Request::Status).await.is_ok(), "it goes on");
}

#[tokio::test]
async fn a_door_is_shut_with_the_launchers_connection() {
    let run = Run::start().await;
    let (folder, launcher) = (run.folder, run.launcher);
    drop(launcher);
    let shut = async {
        while UnixStream::connect(folder.path().join("program_socket")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(REQUEST_TIME, shut).await.expect("shut");
}

#[tokio::test]
async fn what_is_no_door_is_refused() {
    let mut run = Run::start().await;
    let listening = |name: &str| -> OwnedFd {
        std::os::unix::net::UnixListener::bind(run.folder.path().join(name)).unwrap().into()
    };
    let (second, third) = (listening("second"), listening("third"));
    assert!(matches!(run.offer(&session(TOKEN), Some(second)).await, hook::Reply::Info { .. }));
    assert_eq!(errno_of(&run.offer(&session(TOKEN), Some(third)).await), libc::EMFILE);
    assert_eq!(errno_of(&run.offer(&session(3), None).await), libc::EPERM, "not entered");
    let mut other = Run { launcher: run.world.hook().await, ..run };
    other.launcher.ask(&hook::Request::Hold { identity: session(3) }).await;
    assert_eq!(errno_of(&other.offer(&session(3), None).await), libc::ENOTSOCK);
    let stranger: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(errno_of(&other.offer(&session(3), Some(stranger)).await), libc::ENOTSOCK);
}
