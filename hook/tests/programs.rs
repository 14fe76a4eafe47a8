//! Real programs under libphantom.so: they reach the phantom namespace, and nothing of them reaches the other.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

mod world;

use phantom_ipc::hook::{IdentityRef, Request};
use world::{Ran, World, run};

/// The place that a shell line under the hook saw.
fn shell(world: &World, line: &str) -> Ran {
    run(world.hooked("/bin/sh").args(["-c", line]))
}

#[track_caller]
fn in_phantom(ran: &Ran) {
    assert!(ran.out.contains("phantom IPv") && !ran.out.contains("outside"), "{ran:?}");
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn the_world_would_notice_a_leak() {
    let world = World::new();
    let ran = run(world.bare("curl").args(["-s", "http://web.phantom/"]));
    assert_eq!(ran.out, "outside IPv6\n", "{ran:?}");
    let ran = run(world.bare("getent").args(["hosts", "nobody.phantom"]));
    assert_eq!(ran.code, Some(2));
    assert!(world.questions() > 0);
    assert_eq!(world.requests(), []);
}

#[test]
fn web_clients_reach_names_and_addresses() {
    let world = World::new();
    for line in [
        "curl -s http://web.phantom/",
        "curl -s -4 http://four.phantom/",
        "curl -s 'http://[fd70::1]/'",
        "curl -s http://198.18.0.1/",
        "wget -q -O - http://web.phantom/",
        "wget -q -4 -O - http://web.phantom/",
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 web.phantom 80",
        "bash -c 'exec 3<>/dev/tcp/web.phantom/80; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'",
    ] {
        in_phantom(&shell(&world, line));
    }
    assert_eq!(world.questions(), 0);
}

#[test]
fn python_resolves_in_every_way() {
    let world = World::new();
    let script = "
import socket, urllib.request, asyncio, subprocess, threading, os
assert socket.gethostbyname('web.phantom') == '198.18.0.1'
assert socket.gethostbyname_ex('web.phantom') == ('web.phantom', [], ['198.18.0.1'])
assert socket.gethostbyaddr('fd70::1')[0] == 'web.phantom'
assert socket.gethostbyaddr('198.18.0.1') == ('web.phantom', [], ['198.18.0.1'])
found = socket.getaddrinfo('web.phantom', 80, type=socket.SOCK_STREAM)
assert [a[4][0] for a in found] == ['fd70::1', '198.18.0.1'], found
assert socket.getnameinfo(('fd70::1', 80), 0) == ('web.phantom', 'http')
assert socket.getnameinfo(('fd70::2', 80), 0)[0] == 'fd70::2'
assert socket.getfqdn('198.18.0.1') == 'web.phantom'
for name, code in [('no.phantom', socket.EAI_NONAME), ('later.phantom', socket.EAI_AGAIN), ('broken.phantom', socket.EAI_AGAIN)]:
    try: socket.getaddrinfo(name, 80)
    except socket.gaierror as e: assert e.errno == code, (name, e)
    else: raise AssertionError(name)
    try: socket.gethostbyname(name)
    except socket.gaierror: pass
    else: raise AssertionError(name)
url = 'http://web.phantom/'
print(urllib.request.urlopen(url).read().decode())
async def main():
    r, w = await asyncio.open_connection('web.phantom', 80)
    w.write(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print((await r.read()).decode())
asyncio.run(main())
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.bind(('::', 0)); s.listen()
c = socket.create_connection(('::1', s.getsockname()[1])); a, _ = s.accept()
c.sendall(b'x'); assert a.recv(1) == b'x'
threads = [threading.Thread(target=lambda: urllib.request.urlopen(url).read()) for _ in range(16)]
[t.start() for t in threads]; [t.join() for t in threads]
for extra in [{}, {'close_fds': False}, {'env': {}}, {'start_new_session': True}]:
    print(subprocess.run(['/usr/bin/curl', '-s', url], capture_output=True, text=True, check=True, **extra).stdout)
pid = os.fork()
if pid == 0:
    urllib.request.urlopen(url).read(); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert [i[1] for i in socket.if_nameindex()] == ['lo'], socket.if_nameindex()
assert socket.if_nametoindex('lo') == 1 and socket.if_indextoname(1) == 'lo'
";
    let ran = run(world.hooked("python3").args(["-c", script]));
    in_phantom(&ran);
    assert_eq!(ran.out.matches("phantom IPv6").count(), 6, "{ran:?}");
    assert_eq!(world.questions(), 0);
}

#[test]
fn other_programs_resolve_too() {
    let world = World::new();
    let ran = shell(&world, "getent ahosts web.phantom; getent hosts web.phantom; getent hosts fd70::1");
    assert!(ran.out.lines().all(|line| line.contains("fd70::1") || line.contains("198.18.0.1")), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 8, "{ran:?}");
    let perl = "use Socket; print inet_ntoa(scalar gethostbyname('web.phantom')), ' ', \
        scalar gethostbyaddr(inet_aton('198.18.0.1'), AF_INET), \"\\n\"";
    let ran = run(world.hooked("perl").args(["-e", perl]));
    assert_eq!(ran.out, "198.18.0.1 web.phantom\n", "{ran:?}");
    // Nobody speaks SSH there: what counts is where the name led.
    let ran = run(world.hooked("ssh").args(["-v", "-o", "BatchMode=yes", "-p", "80", "web.phantom"]));
    assert!(ran.err.contains("Connection established"), "{ran:?}");
    let ran = run(world.hooked("ssh").args(["-o", "BatchMode=yes", "no.phantom"]));
    assert!(ran.err.contains("Could not resolve hostname no.phantom"), "{ran:?}");
    assert_eq!(world.questions(), 0);
}

#[test]
fn node_and_java_work() {
    let world = World::new();
    let script = "require('http').get('http://web.phantom/', r => r.pipe(process.stdout))";
    if world::installed("node") {
        in_phantom(&run(world.hooked("node").args(["-e", script])));
    }
    let source = "class Get { public static void main(String[] a) throws Exception {
        System.out.print(new String(new java.net.URL(\"http://web.phantom/\").openStream().readAllBytes())); } }";
    let path = world.write("Get.java", source);
    if world::installed("java") {
        in_phantom(&run(world.hooked("java").arg(path)));
    }
    assert_eq!(world.questions(), 0);
}

/// As each extension of PHP does it, and what asks for a libc of its own.
#[test]
fn libraries_that_are_loaded_deeply_or_apart_are_hooked_too() {
    let world = World::new();
    world::compile(&world, "plug", &["-shared", "-fPIC"]);
    let early = world::compile(&world, "early", &["-shared", "-fPIC", "-ldl"]);
    let path = format!("-Wl,-rpath,{}", world.path("").display());
    let early = early.to_str().unwrap();
    let options = ["-ldl", "-Wl,--enable-new-dtags", "-Wl,--no-as-needed", early, &path];
    let deep = world::compile(&world, "deep", &options);
    for way in ["plain", "deep", "deep-lazy", "new", "new-deep", "base-deep"] {
        in_phantom(&run(world.hooked(&deep).arg(way)));
    }
    assert_eq!(world.questions(), 0);
    let bare = run(world.bare(&deep).arg("deep"));
    assert!(bare.out.contains("outside"), "{bare:?}");
}

#[test]
fn programs_that_clear_the_environment_stay_hooked() {
    let world = World::new();
    for line in [
        "env -i /usr/bin/curl -s http://web.phantom/",
        "env -i /bin/sh -c 'exec env -i /usr/bin/curl -s http://web.phantom/'",
        "unset LD_PRELOAD PHANTOM_SOCKET PHANTOM_SESSION; curl -s http://web.phantom/",
        "LD_PRELOAD= PHANTOM_SESSION= PHANTOM_SOCKET= curl -s http://web.phantom/",
        "cd / && perl -e 'delete @ENV{keys %ENV}; print `/usr/bin/curl -s http://web.phantom/`'",
        "perl -e '%ENV = (); system(\"/usr/bin/curl\", \"-s\", \"http://web.phantom/\")'",
        "python3 -c 'import os; os.environ.clear(); os.system(\"/usr/bin/curl -s http://web.phantom/\")'",
        "python3 -c 'import os; os.posix_spawn(\"/usr/bin/curl\", [\"curl\", \"-s\", \"http://web.phantom/\"], {}); os.wait()'",
    ] {
        in_phantom(&shell(&world, line));
    }
    let identities: Vec<_> = world.requests().iter().map(|request| request.identity().clone()).collect();
    // Each line is a run of its own; within a run all share one identity. Lines ask at least for a name and a socket.
    let runs: std::collections::HashSet<_> = identities.iter().collect();
    assert_eq!(runs.len(), 8, "{identities:?}");
    assert!(identities.iter().all(|identity| matches!(identity, IdentityRef::Session(_))));
}

#[test]
fn a_named_identity_is_used_and_inherited() {
    let world = World::new();
    let mut command = world.hooked("/bin/sh");
    command.args(["-c", "env -i /usr/bin/curl -s http://web.phantom/"]).env("PHANTOM_IDENTITY", "shop");
    in_phantom(&run(&mut command));
    let named = |request: &Request| *request.identity() == IdentityRef::Named("shop".to_owned());
    assert!(!world.requests().is_empty() && world.requests().iter().all(named), "{:?}", world.requests());
}

#[test]
fn without_a_daemon_there_is_no_network() {
    let world = World::new();
    let script = "
import socket, errno
for family in socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK:
    try: socket.socket(family, socket.SOCK_DGRAM)
    except OSError as e: assert e.errno == errno.ENETDOWN, e
    else: raise AssertionError(family)
try: socket.getaddrinfo('web.phantom', 80)
except socket.gaierror as e: assert e.errno == socket.EAI_AGAIN, e
else: raise AssertionError()
a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'
assert socket.getaddrinfo('127.0.0.1', 80)
";
    let gone = |value: &str, name: &str| {
        let ran = run(world.hooked("python3").args(["-c", script]).env(name, value));
        assert_eq!(ran.code, Some(0), "{name}={value} {ran:?}");
        assert_eq!(ran.err.matches("phantom: no network for this program: ").count(), 1, "{name}={value} {ran:?}");
    };
    gone("/nowhere/daemon.sock", "PHANTOM_SOCKET");
    gone(&"/long".repeat(40), "PHANTOM_SOCKET");
    gone("no token", "PHANTOM_SESSION");
    gone(&"name".repeat(40), "PHANTOM_IDENTITY");
    assert_eq!((world.questions(), world.requests().len()), (0, 0));
}

/// Descriptor 2 is a connection, or was closed and is a file of the program's now, or is standard error still.
#[test]
fn what_is_not_standard_error_is_not_written_to() {
    let world = World::new();
    let script = "
import os, socket, sys
a, b = socket.socketpair()
a.settimeout(0)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
kept = os.dup(2)
def refused(place):
    os.dup2(place, 2)
    try: socket.socket(socket.AF_INET6)
    except OSError: return
    raise AssertionError
refused(b.fileno())
try: raise AssertionError(a.recv(100))
except BlockingIOError: pass
refused(file)
assert os.fstat(file).st_size == 0
os.close(2)
try: socket.socket(socket.AF_INET6)
except OSError: pass
refused(kept)
";
    let mut command = world.hooked("python3");
    command.args(["-c", script]).arg(world.path("database")).env("PHANTOM_SOCKET", "/nowhere/daemon.sock");
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.err.matches("phantom: no network for this program: ").count(), 1, "{ran:?}");
}

/// Its visitor is not to read what it runs under; systemd's log, which is a socket as well, is to have the line.
#[test]
fn a_connection_that_was_standard_error_from_the_start_is_not_written_to() {
    let world = World::new();
    let script = "
import os, socket, subprocess, sys
a, b = socket.socketpair()
env = {k: v for k, v in os.environ.items() if k != 'JOURNAL_STREAM'}
journal = os.fstat(b.fileno())
for more in {}, {'JOURNAL_STREAM': f'{journal.st_dev}:{journal.st_ino}'}:
    code = \"import os, socket\\ntry: socket.socket(socket.AF_INET6)\\nexcept OSError: os.write(2, b'own')\"
    subprocess.run([sys.executable, '-c', code], stderr=b, env=env | more, check=True)
    print(a.recv(1000))
";
    let mut command = world.hooked("python3");
    let ran = run(command.args(["-c", script]).env("PHANTOM_SOCKET", "/nowhere/daemon.sock"));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "b'own'", "{ran:?}");
    // Python picks its quotes by what is between them.
    let journal = lines[1].trim_start_matches('b').trim_matches(['\'', '"']);
    assert!(journal.starts_with("phantom: no network") && journal.ends_with(r"\nown"), "{ran:?}");
}

#[test]
fn a_daemon_that_talks_nonsense_is_no_network() {
    let world = World::new();
    let script = "
import socket, errno
try: socket.socket(socket.AF_INET6)
except OSError as e: print(errno.errorcode[e.errno])
try: print(socket.getaddrinfo('web.phantom', 80))
except socket.gaierror as e: assert e.errno == socket.EAI_AGAIN, e
";
    let replies: [&[u8]; 8] = [
        b"",
        b"\0\0",
        b"\0\0\0\x02\x01",
        b"\0\0\0\x01\x09",
        b"\0\0\0\x02\x01\x01",
        b"\xff\xff\xff\xff\x01",
        b"\0\0\0\x01\x01\0\0\0\x01\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        let path = world.path(&format!("nonsense{number}.sock"));
        world::answer_always(&path, reply);
        let ran = run(world.hooked("python3").args(["-c", script]).env("PHANTOM_SOCKET", &path));
        assert_eq!((ran.out.as_str(), ran.code), ("ENETDOWN\n", Some(0)), "{number} {ran:?}");
    }
    assert_eq!(world.questions(), 0);
}
