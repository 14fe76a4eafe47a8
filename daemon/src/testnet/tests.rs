//! Networks of real processes: this test's own executable, started again, plays the daemon (everything but the node).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use clap::Parser;

use super::*;
use crate::args::Cli;
use crate::control::Daemon;
use crate::control::tests::TestDaemon;
use crate::listening::Sockets;
use crate::service;

/// Environment: arguments of the daemon that [`plays_phantomd`] plays.
const ARGUMENTS: &str = "PHANTOM_TEST_ARGUMENTS";

/// Environment: the played daemon never finishes saying good-bye.
const HANGS: &str = "PHANTOM_TEST_HANGS";

/// Not a test: what `phantomd` of these tests runs.
#[test]
#[ignore = "started by the other tests of this file"]
fn plays_phantomd() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let result = play(&arguments);
    let code = match &result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("phantomd: {error:#}");
            error.downcast_ref::<StartError>().map_or(1, StartError::exit_code)
        }
    };
    std::process::exit(code.into());
}

fn play(arguments: &str) -> anyhow::Result<()> {
    let options = Cli::parse_from(std::iter::once("phantomd").chain(arguments.lines())).options;
    let ready = startup::init(&options, &Folders::default(), Consent::Nobody, &mut crate::random::system_rng()?)?;
    let setup = startup::prepare(ready, Sockets::default())?;
    service::block_on(service::run(setup, None, async |setup| {
        let hangs = std::env::var_os(HANGS).is_some();
        let daemon = TestDaemon { node_id: setup.node.node_id().to_string(), hangs, ..TestDaemon::default() };
        Ok(Arc::new(daemon) as Arc<dyn Daemon>)
    }))
    .map(drop)
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A shell command that plays the daemon with the script's arguments.
    fn played() -> String {
        let own = std::env::current_exe().unwrap();
        format!(
            "{ARGUMENTS}=$(printf '%s\\n' \"$@\") exec '{}' --exact --ignored --nocapture testnet::tests::plays_phantomd",
            own.display()
        )
    }

    /// An executable that becomes `command`, or the played daemon.
    fn program(&self, command: Option<&str>) -> PathBuf {
        let path = self.dir.path().join("phantomd");
        let played = Self::played();
        fs::write(&path, format!("#!/bin/sh\n{}\n", command.unwrap_or(&played))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn plan(&self, nodes: usize, command: Option<&str>) -> Plan {
        Plan { nodes, dir: self.dir.path().join("net"), phantomd: self.program(command), log: "info".into() }
    }
}

async fn start(plan: &Plan) -> Result<Network, TestnetError> {
    up(plan, &mut crate::random(), &mut |_, _| {}).await
}

#[tokio::test]
async fn a_network_starts_answers_and_leaves_nothing() {
    let place = Place::new();
    let plan = place.plan(3, None);
    let reports = Mutex::new(Vec::new());
    let mut report = |ready: usize, _: &str| reports.lock().unwrap().push(ready);
    let network = up(&plan, &mut crate::random(), &mut report).await.unwrap();
    assert!(reports.lock().unwrap().iter().all(|&ready| ready < 3));
    for (index, node) in network.nodes.iter().enumerate() {
        assert_eq!(node.listen.ip(), Ipv4Addr::new(127, 10 + u8::try_from(index).unwrap(), 0, 1));
        let status = Client::connect(&node.socket).await.unwrap().status().await.unwrap();
        assert_eq!(status.node_id, node.node_id);
        let config = fs::read_to_string(node.data_dir.join("phantomd.toml")).unwrap();
        assert_eq!(config.contains("phantom-peer:"), index > 0, "all others know the first");
    }
    let json = serde_json::to_value(&network).unwrap();
    let fields: Vec<&String> = json["nodes"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["data_dir", "index", "listen", "node_id", "socket"]);

    assert!(matches!(start(&plan).await, Err(TestnetError::Exists(_))));
    assert_eq!(first_dead(&plan.dir), None);
    let state: State = serde_json::from_slice(&fs::read(plan.dir.join(STATE)).unwrap()).unwrap();
    let stopped = state.processes.iter().map(|process| process.pid()).enumerate().collect();
    assert_eq!(down(&plan.dir).unwrap(), Ended { stopped, ..Ended::default() }, "all ended when asked");
    assert!(!plan.dir.exists());
    assert!(Client::connect(&network.nodes[0].socket).await.is_err());
}

#[tokio::test]
async fn a_node_that_dies_while_starting_is_shown_and_all_are_stopped() {
    let place = Place::new();
    let plan = place.plan(2, Some("echo 'no such luck' >&2; exit 7"));
    let error = start(&plan).await.unwrap_err();
    assert!(matches!(&error, TestnetError::Died { index: 0, .. }), "{error}");
    assert!(error.to_string().contains("no such luck") && error.to_string().contains('7'), "{error}");
    assert!(!plan.dir.exists());
}

#[tokio::test]
async fn a_missing_daemon_is_said_and_nothing_is_left() {
    let place = Place::new();
    let dir = place.dir.path().join("some/where/net");
    let plan = Plan { phantomd: place.dir.path().join("none"), dir, ..place.plan(2, None) };
    let error = start(&plan).await.unwrap_err();
    assert!(error.to_string().contains("--phantomd"), "{error}");
    assert!(!place.dir.path().join("some").exists(), "folders in which it was to lie");
}

#[tokio::test]
async fn a_folder_with_other_things_keeps_them() {
    let place = Place::new();
    let plan = place.plan(1, None);
    fs::create_dir(&plan.dir).unwrap();
    fs::write(plan.dir.join("mine"), "precious").unwrap();
    start(&plan).await.unwrap();
    down(&plan.dir).unwrap();
    let left: Vec<_> = fs::read_dir(&plan.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
    assert!(matches!(down(&plan.dir), Err(TestnetError::None(_))));
}

#[tokio::test]
async fn counts_that_cannot_be_are_refused() {
    let place = Place::new();
    for nodes in [0, MAX_NODES + 1] {
        let error = start(&place.plan(nodes, None)).await.unwrap_err();
        assert!(error.to_string().contains("1 to 200"), "{error}");
    }
}

#[tokio::test]
async fn a_second_daemon_on_the_folder_is_refused() {
    let place = Place::new();
    let plan = place.plan(1, None);
    let network = start(&plan).await.unwrap();
    let second = Command::new(&plan.phantomd).arg("--data-dir").arg(&network.nodes[0].data_dir).output().unwrap();
    down(&plan.dir).unwrap();
    assert_eq!(second.status.code(), Some(4));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("already runs") && said.contains("phantom stop"), "{said}");
}

#[tokio::test]
async fn a_killed_node_is_noticed_and_its_place_can_be_used_again() {
    let place = Place::new();
    let plan = place.plan(2, None);
    let network = start(&plan).await.unwrap();
    let state: State = serde_json::from_slice(&fs::read(plan.dir.join(STATE)).unwrap()).unwrap();
    let before = state.processes[1].clone();
    assert_eq!(process::stop(&[before]), 0);
    assert_eq!(first_dead(&plan.dir), Some(1));
    // The socket file and the lock of the dead one are no obstacle.
    let node = &network.nodes[1];
    let arguments = ["--data-dir".as_ref(), node.data_dir.as_os_str()];
    let (again, mut child) = Process::start(&plan.phantomd, &arguments, &node.data_dir.join("log")).unwrap();
    let answer = tokio::time::timeout(READY_TIME, async {
        loop {
            if let Ok(mut client) = Client::connect(&node.socket).await {
                return client.status().await.unwrap();
            }
            sleep(ASK_PAUSE).await;
        }
    });
    assert_eq!(answer.await.unwrap().node_id, node.node_id, "the same node");
    // Whoever stops the network stops this one too, which it did not start.
    let ended = down(&plan.dir).unwrap();
    let is_over = !again.lives();
    // Else this test would wait for it.
    process::stop(std::slice::from_ref(&again));
    assert!(child.wait().unwrap().success() && is_over, "SIGTERM is a clean end");
    let (first, again) = ((0, state.processes[0].pid()), (1, again.pid()));
    let expected = Ended { stopped: vec![first, again], by_hand: vec![again], ..Ended::default() };
    assert_eq!(ended, expected);
    assert!(!plan.dir.exists());
}

#[tokio::test]
async fn a_node_that_was_gone_is_said() {
    let place = Place::new();
    let plan = place.plan(2, None);
    start(&plan).await.unwrap();
    let state: State = serde_json::from_slice(&fs::read(plan.dir.join(STATE)).unwrap()).unwrap();
    assert_eq!(process::stop(&state.processes[..1]), 0);
    assert_eq!(down(&plan.dir).unwrap().gone, [0]);
}

#[tokio::test]
async fn a_node_that_cannot_say_good_bye_ends_all_the_same() {
    let place = Place::new();
    let plan = place.plan(1, Some(&format!("export {HANGS}=1; {}", Place::played())));
    let network = start(&plan).await.unwrap();
    let state: State = serde_json::from_slice(&fs::read(plan.dir.join(STATE)).unwrap()).unwrap();
    assert_eq!(process::stop(&state.processes), 0, "ends by itself, without SIGKILL");
    assert!(!network.nodes[0].socket.exists(), "cleaned up");
    down(&plan.dir).unwrap();
}
