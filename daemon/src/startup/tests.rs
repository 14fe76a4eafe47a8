//! First starts, second starts, and everything that may be wrong before a node says its first byte.

use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use std::fs;
use std::path::Path;

fn options(dir: &Path) -> Options {
    Options {
        config: None,
        resolver: None,
        command_keys: None,
        hurry: false,
        leave_router: false,
        data_dir: Some(dir.join("data")),
        socket: None,
        listen: Some("127.0.0.1:0".parse().unwrap()),
        peers: Vec::new(),
        log: None,
        accept_eula: false,
    }
}

fn first_start(options: &Options) -> Result<Initialized, StartError> {
    init(options, &Folders::default(), Consent::Given, &mut ChaCha20Rng::seed_from_u64(1))
}

#[test]
fn init_makes_identity_and_configuration_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = first_start(&options(dir.path())).unwrap();
    let file = dir.path().join("data/phantomd.toml");
    assert_eq!(first.written.as_deref(), Some(file.as_path()));
    let id = first.node.node_id();
    drop(first);
    fs::write(&file, "listen = '127.0.0.1:7'\n# mine\n").unwrap();
    let mut again = options(dir.path());
    again.listen = None;
    let second = init(&again, &Folders::default(), Consent::Nobody, &mut ChaCha20Rng::seed_from_u64(2)).unwrap();
    assert_eq!((second.node.node_id(), second.written), (id, None));
    assert_eq!(second.config.listen.port(), 7, "the file was left alone and is read");
}

#[test]
fn init_writes_the_file_that_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = Some(dir.path().join("etc/my.toml"));
    let made = first_start(&Options { config: config.clone(), ..options(dir.path()) }).unwrap();
    assert_eq!(made.written, config);
}

#[test]
fn without_consent_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let refused = init(&options(dir.path()), &Folders::default(), Consent::Nobody, &mut ChaCha20Rng::seed_from_u64(1));
    let error = refused.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("--accept-eula"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no folder, no lock");
}

#[test]
fn a_place_where_no_configuration_can_be_is_said_with_the_option_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let config = Some(dir.path().join("file/my.toml"));
    let error = first_start(&Options { config, ..options(dir.path()) }).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("file/my.toml") && said.contains("\n  ") && !said.contains("--data-dir"), "{said}");
}

#[test]
fn a_damaged_key_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    drop(first_start(&options(dir.path())).unwrap());
    let key = dir.path().join("data/node.key");
    write_private(&key, b"not a key\n").unwrap();
    let error = first_start(&options(dir.path())).unwrap_err().to_string();
    assert!(error.contains("node.key is damaged"), "{error}");
    assert_eq!(fs::read(&key).unwrap(), b"not a key\n");
    drop(fs::remove_file(dir.path().join("data/link.secret")));
    write_private(&key, format!("{}\n", "ab".repeat(32)).as_bytes()).unwrap();
    let error = first_start(&options(dir.path())).unwrap_err().to_string();
    assert!(error.contains("link.secret is damaged: it is missing"), "{error}");
}

#[test]
fn an_interrupted_first_start_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    drop(first_start(&options(dir.path())).unwrap());
    fs::remove_file(dir.path().join("data/node.key")).unwrap();
    first_start(&options(dir.path())).expect("a new key");
}

#[test]
fn a_port_in_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = Some(taken.local_addr().unwrap());
    let ready = first_start(&Options { listen, ..options(dir.path()) }).unwrap();
    let error = prepare(ready, Sockets::default()).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[test]
fn a_foreign_address_is_said() {
    let dir = tempfile::tempdir().unwrap();
    // An address of documentation: no computer has it.
    let listen = Some("192.0.2.77:1".parse().unwrap());
    let ready = first_start(&Options { listen, ..options(dir.path()) }).unwrap();
    let error = prepare(ready, Sockets::default()).unwrap_err().to_string();
    assert!(error.contains("no network device"), "{error}");
}

#[test]
fn a_corrupt_store_is_said_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ready = first_start(&options(dir.path())).unwrap();
    let store = dir.path().join("data").join(STORE);
    write_private(&store, &[0x55; 5000]).unwrap();
    let error = prepare(ready, Sockets::default()).unwrap_err().to_string();
    assert!(error.contains("store.redb") && error.contains("restore"), "{error}");
    assert_eq!(fs::read(&store).unwrap(), [0x55; 5000]);
}

#[test]
fn a_prepared_node_knows_its_contact() {
    let dir = tempfile::tempdir().unwrap();
    let setup = prepare(first_start(&options(dir.path())).unwrap(), Sockets::default()).unwrap();
    assert_eq!(setup.contact.addr, setup.listener.local_addr().unwrap());
    assert_eq!(setup.contact.node_id(), setup.node.node_id());
    let file = dir.path().join("data/phantomd.toml");
    fs::write(&file, "advertise = '192.0.2.5:443'").unwrap();
    drop(setup);
    let setup = prepare(first_start(&options(dir.path())).unwrap(), Sockets::default()).unwrap();
    assert_eq!(setup.contact.addr, "192.0.2.5:443".parse().unwrap());
}

#[test]
fn a_node_bound_to_every_address_tells_a_real_one() {
    let told = reachable("0.0.0.0:5".parse().unwrap(), &[]);
    assert!(!told.ip().is_unspecified());
    assert_eq!(told.port(), 5);
}

#[test]
fn an_implausible_clock_is_said() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    for seconds in [0, PLAUSIBLE.start - 1, PLAUSIBLE.end] {
        assert!(matches!(check_clock(at(seconds)), Err(StartError::Clock(_))), "{seconds}");
    }
    let none = check_clock(UNIX_EPOCH - Duration::from_secs(1)).unwrap_err();
    assert!(matches!(none, StartError::Clock(0)) && none.to_string().contains("Thu, 01 Jan 1970"), "{none}");
    check_clock(at(PLAUSIBLE.start)).unwrap();
}
