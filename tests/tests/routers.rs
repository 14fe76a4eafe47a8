//! A computer behind the router of a home, which lets nobody in: it asks the router to forward its port, is reached then, and is not any more
//! after it has ended. Routers are real ones (miniupnpd) and played ones that do it in other ways, or nonsense.
//!
//! ```text
//!  home 192.168.77.2 ── lan ── 192.168.77.1 router 5.100.0.1 ── wan ── outside: 5.100.0.2, and the other nodes at 21.0.0.1, 22.0.0.1 …
//! ```
#![allow(missing_docs)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Heard, Joined, Server, binary, eventually, signal, stdout};
use serde_json::Value;

/// Nodes outside: enough to ask whether they come in, and to keep a record.
const OUTSIDE: usize = 5;

/// What the networks are made of. The router lets in what belongs to what went out, and what its server of mappings says.
const WORLD: &str = "
    set -e
    in_home() { nsenter --net=/proc/$HOME_PID/ns/net \"$@\"; }
    in_router() { nsenter --net=/proc/$ROUTER_PID/ns/net \"$@\"; }
    outside() { nsenter --net=/proc/$OUTSIDE_PID/ns/net \"$@\"; }
    in_router ip link add lan type veth peer name home netns $HOME_PID
    in_router ip link add wan type veth peer name out netns $OUTSIDE_PID
    in_router ip addr add 192.168.77.1/24 dev lan
    in_router ip addr add 5.100.0.1/16 dev wan
    for link in lo lan wan; do in_router ip link set $link up; done
    in_router ip route add default via 5.100.0.2
    in_router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    in_home ip addr add 192.168.77.2/24 dev home
    for link in lo home; do in_home ip link set $link up; done
    in_home ip route add default via 192.168.77.1
    outside ip addr add 5.100.0.2/16 dev out
    for link in lo out; do outside ip link set $link up; done
    for node in 1 2 3 4 5; do outside ip addr add 2$node.0.0.1/32 dev lo; done
    in_router nft -f - <<RULES
        table inet filter {
            counter asked {}
            counter asked_all {}
            chain seen {
                type filter hook prerouting priority -300;
                iifname lan udp dport { 1900, 5351 } counter name asked
                iifname lan ip daddr 239.255.255.250 counter name asked_all
            }
            chain forward {
                type filter hook forward priority 0; policy drop;
                jump miniupnpd
                iifname lan accept
                ct state established,related accept
                ip daddr 192.168.77.2 tcp dport 8443 ct status dnat accept
            }
            chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; jump played; }
            chain postrouting { type nat hook postrouting priority 100; oifname wan masquerade; }
            chain played {}
            chain miniupnpd {}
            chain prerouting_miniupnpd {}
            chain postrouting_miniupnpd {}
        }
RULES
";

/// Where miniupnpd does its work, and by what it may be asked.
fn miniupnpd_conf(folder: &Path, by_natpmp: bool) -> String {
    format!(
        "ext_ifname=wan
listening_ip=lan
port=0
enable_natpmp={}
enable_upnp={}
secure_mode=yes
lease_file={}
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
",
        if by_natpmp { "yes" } else { "no" },
        if by_natpmp { "no" } else { "yes" },
        folder.join("leases").display()
    )
}

/// What the certificate tells of the home.
const SHOWN: &str = "
import socket, ssl, sys
der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))
print('the address' if socket.inet_aton('192.168.77.2') in der or b'192.168' in der else 'no address')
";

/// A network, and what holds it.
struct Space(Child);

impl Space {
    fn new() -> Result<Self> {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn()?;
        let space = Self(holder);
        let own = std::fs::read_link("/proc/self/ns/net")?;
        // Until it is in there, both are one.
        eventually(|| {
            ensure!(std::fs::read_link(format!("/proc/{}/ns/net", space.0.id()))? != own, "not yet");
            Ok(())
        })?;
        Ok(space)
    }

    fn enter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(program);
        command
    }

    fn says(&self, words: &[&str]) -> Result<String> {
        let (first, others) = words.split_first().context("no program")?;
        stdout(&self.enter(first).args(others).output()?)
    }

    /// Waits until somebody has a port of UDP there.
    fn listens(&self, port: u16) -> Result<()> {
        eventually(|| {
            let table = std::fs::read_to_string(format!("/proc/{}/net/udp", self.0.id()))?;
            ensure!(table.contains(&format!(":{port:04X} ")), "nobody has port {port}: {table}");
            Ok(())
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // It goes with the last process in it, and its links with that.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of it.
struct World {
    // Dropped in this order.
    nodes: Vec<Joined>,
    home: Space,
    router: Space,
    outside: Space,
    dir: tempfile::TempDir,
    alone: Mutex<()>,
}

impl World {
    /// That of all tests of this file.
    fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = shared.upgrade() {
            return Ok(world);
        }
        let world = Arc::new(Self::up()?);
        *shared = Arc::downgrade(&world);
        Ok(world)
    }

    fn up() -> Result<Self> {
        let (home, router, outside) = (Space::new()?, Space::new()?, Space::new()?);
        let (dir, alone) = (tempfile::tempdir()?, Mutex::default());
        let mut world = Self { nodes: Vec::new(), home, router, outside, dir, alone };
        let pids = [("HOME_PID", &world.home), ("ROUTER_PID", &world.router), ("OUTSIDE_PID", &world.outside)];
        let pids = pids.map(|(name, space)| (name, space.0.id().to_string()));
        stdout(&Command::new("sh").args(["-c", WORLD]).envs(pids).output()?).context("making the networks")?;
        for node in 1..=OUTSIDE {
            let config = format!("listen = \"2{node}.0.0.1:8443\"\nreachable = \"yes\"\n{}", world.peers()?);
            world.nodes.push(world.start(&world.outside, &format!("outside-{node}"), &config)?);
        }
        Ok(world)
    }

    /// One at a time has the home and its router.
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> Result<String> {
        let Some(first) = self.nodes.first() else { return Ok(String::new()) };
        let status = first.phantom(&["status"])?;
        Ok(format!("peers = [\"{}\"]\n", status["peer"].as_str().context("no peer string")?))
    }

    fn start(&self, space: &Space, name: &str, config: &str) -> Result<Joined> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("phantomd.toml"), format!("{config}[paths]\nhurry = true\n"))?;
        let mut daemon = space.enter(binary("phantomd"));
        let daemon =
            daemon.arg("--data-dir").arg(&folder).arg("--accept-eula").stdin(Stdio::null()).stdout(Stdio::null());
        let joined = Joined { daemon: daemon.spawn()?.into(), socket: folder.join("daemon.sock") };
        eventually(|| joined.phantom(&["status"]).map(drop))?;
        Ok(joined)
    }

    /// The computer at home.
    fn home(&self, name: &str) -> Result<Joined> {
        self.start(&self.home, name, &format!("listen = \"0.0.0.0:8443\"\n{}", self.peers()?))
    }

    fn miniupnpd(&self, name: &str, by_natpmp: bool) -> Result<Server> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder)?;
        let conf = folder.join("miniupnpd.conf");
        std::fs::write(&conf, miniupnpd_conf(&folder, by_natpmp))?;
        let mut daemon = self.router.enter("miniupnpd");
        daemon.args(["-d", "-f"]).arg(conf).arg("-P").arg(folder.join("pid")).stderr(Stdio::null());
        let started = Server::start(daemon)?;
        self.router.listens(if by_natpmp { 5351 } else { 1900 })?;
        Ok(started)
    }

    fn played(&self, mode: &str) -> Result<Heard> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/victims/router.py");
        Server::start_heard(self.router.enter("python3").args([script, mode, "192.168.77.1"]), "plays")
    }

    /// What the router forwards.
    fn forwarded(&self) -> Result<String> {
        self.router.says(&["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"])
    }

    /// What came to the router since this was last asked: as a question to it, and to all of its network.
    fn asked(&self) -> Result<[bool; 2]> {
        let is_zero = |name: &str| {
            let counter = self.router.says(&["nft", "reset", "counter", "inet", "filter", name])?;
            ensure!(counter.contains("packets"), "{counter}");
            Ok(counter.contains("packets 0"))
        };
        Ok([!is_zero("asked")?, !is_zero("asked_all")?])
    }

    /// Whether somebody outside gets through to the home.
    fn gets_in(&self, port: u16) -> bool {
        const TRY: &str = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)";
        self.outside.says(&["python3", "-c", TRY, "5.100.0.1", &port.to_string()]).is_ok()
    }
}

/// What the daemon says of the router.
fn says(home: &Joined, words: &str) -> Result<Value> {
    eventually(|| {
        let status = home.phantom(&["status"])?;
        ensure!(status["router"].as_str().is_some_and(|said| said.contains(words)), "it says {status}");
        Ok(status)
    })
}

/// Others have come in at that address, and have taken the record that names it.
fn is_reached_at(home: &Joined, addr: &str) -> Result<()> {
    eventually(|| {
        let (status, doctor) = (home.phantom(&["status"])?, doctor(home)?);
        let came = format!("other nodes have opened links to {addr}");
        ensure!(doctor.contains(&came) && status["listen"][0] == addr, "it says {status}, {doctor}");
        ensure!(status["own_record"]["for_seconds"].is_u64(), "no record: {status}");
        Ok(())
    })
}

/// Its status says that not all is as it could be.
fn doctor(home: &Joined) -> Result<String> {
    let mut doctor = Command::new(binary("phantom"));
    let said = doctor.arg("--daemon").arg(&home.socket).args(["--json", "doctor"]).output()?;
    Ok(String::from_utf8(said.stdout)?)
}

// protocol: J26
#[test]
fn who_is_behind_a_router_that_forwards_ports_is_reached_until_it_ends() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    for by_natpmp in [true, false] {
        let name = if by_natpmp { "natpmp" } else { "upnp" };
        let _router = world.miniupnpd(&format!("router-{name}"), by_natpmp)?;
        ensure!(!world.gets_in(8443) && !world.forwarded()?.contains("8443"), "before anybody asked");
        world.asked()?;
        let home = world.home(name)?;
        says(&home, "the router forwards port 8443 to this computer")?;
        ensure!(world.asked()? == [true, false], "who need not hear of it does");
        is_reached_at(&home, "5.100.0.1:8443").context(name)?;
        ensure!(world.gets_in(8443), "{name}");
        let shown = world.outside.says(&["python3", "-c", SHOWN, "5.100.0.1", "8443"])?;
        ensure!(shown == "no address\n", "a stranger learns {shown}");
        let leases = std::fs::read_to_string(world.dir.path().join(format!("router-{name}/leases")))?;
        ensure!(leases.contains("8443") && !leases.to_lowercase().contains("phantom"), "{leases}");
        // What a killed one has left behind does not keep the next one out.
        signal(home.daemon.id().try_into()?, libc::SIGKILL);
        drop(home);
        ensure!(world.forwarded()?.contains("8443"), "nobody has taken it back");
        let home = world.home(&format!("{name}-again"))?;
        says(&home, "the router forwards port 8443 to this computer")?;
        is_reached_at(&home, "5.100.0.1:8443").context("after a kill")?;
        // A clean stop.
        drop(home);
        let left = world.forwarded()?;
        ensure!(!left.contains("8443") && !world.gets_in(8443), "{name}: {left}");
    }
    Ok(())
}

#[test]
fn a_port_that_the_router_chooses_is_the_one_that_others_are_told() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    let router = world.played("elsewhere")?;
    world
        .router
        .says(&["nft", "add rule inet filter played iifname wan tcp dport 40000 dnat ip to 192.168.77.2:8443"])?;
    let home = world.home("elsewhere")?;
    router.hears("forwards 8443")?;
    says(&home, "the router forwards port 40000 to this computer")?;
    is_reached_at(&home, "5.100.0.1:40000")?;
    drop(home);
    router.hears("forgets 8443")?;
    world.router.says(&["nft", "flush chain inet filter played"])?;
    Ok(())
}

#[test]
fn a_router_that_forwards_for_ever_alone_is_told_when_it_is_over_and_nothing_of_what_it_is_for() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    let router = world.played("permanent")?;
    let home = world.home("permanent")?;
    router.hears("asked by nobody")?;
    router.hears("description TCP")?;
    router.hears("forwards 8443 for ever")?;
    says(&home, "the router forwards port 8443")?;
    drop(home);
    router.hears("forgets 8443")
}

/// It forwards nothing really: others find out, and its word alone is not enough.
#[test]
fn a_routers_word_does_not_replace_the_test_by_others() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    let _router = world.played("elsewhere")?;
    let home = world.home("lied-to")?;
    says(&home, "the router forwards port 40000")?;
    eventually(|| {
        let doctor = doctor(&home)?;
        ensure!(doctor.contains("cannot open links to this one") && doctor.contains("a firewall"), "{doctor}");
        Ok(())
    })?;
    let status = home.phantom(&["status"])?;
    ensure!(status["own_record"].is_null(), "it has a record: {status}");
    Ok(())
}

#[test]
fn a_router_behind_another_one_is_of_no_use_and_is_told_so() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    let router = world.played("inner")?;
    let home = world.home("inner")?;
    router.hears("forwards 8443")?;
    router.hears("forgets 8443")?;
    let status = says(&home, "another router, or the provider, stands before it")?;
    ensure!(status["listen"][0] == "192.168.77.2:8443", "{status}");
    Ok(())
}

#[test]
fn a_router_that_says_nothing_or_nonsense_costs_nothing_and_is_told_with_what_to_do() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    for mode in ["silent", "rubbish"] {
        let router = world.played(mode)?;
        world.asked()?;
        let home = world.home(mode)?;
        says(&home, "the router here does not forward the port")?;
        ensure!(world.asked()? == [true, true], "all are asked where the router does not answer");
        if mode == "rubbish" {
            router.hears("endless: cut")?;
        }
        eventually(|| {
            let doctor = doctor(&home)?;
            ensure!(doctor.contains("forward TCP port 8443 to this computer in the router's own settings"), "{doctor}");
            Ok(())
        })?;
        let status = home.phantom(&["status"])?;
        ensure!(status["listen"][0] == "192.168.77.2:8443", "{status}");
    }
    Ok(())
}

#[test]
fn no_router_is_asked_where_its_owner_does_not_want_it_or_it_would_not_help() -> Result<()> {
    let world = World::shared()?;
    let _alone = world.alone();
    let _router = world.played("elsewhere")?;
    world.asked()?;
    // Nobody could come: it knows no node.
    let lonely = world.start(&world.home, "lonely", "listen = \"0.0.0.0:8444\"\n")?;
    let left = format!("listen = \"0.0.0.0:8443\"\nask_router = false\n{}", world.peers()?);
    let left = world.start(&world.home, "left", &left)?;
    says(&left, "the configuration says so (`ask_router`)")?;
    eventually(|| {
        let doctor = doctor(&left)?;
        ensure!(doctor.contains("cannot open links to this one"), "{doctor}");
        Ok(())
    })?;
    says(&lonely, "no router was asked yet")?;
    ensure!(world.asked()? == [false, false], "it was asked");
    Ok(())
}
