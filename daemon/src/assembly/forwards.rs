//! Services of this computer that run outside Phantom and are offered at an identity: `phantom forward`.
//!
//! Only ports of the loopback device can be: what is behind them stays on this computer, and so do the bytes. The service
//! sees its visitors come from loopback. A Unix socket is offered as long as somebody holds it (`phantom serve`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phantom_ipc::publish::Ports;
use phantom_ipc::{admin, errno};
use phantom_proto::ident::ApAddress;
use serde::{Deserialize, Serialize};

use super::arrivals::{Arrivals, Taken};
use super::forwarded::Service;
use crate::connections::Programs;
use crate::control::{Refusal, Target};
use crate::identity::{ApIdentity, Identities, Whose};
use crate::store::{Store, Table};

/// At most this many: each keeps entry paths of its identity.
const MOST: usize = 64;

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

impl Forwards {
    /// With those that were kept, which begin at once.
    pub(super) async fn start(arrivals: Arc<Arrivals>, store: Arc<Store>, identities: &Identities) -> Arc<Self> {
        let forwards = Arc::new(Self { arrivals, store, list: Mutex::default() });
        let kept = forwards.store.load(Table::Meta, KEY).ok().flatten().unwrap_or_default();
        let kept: Vec<Kept> =
            if kept.is_empty() { Vec::new() } else { serde_json::from_slice(&kept).unwrap_or_default() };
        for Kept { identity, port, to } in kept {
            let Some(at) = identities.find(Whose::Operator, &identity) else { continue };
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
        let key = (at.address(), port);
        self.begin(at, port, to, keep).await?;
        let saved = if keep { self.save() } else { Ok(()) };
        if saved.is_err() {
            // Until the daemon ends is not what was asked for.
            self.list().remove(&key);
            self.arrivals.unpublish(key.0, Ports::One(port), key.0).await;
        }
        saved
    }

    async fn begin(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal> {
        Service::can_be_offered(&to)?;
        let fits = match &to {
            Target::Tcp(to) => to.ip().is_loopback() && to.port() != 0,
            Target::Unix(path) => path.is_absolute() && !keep,
        };
        if !fits || port == 0 {
            let hint = "name a port of 127.0.0.1 or ::1, as in 80=127.0.0.1:8080";
            return Err(refused(
                errno::EINVAL,
                "only services of this computer's loopback device can be offered",
                hint,
            ));
        }
        if keep && at.name.is_none() {
            return Err(refused(
                errno::EINVAL,
                "what is kept needs an identity that lasts",
                "give one with --identity NAME",
            ));
        }
        let key = (at.address(), port);
        {
            let mut list = self.list();
            if list.contains_key(&key) {
                return Err(refused(
                    errno::EEXIST,
                    "that port is offered there already",
                    "take it back first: `phantom forward remove PORT`",
                ));
            }
            if list.len() >= MOST {
                return Err(refused(
                    errno::EMFILE,
                    &format!("{MOST} forwarded ports are the most"),
                    "take some back: `phantom forward remove PORT`",
                ));
            }
            list.insert(key, Forward { at: at.clone(), to: to.clone(), keep });
        }
        let service: Arc<dyn Programs> = Arc::new(Service(to));
        if let Err(Taken) = self.arrivals.publish(&at, Ports::One(port), at.address(), &service).await {
            self.list().remove(&key);
            let hint = "end that program, or offer another port or at another identity";
            return Err(refused(errno::EADDRINUSE, "a program is reached on that port of the identity already", hint));
        }
        Ok(())
    }

    /// Takes a port back, at that identity or, where there is only one, at whichever offers it; as it was. What the disk refuses changes
    /// nothing: what is kept would come back with the next start.
    ///
    /// # Errors
    /// When nobody offers it, when several identities do and none was named, or the disk refuses.
    pub(super) async fn remove(&self, port: u16, at: Option<ApAddress>) -> Result<admin::Forward, Refusal> {
        let (key, forward) = {
            let mut list = self.list();
            let is_meant = |(address, own): &&(ApAddress, u16)| *own == port && at.is_none_or(|at| at == *address);
            let keys: Vec<_> = list.keys().filter(is_meant).copied().collect();
            let hint = "`phantom forward list` shows what is offered, and where";
            match keys[..] {
                [] => return Err(refused(errno::ENOENT, &format!("port {port} is not offered"), hint)),
                [key] => (key, list.remove(&key)),
                _ => {
                    let message = format!("{} identities offer port {port}: name one with --identity", keys.len());
                    return Err(refused(errno::EEXIST, &message, hint));
                }
            }
        };
        let Some(forward) = forward else { return Err(refused(errno::ENOENT, "it was just taken back", "look again")) };
        if forward.keep
            && let Err(refusal) = self.save()
        {
            self.list().insert(key, forward);
            return Err(refusal);
        }
        self.arrivals.unpublish(key.0, Ports::One(port), key.0).await;
        let listens = Service(forward.to.clone()).listens(port).await;
        Ok(shown(key, &forward, listens))
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
        let kept = serde_json::to_vec(&kept)
            .map_err(|error| refused(errno::EIO, &error.to_string(), "nothing was changed"))?;
        self.store.save(Table::Meta, KEY, &kept).map_err(|error| refused(errno::EIO, &error.to_string(), error.hint()))
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
        self.list().iter().map(|(key, forward)| shown(*key, forward, !idle.contains(key))).collect()
    }
}

fn shown((address, port): (ApAddress, u16), forward: &Forward, listens: bool) -> admin::Forward {
    admin::Forward {
        port,
        to: forward.to.to_string(),
        identity: forward.at.name.as_ref().map(ToString::to_string),
        address: address.ipv6(),
        phantom_name: forward.at.phantom_name().to_string(),
        keep: forward.keep,
        listens,
        new_identity: false,
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
        let named = world.identities.create(Whose::Operator, "shop", &mut StdRng::seed_from_u64(1)).unwrap();
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
        assert_eq!(
            again.remove(80, Some(fresh.address())).await.unwrap_err().errno,
            libc::ENOENT,
            "another identity's"
        );
        assert_eq!(again.remove(80, None).await.unwrap().to, to(8080).to_string());
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
        let address =
            |removed: Result<admin::Forward, Refusal>| removed.map(|one| one.address).map_err(|why| why.errno);
        assert_eq!(address(world.forwards.remove(80, Some(one.address())).await), Ok(one.address().ipv6()));
        assert_eq!(address(world.forwards.remove(80, None).await), Ok(other.address().ipv6()), "now there is one only");
        assert_eq!(address(world.forwards.remove(80, None).await), Err(libc::ENOENT));
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
                .find(Whose::Operator, "n")
                .unwrap_or_else(|| world.identities.create(Whose::Operator, "n", &mut crate::random()).unwrap());
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
}
