//! Services of this computer that run outside Phantom and are offered at an identity: `phantom forward`.
//!
//! Only ports of the loopback device can be: what is behind them stays on this computer, and so do the bytes. The service
//! sees its visitors come from loopback. A Unix socket is offered as long as somebody holds it (`phantom serve`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::admin;
use phantom_ipc::publish::Ports;
use phantom_proto::ident::ApAddress;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::arrivals::{Arrivals, Taken};
use crate::connections::Programs;
use crate::control::{Refusal, Target};
use crate::gate::{Stream, carry, splice};
use crate::identity::{ApIdentity, Identities};
use crate::store::{Store, Table};

/// At most this many: each keeps entry paths of its identity.
const MOST: usize = 64;

/// How long a service of this computer may take to accept.
const ACCEPTS: Duration = Duration::from_secs(10);

/// Where those are kept that outlive the daemon.
const KEY: &[u8] = b"forwards";

/// All of them.
pub(super) struct Forwards {
    arrivals: Arc<Arrivals>,
    store: Arc<Store>,
    list: Mutex<BTreeMap<(ApAddress, u16), Forward>>,
}

struct Forward {
    at: Arc<ApIdentity>,
    to: Target,
    keep: bool,
}

/// As it is kept: only for identities that have a name.
#[derive(Serialize, Deserialize)]
struct Kept {
    identity: String,
    port: u16,
    to: SocketAddr,
}

/// What stands behind a port.
struct Service(Target);

#[async_trait]
impl Programs for Service {
    async fn listens(&self, _: u16) -> bool {
        let to = match &self.0 {
            Target::Tcp(to) => *to,
            Target::Unix(path) => return fs::metadata(path).is_ok_and(|about| about.file_type().is_socket()),
        };
        let tables =
            ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        tables.iter().any(|table| has_listener(table, to))
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, far: Box<dyn Stream>) {
        let served = match &self.0 {
            Target::Tcp(to) => timeout(ACCEPTS, TcpStream::connect(to)).await.map(|tcp| tcp.map(Near::Tcp)),
            Target::Unix(path) => timeout(ACCEPTS, UnixStream::connect(path)).await.map(|unix| unix.map(Near::Unix)),
        };
        match served {
            Ok(Ok(Near::Tcp(tcp))) => splice(tcp, far).await,
            Ok(Ok(Near::Unix(unix))) => join(unix, far).await,
            // It stopped to listen after the verdict: dropping the stream resets the connection.
            _ => tracing::debug!("a service of this computer did not take a connection"),
        }
    }
}

/// A service's end of a connection.
enum Near {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// As `splice`; a Unix socket knows no reset, so what breaks off at one end ends the other.
async fn join(mut unix: UnixStream, far: Box<dyn Stream>) {
    let (mut unix_read, mut unix_write) = unix.split();
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let both = tokio::try_join!(carry(&mut unix_read, &mut far_write), carry(&mut far_read, &mut unix_write));
    if both.is_err() {
        tracing::debug!("a connection to a service of this computer broke off");
    }
}

/// Whether something listens there, by a table as the kernel shows it: its own address or any, in hexadecimal, the state 0A.
fn has_listener(table: &str, to: SocketAddr) -> bool {
    let row = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let is_listener = words.nth(1)? == "0A" && u16::from_str_radix(port, 16).ok()? == to.port();
        is_listener.then(|| address.to_owned())
    };
    table.lines().filter_map(row).any(|address| {
        let is_any = address.bytes().all(|digit| digit == b'0');
        // Any IPv6 address takes IPv4 too, as a rule.
        let takes_family = address.len() == 32 || to.is_ipv4();
        address == in_hex(to.ip()) || is_any && takes_family
    })
}

/// In words of four bytes, each in the order of this machine.
fn in_hex(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets
        .chunks_exact(4)
        .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .collect()
}

impl Forwards {
    /// With those that were kept, which begin at once.
    pub(super) async fn start(arrivals: Arc<Arrivals>, store: Arc<Store>, identities: &Identities) -> Arc<Self> {
        let forwards = Arc::new(Self { arrivals, store, list: Mutex::default() });
        let kept = forwards.store.load(Table::Meta, KEY).ok().flatten().unwrap_or_default();
        let kept: Vec<Kept> =
            if kept.is_empty() { Vec::new() } else { serde_json::from_slice(&kept).unwrap_or_default() };
        for Kept { identity, port, to } in kept {
            let Some(at) = identities.find(&identity) else { continue };
            if let Err(refusal) = forwards.begin(at, port, Target::Tcp(to), true).await {
                tracing::warn!("a forwarded port is not offered: {refusal}");
            }
        }
        forwards
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<(ApAddress, u16), Forward>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers a service at an identity, until the daemon ends or, kept, until it is taken back.
    pub(super) async fn add(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal> {
        self.begin(at, port, to, keep).await?;
        if keep { self.save() } else { Ok(()) }
    }

    async fn begin(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal> {
        let fits = match &to {
            Target::Tcp(to) => to.ip().is_loopback() && to.port() != 0,
            Target::Unix(path) => path.is_absolute() && !keep,
        };
        if !fits || port == 0 {
            let hint = "name a port of 127.0.0.1 or ::1, as in 80=127.0.0.1:8080";
            return Err(refused(libc::EINVAL, "only services of this computer's loopback device can be offered", hint));
        }
        if keep && at.name.is_none() {
            return Err(refused(
                libc::EINVAL,
                "what is kept needs an identity that lasts",
                "give one with --identity NAME",
            ));
        }
        let key = (at.address(), port);
        {
            let mut list = self.list();
            if list.contains_key(&key) {
                return Err(refused(
                    libc::EEXIST,
                    "that port is offered there already",
                    "take it back with --remove first",
                ));
            }
            if list.len() >= MOST {
                return Err(refused(libc::EMFILE, &format!("{MOST} forwarded ports are the most"), "take some back"));
            }
            list.insert(key, Forward { at: at.clone(), to: to.clone(), keep });
        }
        let service: Arc<dyn Programs> = Arc::new(Service(to));
        if let Err(Taken) = self.arrivals.publish(&at, Ports::One(port), at.address(), &service).await {
            self.list().remove(&key);
            let hint = "end that program, or offer another port or at another identity";
            return Err(refused(libc::EADDRINUSE, "a program is reached on that port of the identity already", hint));
        }
        Ok(())
    }

    /// Takes a port back, at that identity or, where there is only one, at whichever offers it; how many there were.
    ///
    /// # Errors
    /// When several identities offer it and none was named, or the disk refuses.
    pub(super) async fn remove(&self, port: u16, at: Option<ApAddress>) -> Result<u64, Refusal> {
        let gone: Vec<_> = {
            let mut list = self.list();
            let keys: Vec<_> = list
                .keys()
                .filter(|(address, own)| *own == port && at.is_none_or(|at| at == *address))
                .copied()
                .collect();
            if keys.len() > 1 {
                let message = format!("{} identities offer port {port}", keys.len());
                return Err(refused(libc::EEXIST, &message, "name one with --identity: `phantom forward` shows them"));
            }
            keys.into_iter().filter_map(|key| list.remove(&key).map(|forward| (key, forward))).collect()
        };
        for ((address, port), _) in &gone {
            self.arrivals.unpublish(*address, Ports::One(*port), *address).await;
        }
        if gone.iter().any(|(_, forward)| forward.keep) {
            self.save()?;
        }
        Ok(gone.len() as u64)
    }

    fn save(&self) -> Result<(), Refusal> {
        let kept: Vec<Kept> = {
            let list = self.list();
            let kept = list.iter().filter(|(_, forward)| forward.keep);
            let one = |(key, forward): (&(ApAddress, u16), &Forward)| {
                let Target::Tcp(to) = forward.to else { return None };
                Some(Kept { identity: forward.at.name.as_ref()?.to_string(), port: key.1, to })
            };
            kept.filter_map(one).collect()
        };
        let saved = serde_json::to_vec(&kept).map_err(|error| error.to_string());
        let saved = saved.and_then(|kept| self.store.save(Table::Meta, KEY, &kept).map_err(|error| error.to_string()));
        saved.map_err(|error| refused(libc::EIO, &format!("it could not be kept: {error}"), "look at the disk"))
    }

    /// All, for people.
    pub(super) async fn shown(&self) -> Vec<admin::Forward> {
        let services: Vec<_> = self.list().iter().map(|(key, forward)| (*key, Service(forward.to.clone()))).collect();
        let mut idle = BTreeSet::new();
        for (key, service) in services {
            if !service.listens(key.1).await {
                idle.insert(key);
            }
        }
        let list = self.list();
        let one = |(key, forward): (&(ApAddress, u16), &Forward)| admin::Forward {
            port: key.1,
            to: forward.to.to_string(),
            identity: forward.at.name.as_ref().map(ToString::to_string),
            address: key.0.ipv6(),
            phantom_name: forward.at.phantom_name().to_string(),
            keep: forward.keep,
            listens: !idle.contains(key),
        };
        list.iter().map(one).collect()
    }
}

fn refused(errno: i32, message: &str, hint: &str) -> Refusal {
    Refusal { errno, message: message.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::sync::mpsc;

    use super::super::lone::{self, Lone};
    use super::*;
    use crate::connections::Network;

    struct World {
        forwards: Arc<Forwards>,
        identities: Arc<Identities>,
        store: Arc<Store>,
        lone: Lone,
        _dir: tempfile::TempDir,
    }

    async fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let identities = Arc::new(Identities::load(store.clone()).unwrap());
        let lone = lone::driver();
        let forwards = start(&lone, &store, &identities).await;
        World { forwards, identities, store, lone, _dir: dir }
    }

    async fn start(lone: &Lone, store: &Arc<Store>, identities: &Identities) -> Arc<Forwards> {
        let arrivals = Arc::new(Arrivals::new(Network::start(lone.handle.clone(), mpsc::channel(1).1)));
        Forwards::start(arrivals, store.clone(), identities).await
    }

    fn to(port: u16) -> Target {
        Target::Tcp(at(port))
    }

    fn at(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[tokio::test]
    async fn kept_ones_are_there_after_a_restart_and_others_are_not() {
        let world = world().await;
        let named = world.identities.create("shop", &mut StdRng::seed_from_u64(1)).unwrap();
        let fresh = Arc::new(ApIdentity::fresh(&mut StdRng::seed_from_u64(2)));
        world.forwards.add(named.clone(), 80, to(8080), true).await.unwrap();
        world.forwards.add(named.clone(), 81, to(8081), false).await.unwrap();
        world.forwards.add(fresh.clone(), 80, to(8082), false).await.unwrap();
        assert_eq!(world.forwards.add(fresh.clone(), 82, to(8082), true).await.unwrap_err().errno, libc::EINVAL);
        assert_eq!(world.forwards.add(named.clone(), 80, to(9), false).await.unwrap_err().errno, libc::EEXIST);
        assert_eq!(world.forwards.shown().await.len(), 3);
        let again = start(&world.lone, &world.store, &world.identities).await;
        let shown = again.shown().await;
        assert_eq!(shown.len(), 1);
        assert_eq!(
            (shown[0].port, shown[0].to.clone(), shown[0].identity.as_deref()),
            (80, to(8080).to_string(), Some("shop"))
        );
        assert_eq!(again.remove(80, Some(fresh.address())).await, Ok(0), "another identity's");
        assert_eq!(again.remove(80, None).await, Ok(1));
        assert!(start(&world.lone, &world.store, &world.identities).await.shown().await.is_empty());
    }

    #[tokio::test]
    async fn a_port_is_taken_back_at_one_identity_only() {
        let world = world().await;
        let [one, other] = [1, 2].map(|seed| Arc::new(ApIdentity::fresh(&mut StdRng::seed_from_u64(seed))));
        for at in [&one, &other] {
            world.forwards.add(at.clone(), 80, to(8080), false).await.unwrap();
        }
        assert_eq!(world.forwards.remove(80, None).await.unwrap_err().errno, libc::EEXIST, "which?");
        assert_eq!(world.forwards.remove(80, Some(one.address())).await, Ok(1));
        assert_eq!(world.forwards.remove(80, None).await, Ok(1), "now there is one only");
        assert_eq!(world.forwards.remove(80, None).await, Ok(0));
    }

    #[tokio::test]
    async fn whether_something_listens_there_is_shown() {
        let world = world().await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = Arc::new(ApIdentity::fresh(&mut StdRng::seed_from_u64(1)));
        world.forwards.add(at, 80, Target::Tcp(listener.local_addr().unwrap()), false).await.unwrap();
        assert!(world.forwards.shown().await[0].listens);
        drop(listener);
        assert!(!world.forwards.shown().await[0].listens);
    }

    #[tokio::test]
    async fn nothing_beyond_this_computer_is_offered_and_not_without_bound() {
        let world = world().await;
        let fresh = || Arc::new(ApIdentity::fresh(&mut crate::random()));
        for to in ["192.0.2.1:80", "0.0.0.0:80", "[2001:db8::1]:80", "[::]:80", "127.0.0.1:0", "[::ffff:192.0.2.1]:80"]
        {
            let refusal = world.forwards.add(fresh(), 80, Target::Tcp(to.parse().unwrap()), false).await.unwrap_err();
            assert_eq!(refusal.errno, libc::EINVAL, "{to}");
        }
        for (path, keep) in [("relative", false), ("/run/site", true)] {
            let named = world
                .identities
                .find("n")
                .unwrap_or_else(|| world.identities.create("n", &mut crate::random()).unwrap());
            assert_eq!(
                world.forwards.add(named, 80, Target::Unix(path.into()), keep).await.unwrap_err().errno,
                libc::EINVAL
            );
        }
        let at = fresh();
        for port in 1..=MOST as u16 {
            world.forwards.add(at.clone(), port, Target::Tcp((Ipv6Addr::LOCALHOST, port).into()), false).await.unwrap();
        }
        assert_eq!(world.forwards.add(at, 1000, to(1), false).await.unwrap_err().errno, libc::EMFILE);
    }

    #[tokio::test]
    async fn what_listens_is_seen_and_no_connection_made_for_it() {
        let listener = tokio::net::TcpListener::bind(at(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(Target::Tcp(address));
        assert!(service.listens(80).await);
        assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "somebody connected");
        let other = Service(Target::Tcp((Ipv4Addr::new(127, 9, 9, 9), address.port()).into()));
        assert!(!other.listens(80).await, "it is at another address");
        // A connection at the same port is no listener.
        let (_client, _accepted) = (TcpStream::connect(address).await.unwrap(), listener.accept().await.unwrap());
        drop(listener);
        assert!(!service.listens(80).await);
        let any = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(
            Service(Target::Tcp((Ipv6Addr::LOCALHOST, port).into())).listens(80).await
                && Service(to(port)).listens(80).await
        );
        let any = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        assert!(
            Service(to(port)).listens(80).await
                && !Service(Target::Tcp((Ipv6Addr::LOCALHOST, port).into())).listens(80).await
        );
    }
}
