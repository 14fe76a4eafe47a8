//! What is read, what is refused, and whether the refusal says where and what to do.

use phantom_proto::command::Kind;

use super::*;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::ApName;
use phantom_proto::wire::NodeContact;

fn folders(root: &Path) -> Folders {
    let home = root.join("home");
    let socket = Some(root.join("run/phantom/daemon.sock"));
    Folders { config: Some(home.join(".config")), state: Some(home.join(".local/state")), socket }
}

fn peer(port: u16) -> Peer {
    Peer(NodeContact {
        identity: VerifyingKey([1; 32]),
        addr: SocketAddr::from(([127, 10, 0, 1], port)),
        link_secret: [2; 32],
    })
}

/// Loads `text` as the file named by `--config`.
fn load(text: &str) -> Result<Config, ConfigError> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("p.toml");
    fs::write(&path, text).unwrap();
    Config::load(&Overrides { config: Some(path), ..Overrides::default() }, &folders(root.path()))
}

fn refusal(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let root = tempfile::tempdir().unwrap();
    let config = Config::load(&Overrides::default(), &folders(root.path())).unwrap();
    assert_eq!(config.listen, DEFAULT_LISTEN);
    assert_eq!(config.data_dir, root.path().join("home/.local/state/phantom"));
    assert_eq!(config.socket, root.path().join("run/phantom/daemon.sock"));
    assert_eq!((config.paths, config.limits), (PathPlan::default(), Limits::default()));
    assert_eq!((config.face, config.peers.len()), (Face::Builtin, 0));
}

#[test]
fn the_socket_lies_where_the_other_programs_look() {
    let var = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".into());
    let folders = Folders { state: Some("/s".into()), ..Folders::from_env(var, 7, |_| true) };
    let config = Config::load(&Overrides::default(), &folders).unwrap();
    assert_eq!(config.socket, Path::new("/run/user/7/phantom/daemon.sock"));
    let own = Overrides { data_dir: Some("/srv/p".into()), ..Overrides::default() };
    assert_eq!(Config::load(&own, &folders).unwrap().socket, Path::new("/srv/p/daemon.sock"));
}

#[test]
fn every_field_is_read() {
    let name = ApName(VerifyingKey([4; 32]));
    let config = load(&format!(
        "listen = '127.0.0.1:443'\nadvertise = '192.0.2.1:443'\ndata_dir = 'data'\nsocket = '/tmp/x.sock'\n\
         peers = ['{}']\nface = {{ proxy = '127.0.0.1:80' }}\nlog = 'debug'\n[aliases]\nweb = '{name}'\n\
         [paths]\nhops = 4\nahead = 2\nentry = 3\nready_tunnels = 9\nhurry = true\n\
         [limits]\nlinks = 100\nrelayed_paths = 5\nrelayed_tunnels = 0\nlink_mib = 7\n",
        peer(1)
    ))
    .unwrap();
    assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"), "relative to the file");
    assert_eq!(config.peers, [peer(1)]);
    assert_eq!(config.face, Face::Proxy("127.0.0.1:80".parse().unwrap()));
    assert_eq!(config.paths, PathPlan { hops: 4, ahead: 2, entry: 3, ready_tunnels: 9, hurry: true });
    assert_eq!(config.limits, Limits { links: 100, relayed_paths: 5, relayed_tunnels: 0, link_mib: 7 });
    assert_eq!(config.aliases[&"web".parse().unwrap()].address(), name.address());
    assert_eq!(config.advertise, Some("192.0.2.1:443".parse().unwrap()));
}

#[test]
fn the_command_line_wins_over_the_file_and_peers_add_up() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("peers"), format!("# mine\n\n  {}\n", peer(2))).unwrap();
    let path = root.path().join(FILE_NAME);
    let text = format!("listen = '127.0.0.1:1'\nlog = 'warn'\npeers = ['{}']\npeers_file = 'peers'", peer(1));
    fs::write(&path, text).unwrap();
    let overrides = Overrides {
        data_dir: Some(root.path().to_owned()),
        listen: Some("127.0.0.1:2".parse().unwrap()),
        peers: vec![peer(3)],
        log: Some("error".into()),
        ..Overrides::default()
    };
    let config = Config::load(&overrides, &folders(root.path())).unwrap();
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.log, "error");
    assert_eq!(config.peers, [peer(1), peer(2), peer(3)]);
}

#[test]
fn unknown_fields_are_named_with_line_and_choices() {
    let text = refusal("log = 'info'\nlisten_on = 'x'");
    assert!(text.contains("p.toml") && text.contains("line 2"), "{text}");
    assert!(text.contains("listen_on") && text.contains("`listen`"), "{text}");
    let text = refusal("[paths]\nhop = 3");
    assert!(text.contains("line 2") && text.contains("`hops`"), "{text}");
}

#[test]
fn wrong_values_are_named_with_line_and_range() {
    for (text, line, says) in [
        ("listen = '8443'", "line 1", "as 0.0.0.0:8443"),
        ("\npeers = ['x']", "line 2", "phantom-peer:"),
        ("[paths]\nhops = 1", "line 2", "between 2 and 4"),
        ("[paths]\nhops = -1", "line 2", "between 2 and 4"),
        ("[limits]\nlinks = 1", "line 2", "between 16 and 65536"),
        ("face = 'mirror'", "line 1", "`builtin`, `folder`, `proxy`"),
        ("[aliases]\n'a.b' = 'fd70::1'", "line 2", "a-z, 0-9"),
        ("[aliases]\nweb = '::1'", "line 2", "AP address"),
        ("listen = ", "line 1", ""),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(line) && refused.contains(says), "{text}: {refused}");
    }
}

#[test]
fn values_that_cannot_work_are_refused() {
    assert!(refusal("advertise = '0.0.0.0:443'").contains("real address"));
    assert!(refusal("log = 'loud'").contains("off, error, warn"));
    assert!(refusal("face = { folder = 'none' }").contains("not a folder"));
    assert!(refusal(&format!("socket = '/{}'", "x".repeat(120))).contains("--socket"));
}

/// `init` leaves what is there as it is.
#[test]
fn a_file_that_is_there_and_cannot_be_read_is_not_to_be_written_by_init() {
    let root = tempfile::tempdir().unwrap();
    let said = |name: &str| {
        let overrides = Overrides { config: Some(root.path().join(name)), ..Overrides::default() };
        Config::load(&overrides, &folders(root.path())).unwrap_err().to_string()
    };
    fs::write(root.path().join("bytes.toml"), b"\xff\xfe\x00").unwrap();
    assert!(said("none.toml").contains("phantomd init"));
    assert!(said("bytes.toml").contains("text in UTF-8") && !said("bytes.toml").contains("phantomd init"));
    assert!(!said("").contains("phantomd init"), "a folder");
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_may_be_missing() {
    let root = tempfile::tempdir().unwrap();
    let config = Some(root.path().join("none.toml"));
    let error = Config::load(&Overrides { config, ..Overrides::default() }, &folders(root.path())).unwrap_err();
    assert!(error.to_string().contains("phantomd init"), "{error}");
}

#[test]
fn a_bad_line_of_the_peers_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("peers"), format!("{}\nnonsense\n", peer(1))).unwrap();
    fs::write(root.path().join(FILE_NAME), "peers_file = 'peers'").unwrap();
    let overrides = Overrides { data_dir: Some(root.path().to_owned()), ..Overrides::default() };
    let error = Config::load(&overrides, &folders(root.path())).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("phantom-peer:"), "{error}");
}

#[test]
fn huge_and_binary_files_are_refused() {
    assert!(refusal(&"#".repeat((1 << 20) + 1)).contains("too many"));
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(FILE_NAME), [0xff, 0xfe, 0]).unwrap();
    let overrides = Overrides { data_dir: Some(root.path().to_owned()), ..Overrides::default() };
    assert!(Config::load(&overrides, &folders(root.path())).is_err());
}

#[test]
fn the_written_template_reads_back_as_the_defaults() {
    let config = load(&template("127.0.0.1:9".parse().unwrap(), &[peer(1), peer(2)])).unwrap();
    assert_eq!(config.listen, "127.0.0.1:9".parse().unwrap());
    assert_eq!(config.peers, [peer(1), peer(2)]);
    let uncommented: String = template(DEFAULT_LISTEN, &[])
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.contains(" = ") || rest.starts_with('[')).unwrap_or(line)
        })
        .filter(|line| !line.contains("peers_file") && !line.contains('…') && !line.contains('{'))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = load(&uncommented).unwrap();
    assert_eq!((config.paths, config.limits), (PathPlan::default(), Limits::default()));
    assert!(config.advertise.is_some(), "commented examples are real");
}

#[test]
fn whose_commands_are_taken_and_what_has_no_effect_is_as_written() {
    let config = load("[commands]\nignore = [\"nodes\", \"insert\"]").unwrap();
    assert_eq!(config.commands.ignored, [Kind::Nodes, Kind::Insert].into());
    assert_eq!(config.commands.keys, crate::commands::compiled_in());
    let error = load("[commands]\nignore = [\"bans\"]").unwrap_err().to_string();
    assert!(error.contains("ranges, nodes, remove, insert"), "{error}");
    let error = load("[commands]\nkeys = \"nowhere.keys\"").unwrap_err().to_string();
    assert!(error.contains("nowhere.keys") && error.contains("public keys"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    fs::write(&good, format!("1 of 1\n{key}\n")).unwrap();
    fs::write(&bad, format!("2 of 1\n{key}\n")).unwrap();
    assert_eq!(load(&format!("[commands]\nkeys = {good:?}")).unwrap().commands.keys.threshold(), 1);
    assert!(load(&format!("[commands]\nkeys = {bad:?}")).unwrap_err().to_string().contains("must sign"));
}

#[test]
fn relative_xdg_variables_are_ignored() {
    let var = |name: &str| match name {
        "HOME" => Some("/home/u".into()),
        "XDG_STATE_HOME" => Some("relative".into()),
        _ => None,
    };
    let folders = Folders::from_env(var, 7, |_| true);
    assert_eq!(folders.data_dir().as_deref(), Some(Path::new("/home/u/.local/state/phantom")));
    assert!(Folders::from_env(|_| None, 7, |_| true).data_dir().is_none());
    let error = Config::load(&Overrides::default(), &Folders::default()).unwrap_err();
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[test]
fn metrics_are_offered_to_this_computer_alone_and_only_where_it_is_said() {
    let of = |listen: &str| toml::from_str::<File>(&format!("[metrics]\nlisten = \"{listen}\"\n"));
    assert_eq!(File::default().metrics.listen, None);
    for (text, at) in [
        ("127.0.0.1:9464", LocalAddress::Tcp("127.0.0.1:9464".parse().unwrap())),
        ("[::1]:1", LocalAddress::Tcp("[::1]:1".parse().unwrap())),
        ("unix:/run/phantom/metrics.sock", LocalAddress::Unix("/run/phantom/metrics.sock".into())),
    ] {
        assert_eq!(of(text).unwrap().metrics.listen, Some(at.clone()));
        assert_eq!(at.to_string(), text);
    }
    for wrong in ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:1", "localhost:9464", "9464", "unix:metrics.sock", ""] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}
