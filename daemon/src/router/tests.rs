//! The task, with a router that tests play; and what people are told.

use std::net::Ipv4Addr;

use tokio::sync::mpsc;
use tokio::time::advance;

use super::*;

const HERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 5), 8443);
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 8), 40_000);

/// Says what it is asked and does what it is told.
struct Played {
    steps_tx: mpsc::Sender<Step>,
    answers_rx: mpsc::Receiver<Result<Granted, Refused>>,
}

#[async_trait]
impl Asks for Played {
    async fn ask(&mut self, to: SocketAddrV4, outside: u16) -> Result<Granted, Refused> {
        self.steps_tx.send(Step::Ask { to, outside }).await.unwrap();
        self.answers_rx.recv().await.unwrap()
    }

    async fn give_up(&mut self) {
        self.steps_tx.send(Step::GiveUp).await.unwrap();
    }
}

struct Home {
    here_tx: watch::Sender<Here>,
    forwarding_rx: watch::Receiver<Forwarding>,
    stop_tx: watch::Sender<bool>,
    steps_rx: mpsc::Receiver<Step>,
    answers_tx: mpsc::Sender<Result<Granted, Refused>>,
    task: JoinHandle<()>,
}

impl Home {
    fn new() -> Self {
        let (steps_tx, steps_rx) = mpsc::channel(1);
        let (answers_tx, answers_rx) = mpsc::channel(1);
        let (here_tx, here_rx) = watch::channel(Here { at: Some(HERE), moves: 0 });
        let (forwarding_tx, forwarding_rx) = watch::channel(Forwarding::Waits);
        let (stop_tx, stop_rx) = watch::channel(false);
        let keeper = Keeper { asks: Played { steps_tx, answers_rx }, here_rx, forwarding_tx, stop_rx };
        let task = tokio::spawn(keeper.keep());
        Self { here_tx, forwarding_rx, stop_tx, steps_rx, answers_tx, task }
    }

    async fn says(&mut self, answer: Result<Granted, Refused>) -> Forwarding {
        self.forwarding_rx.mark_unchanged();
        self.answers_tx.send(answer).await.unwrap();
        self.forwarding_rx.changed().await.unwrap();
        *self.forwarding_rx.borrow()
    }
}

fn granted() -> Result<Granted, Refused> {
    Ok(Granted { outside: OUTSIDE, lasts: None })
}

#[tokio::test(start_paused = true)]
async fn it_stands_is_renewed_and_ends_with_the_node() {
    let mut home = Home::new();
    let here = Here { at: Some(HERE), moves: 0 };
    assert_eq!(home.steps_rx.recv().await, Some(Step::Ask { to: HERE, outside: 8443 }));
    let forwarding = home.says(granted()).await;
    assert_eq!(forwarding.outside(here), Some(OUTSIDE));
    assert_eq!(forwarding.outside(Here { moves: 1, ..here }), None, "another router leads elsewhere");
    let before = Instant::now();
    assert_eq!(home.steps_rx.recv().await, Some(Step::Ask { to: HERE, outside: 40_000 }));
    assert_eq!(before.elapsed().as_secs(), 1800);
    home.says(granted()).await;
    home.stop_tx.send_replace(true);
    assert_eq!(home.steps_rx.recv().await, Some(Step::GiveUp));
    home.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_a_move_is_of_the_network_before() {
    let mut home = Home::new();
    home.steps_rx.recv().await.unwrap();
    home.here_tx.send_modify(|here| here.moves += 1);
    let forwarding = home.says(granted()).await;
    assert_eq!(forwarding, Forwarding::Waits);
    assert_eq!(home.steps_rx.recv().await, Some(Step::Ask { to: HERE, outside: 8443 }), "asked at once, there");
}

#[tokio::test(start_paused = true)]
async fn a_router_that_never_answers_is_waited_for_half_a_minute_and_a_stop_does_not_wait() {
    let mut home = Home::new();
    home.steps_rx.recv().await.unwrap();
    home.forwarding_rx.mark_unchanged();
    let before = Instant::now();
    home.forwarding_rx.changed().await.unwrap();
    assert_eq!(*home.forwarding_rx.borrow(), Forwarding::Refused(Refused::Silent));
    assert_eq!(before.elapsed(), ANSWERS_WITHIN);
    home.steps_rx.recv().await.unwrap();
    home.stop_tx.send_replace(true);
    let before = Instant::now();
    assert_eq!(home.steps_rx.recv().await, Some(Step::GiveUp), "it may have come about");
    home.task.await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_the_computer_has_an_address_of_its_own() {
    let mut home = Home::new();
    home.steps_rx.recv().await.unwrap();
    home.says(granted()).await;
    home.here_tx.send_modify(|here| here.at = None);
    home.forwarding_rx.changed().await.unwrap();
    assert!(matches!(*home.forwarding_rx.borrow(), Forwarding::Left(_)));
    advance(Duration::from_secs(9999)).await;
    assert!(home.steps_rx.try_recv().is_err());
}

#[test]
fn a_port_is_wanted_for_addresses_of_homes_alone() {
    let is = |addr: &str| behind(addr.parse().unwrap()).is_some();
    assert!(["192.168.1.5:1", "10.0.0.1:1", "172.16.3.4:1", "100.64.0.9:1", "[::ffff:10.0.0.1]:1"].into_iter().all(is));
    let others = ["127.0.0.1:1", "5.6.7.8:1", "169.254.1.1:1", "0.0.0.0:1", "[fd00::1]:1", "[2600::1]:1", "[::1]:1"];
    assert!(!others.into_iter().any(is));
}

#[test]
fn what_an_operator_has_said_leaves_the_router_alone() {
    let load = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("phantomd.toml");
        std::fs::write(&path, text).unwrap();
        let overrides = crate::config::Overrides {
            config: Some(path),
            data_dir: Some(dir.path().to_owned()),
            ..crate::config::Overrides::default()
        };
        left(&Config::load(&overrides, &crate::config::Folders::default()).unwrap()).is_some()
    };
    assert!(!load("") && !load("listen = \"192.168.1.5:8443\"") && !load("reachable = \"auto\""));
    for said in [
        "ask_router = false",
        "reachable = \"yes\"",
        "reachable = \"no\"",
        "advertise = \"5.6.7.8:443\"",
        "listen = \"127.1.2.3:8443\"",
    ] {
        assert!(load(said), "{said}");
    }
}

#[test]
fn people_are_told_in_plain_words_and_no_address() {
    let here = Here { at: Some(HERE), moves: 0 };
    let told = Forwarding::Forwards { outside: OUTSIDE, here }.words();
    assert_eq!(told, "the router forwards port 40000 to this computer");
    for forwarding in [Forwarding::Waits, Forwarding::Left("x"), Forwarding::Refused(Refused::Silent)] {
        assert!(forwarding.words().contains("the port"), "{}", forwarding.words());
    }
    assert!(Forwarding::Refused(Refused::NoRouter).words().starts_with("no router here forwards ports"));
}
