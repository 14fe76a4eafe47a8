//! Units of made-up services, below a folder of the test's own.

use super::*;

const NGINX: &str = "\
[Unit]
Description=a server
After=network.target
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStartPre=/usr/sbin/nginx -t \\
  -q
ExecStart=/usr/sbin/nginx -g 'daemon on;'
# ExecStart=/bin/false
ExecStop=-/sbin/start-stop-daemon --stop
[Install]
WantedBy=multi-user.target
";

fn computer(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files.iter().chain(&[("usr/lib/systemd/system/phantomd.service", "")]) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn options(unit: &str, identity: Option<&str>) -> UnitOptions {
    UnitOptions { unit: unit.to_owned(), identity: identity.map(str::to_owned), publish: vec!["80".to_owned()] }
}

const LAUNCHER: &str = "/usr/bin/phantom-run";

fn added(root: &Path, unit: &str, identity: Option<&str>) -> Result<String> {
    add(root, &options(unit, identity), Path::new(LAUNCHER), None)?;
    Ok(fs::read_to_string(drop_in(root, &full(unit)))?)
}

#[test]
fn every_command_of_a_unit_is_wrapped() {
    let root = computer(&[("usr/lib/systemd/system/nginx.service", NGINX)]);
    let text = added(root.path(), "nginx", Some("web")).unwrap();
    let settings = text.split_once("[Service]\n").unwrap().1;
    assert_eq!(
        settings,
        "ExecStartPre=\n\
         ExecStartPre=/usr/bin/phantom-run --quiet --identity web -- /usr/sbin/nginx -t  -q\nExecStart=\n\
         ExecStart=/usr/bin/phantom-run --quiet --identity web --publish 80 --on-daemon-loss exit -- /usr/sbin/nginx -g \
         'daemon on;'\nExecStop=\nExecStop=-/usr/bin/phantom-run --quiet --identity web -- /sbin/start-stop-daemon --stop\n"
    );
    assert_eq!(list(root.path()), ["nginx.service"]);
    // Made anew, it wraps what the unit says and not what it wrapped before.
    assert_eq!(added(root.path(), "nginx", Some("web")).unwrap(), text);
    remove(root.path(), "nginx.service").unwrap();
    assert!(list(root.path()).is_empty());
    let error = remove(root.path(), "nginx.service").unwrap_err().to_string();
    assert!(error.contains("phantom unit list"), "{error}");
}

#[test]
fn who_publishes_nothing_is_told_that_nobody_reaches_it() {
    let root = computer(&[("usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D\n")]);
    let said = |publish: &[&str]| {
        let publish = publish.iter().map(|ports| (*ports).to_owned()).collect();
        add(root.path(), &UnitOptions { publish, ..options("ssh", None) }, Path::new(LAUNCHER), None).unwrap()
    };
    let mind = said(&[]);
    assert!(mind.contains("others reach nothing of it") && mind.contains("unit add ssh --publish"), "{mind}");
    assert!(mind.ends_with("next: systemctl daemon-reload && systemctl restart ssh.service\n"), "{mind}");
    assert!(!said(&["22"]).contains("mind"));
}

#[test]
fn what_other_drop_ins_say_counts() {
    let root = computer(&[
        ("usr/lib/systemd/system/a.service", "[Service]\nType=notify\nExecStart=/bin/a\n"),
        ("usr/lib/systemd/system/a.service.d/10.conf", "[Service]\nExecStart=\nExecStart=/bin/hidden\n"),
        ("etc/systemd/system/a.service.d/10.conf", "[Service]\nExecStart=\nExecStart=+/bin/b\n"),
    ]);
    let text = added(root.path(), "a.service", None).unwrap();
    assert!(
        text.contains("ExecStart=+/usr/bin/phantom-run --quiet --publish 80 --on-daemon-loss exit -- /bin/b\n"),
        "{text}"
    );
    assert!(text.contains("NotifyAccess=all\n") && !text.contains("/bin/a") && !text.contains("hidden"), "{text}");
}

#[test]
fn an_instance_is_made_of_its_template() {
    let root = computer(&[("lib/systemd/system/a@.service", "[Service]\nExecStart=/bin/a %i\n")]);
    assert!(added(root.path(), "a@x", None).unwrap().contains(" -- /bin/a %i\n"));
}

#[test]
fn units_that_cannot_be_wrapped_are_refused() {
    let root = computer(&[
        ("lib/systemd/system/named.service", "[Service]\nExecStart=@/bin/a b\n"),
        ("lib/systemd/system/two.service", "[Service]\nExecStart=/bin/a ; /bin/b\n"),
        ("lib/systemd/system/nobody.service", "[Service]\nUser=nobody\nExecStart=/bin/a\n"),
        ("lib/systemd/system/dynamic.service", "[Service]\nDynamicUser=yes\nExecStart=/bin/a\n"),
        ("lib/systemd/system/none.service", "[Service]\nUser=root\n"),
    ]);
    for (unit, says) in [
        ("named", "a name of its own"),
        ("two", "several commands"),
        ("nobody", "no one in particular"),
        ("dynamic", "no one in particular"),
        ("none", "starts nothing"),
        ("gone", "no unit gone.service"),
        ("a.socket", "is no service"),
        ("phantomd", "over itself"),
    ] {
        let error = added(root.path(), unit, Some("web")).unwrap_err().to_string();
        assert!(error.contains(says), "{unit}: {error}");
        assert!(!drop_in(root.path(), &full(unit)).exists());
    }
    assert!(added(root.path(), "dynamic", None).is_ok(), "a fresh identity is everybody's");
    let at_a_name = UnitOptions { publish: vec!["80:web".to_owned()], ..options("dynamic", None) };
    assert!(
        add(root.path(), &at_a_name, Path::new(LAUNCHER), None).is_err(),
        "the next to have its number would be reached there"
    );
}

#[test]
fn a_unit_of_another_user_needs_that_users_name() {
    let root = computer(&[
        ("lib/systemd/system/user.service", "[Service]\nUser=www-data\nExecStart=/bin/a\n"),
        ("lib/systemd/system/root.service", "[Service]\nUser=root\nExecStart=/bin/a\n"),
    ]);
    let said = |unit, identity| add(root.path(), &options(unit, identity), Path::new(LAUNCHER), None).unwrap();
    let mind = said("user", Some("web"));
    assert!(
        mind.contains("setpriv --reuid www-data --regid www-data --clear-groups phantom identity new web"),
        "{mind}"
    );
    assert!(!said("user", None).contains("mind"));
    assert!(said("root", Some("web")).contains("mind: no daemon says now whether there is an identity web"));
    // Root's own are known, where the daemon says them.
    let known = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        add(root.path(), &options("root", Some("web")), Path::new(LAUNCHER), Some(&names)).unwrap()
    };
    assert!(known(&["mail"]).contains("mind: there is no identity web yet: phantom identity new web"));
    assert!(!known(&["mail", "web"]).contains("mind"));
}

#[test]
fn where_the_daemon_is_no_service_nothing_is_bound_to_it() {
    let root = computer(&[("lib/systemd/system/a.service", "[Service]\nExecStart=/bin/a\n")]);
    fs::remove_file(root.path().join("usr/lib/systemd/system/phantomd.service")).unwrap();
    let error = added(root.path(), "a", None).unwrap_err().to_string();
    assert!(error.contains("no phantomd.service") && !drop_in(root.path(), "a.service").exists(), "{error}");
}

#[test]
fn a_launcher_of_an_odd_path_is_one_word() {
    for (path, word) in [("/a/b-c", "/a/b-c"), ("/my programs/50%", "\"/my programs/50%%\""), ("/50%", "/50%%")] {
        assert_eq!(quoted(Path::new(path)).unwrap(), word);
    }
    for odd in ["/a\"b", "/a\\b", "/$HOME/b", "/a\nb"] {
        assert!(quoted(Path::new(odd)).is_err(), "{odd:?}");
    }
}
