use super::*;

fn twin(outer: &Path) -> Twin {
    Twin::make(outer, vec![outer.join("deputy.sock"), outer.join("deputies/one")]).expect("a twin")
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn what_is_done_on_one_side_is_done_on_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let outer = dir.path();
    for name in ["kept", "gone-inside", "gone-outside", "new-inside", "new-outside", "deputy.sock"] {
        fs::write(outer.join(name), "old").expect("a file");
    }
    let mut twin = twin(outer);
    let own = twin.own.clone();
    assert_eq!(read(own.join("kept")), "old");
    fs::remove_file(own.join("gone-inside")).expect("removed");
    fs::remove_file(outer.join("gone-outside")).expect("removed");
    for (side, name) in [(&*own, "new-inside"), (outer, "new-outside")] {
        fs::write(side.join("between"), "new").expect("a file");
        fs::rename(side.join("between"), side.join(name)).expect("replaced");
    }
    fs::write(own.join("made-inside"), "inside").expect("a file");
    fs::write(outer.join("made-outside"), "outside").expect("a file");
    twin.catch_up(None);
    for side in [outer, &own] {
        for (name, text) in [("kept", "old"), ("new-inside", "new"), ("new-outside", "new")] {
            assert_eq!(read(side.join(name)), text, "{name}");
        }
        assert_eq!(read(side.join("made-inside")), "inside");
        assert_eq!(read(side.join("made-outside")), "outside");
        assert!(!side.join("gone-inside").exists() && !side.join("gone-outside").exists());
    }
}

#[test]
fn deputies_are_never_brought() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut twin = twin(dir.path());
    fs::write(dir.path().join("deputy.sock"), "").expect("a file");
    // Nor is what the program has in such a place.
    fs::create_dir(twin.own.join("deputies")).expect("a folder");
    twin.catch_up(None);
    assert!(!twin.own.join("deputy.sock").exists());
    assert!(!dir.path().join("deputies").exists());
}

#[test]
fn folders_that_the_program_makes_are_the_systems_at_the_end_or_after_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let outer = dir.path();
    for number in 0..2 {
        let mut twin = twin(outer);
        let (app, own) = (outer.join(format!("app-{number}")), twin.own.clone());
        fs::create_dir(own.join(app.file_name().expect("a name"))).expect("a folder");
        twin.catch_up(None);
        fs::write(app.join("in"), "text").expect("a file");
        assert!(app.is_symlink());
        if number == 0 {
            twin.end();
            assert!(!app.is_symlink() && !own.exists());
        } else {
            // Its keeper is killed, and another comes.
            drop(twin);
            let _next = self::twin(outer);
            assert!(!app.is_symlink());
        }
        assert_eq!(read(app.join("in")), "text");
    }
}

#[test]
fn folders_of_another_run_are_folders() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut first = twin(dir.path());
    fs::create_dir(first.own.join("app")).expect("a folder");
    first.catch_up(None);
    let mut second = twin(dir.path());
    assert!(second.mounted.contains_key(OsStr::new("app")) && !second.own.join("app").is_symlink());
    // Whoever lays the second one there has mounted it, and it is still the same.
    fs::create_dir(second.own.join("app")).expect("a folder");
    first.end();
    second.catch_up(None);
    assert!(dir.path().join("app").is_dir() && second.own.join("app").is_dir());
    fs::remove_dir(dir.path().join("app")).expect("removed");
    second.catch_up(None);
    assert!(!second.own.join("app").exists());
}

#[test]
fn nobody_else_decides_what_is_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("a mode");
    assert!(Twin::make(dir.path(), Vec::new()).is_err());
    // Nor is one taken away that lives.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("a mode");
    let first = twin(dir.path());
    let second = twin(dir.path());
    assert!(first.own.is_dir() && first.own != second.own);
}

#[test]
fn a_folder_that_is_being_made_is_nobody_elses() {
    let dir = tempfile::tempdir().expect("a folder");
    // As if under a umask of 0, which other threads of this test must not get.
    let path = dir.path().join("made");
    create_private(&path).expect("made");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
    let (own, _held) = fresh(dir.path()).expect("made");
    assert_eq!(fs::metadata(own).expect("it is there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn links_that_programs_make_are_links() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = twin(dir.path());
    fs::create_dir_all(first.own.join("app/below")).expect("a folder");
    symlink("/", first.own.join("root")).expect("a link");
    let leads =
        [dir.path().join(PLACE).join(".."), first.own.join("app/below"), first.own.join("root"), first.own.clone()];
    for (number, to) in leads.iter().enumerate() {
        let name = number.to_string();
        symlink(to, dir.path().join(&name)).expect("a link");
        let found = about(&open_in(dir.path(), OsStr::new(&name)).expect("it is there")).expect("it is open");
        assert!(found.is_symlink() && dir.path().join(&name).is_dir(), "{}", to.display());
    }
    symlink(first.own.join("app"), dir.path().join("app")).expect("a link");
    let made = about(&open_in(dir.path(), OsStr::new("app")).expect("it is there")).expect("it is open");
    assert_eq!(id(&made), id(&fs::metadata(first.own.join("app")).expect("a folder")));
}
