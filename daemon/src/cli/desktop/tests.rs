//! Entries of made-up programs, in folders of the test's own.

use super::*;

const FIREFOX: &str = "\
[Desktop Entry]
Name=Firefox
Name[de]=Feuerfuchs
TryExec=firefox
Exec=/usr/lib/firefox/firefox %u
MimeType=text/html;x-scheme-handler/https;
DBusActivatable=true
Actions=new-window;
Icon=firefox

[Desktop Action new-window]
Name=New Window
Exec=/usr/lib/firefox/firefox --new-window %u
";

/// What is installed, and where entries of ours go.
fn installed(entries: &[(&str, &str)]) -> (tempfile::TempDir, Folders) {
    let dir = tempfile::tempdir().unwrap();
    let folders =
        Folders { own: dir.path().join("own"), system: vec![dir.path().join("none"), dir.path().join("system")] };
    fs::create_dir_all(dir.path().join("system/applications")).unwrap();
    for (name, text) in entries {
        fs::write(dir.path().join(format!("system/applications/{name}.desktop")), text).unwrap();
    }
    (dir, folders)
}

fn made(folders: &Folders, program: &str) -> String {
    fs::read_to_string(folders.entries().join(format!("phantom-{program}.desktop"))).unwrap()
}

#[test]
fn every_command_of_an_entry_is_wrapped_and_nothing_else_starts_the_program() {
    let (_dir, folders) = installed(&[("firefox", FIREFOX)]);
    add(&folders, "firefox", Some("web"), Path::new("/usr/bin/phantom-run")).unwrap();
    let profile = folders.own.join("phantom/profiles/firefox");
    let start = "Exec=/usr/bin/phantom-run --quiet --identity web -- /usr/lib/firefox/firefox";
    let expected = format!(
        "[Desktop Entry]\nTryExec=/usr/bin/phantom-run\nX-Phantom-From=firefox.desktop\nName=Firefox over Phantom\n\
         Name[de]=Feuerfuchs over Phantom\n{start} --new-instance --profile {0} %u\nActions=new-window;\nIcon=firefox\n\n\
         [Desktop Action new-window]\nName=New Window over Phantom\n{start} --new-instance --profile {0} --new-window %u\n",
        profile.display()
    );
    assert_eq!(made(&folders, "firefox"), expected);
    assert!(profile.is_dir(), "a browser needs its profile's folder");
}

#[test]
fn commands_keep_their_words() {
    let wrap =
        Wrap { launcher: Path::new("/opt/my tools/phantom-run"), identity: None, profile: Path::new("/home/a b/100%") };
    let start = "\"/opt/my tools/phantom-run\" --quiet --";
    for (command, expected, browser) in [
        ("gimp-2.10 %U", format!("{start} gimp-2.10 %U"), false),
        ("sh -c \"exec a 'b c' %f\"", format!("{start} sh -c \"exec a 'b c' %f\""), false),
        (
            "env GDK_BACKEND=x11 \"/opt/my apps/chromium\" --x %U",
            format!("{start} env GDK_BACKEND=x11 \"/opt/my apps/chromium\" \"--user-data-dir=/home/a b/100%%\" --x %U"),
            true,
        ),
        ("editor %f chromium", format!("{start} editor %f chromium"), false),
    ] {
        assert_eq!(wrap.command(command).unwrap(), (expected, browser));
    }
    assert!(quoted(Path::new("/a\"b")).is_err(), "no quoting that desktops read differently");
}

#[test]
fn entries_are_listed_and_removed_and_those_of_others_are_not() {
    let (_dir, folders) = installed(&[("mail", "[Desktop Entry]\nName=Mail\nExec=mail\n")]);
    add(&folders, "mail", None, Path::new("/usr/bin/phantom-run")).unwrap();
    let foreign = folders.entries().join("phantom-opera.desktop");
    fs::write(&foreign, "[Desktop Entry]\nName=The phantom of the opera\nExec=opera\n").unwrap();
    assert_eq!(list(&folders), ["mail"]);
    assert!(remove(&folders, "opera").is_err() && foreign.exists());
    remove(&folders, "mail").unwrap();
    assert!(list(&folders).is_empty());
}

#[test]
fn what_is_not_installed_is_refused_with_what_is() {
    let (_dir, folders) =
        installed(&[("firefox-esr", FIREFOX), ("folder", "[Desktop Entry]\nType=Directory\nName=x\n")]);
    let add = |program| add(&folders, program, None, Path::new("/usr/bin/phantom-run")).unwrap_err().to_string();
    assert!(add("firefox").contains("did you mean: firefox-esr"));
    assert!(add("emacs").contains("no emacs.desktop is installed"));
    assert!(add("folder").contains("starts no program"));
}
