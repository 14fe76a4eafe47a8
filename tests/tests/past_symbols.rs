//! Ways past a preloaded library to libc's own functions: which are shut, which are open to the library alone, and that none is
//! under phantom-run. docs/threat-model.md lists them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::prepare;
use phantom_tests::{Alone, Kind, Way, binary, stdout};

/// The library sees to these itself.
const SHUT: [&str; 6] = ["symbol", "default", "next", "deepbind", "dlmopen", "syscall"];

/// Nothing that is in the process can shut these.
const OPEN: [&str; 4] = ["handle", "version", "table", "instruction"];

struct Victim {
    program: String,
    plug: String,
    audit: String,
}

impl Victim {
    fn new(alone: &Alone) -> Result<Self> {
        let source = format!("{}/victims/past.c", env!("CARGO_MANIFEST_DIR"));
        let built = |name: &str, options: &[&str]| -> Result<String> {
            let path = alone.folder.at(name);
            prepare(Command::new("cc").args(["-O1", "-Wall", "-o", &path, &source]).args(options))?;
            Ok(path)
        };
        let library = ["-shared", "-fPIC"];
        Ok(Self {
            program: built("past", &["-ldl"])?,
            plug: built("plug.so", &[&library[..], &["-DPLUG"]].concat())?,
            audit: built("audit.so", &[&library[..], &["-DAUDIT"]].concat())?,
        })
    }
}

/// A program with the library and nothing else.
fn library_alone(alone: &Alone, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LD_PRELOAD", binary("libphantom.so"));
    command.env("PHANTOM_SOCKET", alone.socket(Kind::Root));
    command
}

#[test]
fn each_way_past_symbols_is_shut_or_listed() -> Result<()> {
    let alone = Alone::shared()?;
    let Victim { program, plug, audit } = Victim::new(&alone)?;
    for way in SHUT.into_iter().chain(OPEN) {
        let said = stdout(&library_alone(&alone, &[&program, way, &plug]).output()?)?;
        let expected = if SHUT.contains(&way) { "hooked" } else { "computer's" };
        ensure!(said == format!("{way} {expected}\n"), "the library alone: {said}");
    }
    // The loader's own companions have a libc of their own.
    let said = stdout(&library_alone(&alone, &[&program, "symbol"]).env("LD_AUDIT", &audit).output()?)?;
    ensure!(said == "audit computer's\nsymbol hooked\n", "the library alone: {said}");
    alone.everywhere(|kind, isolation| {
        let is_hooked = [Way::Preload, Way::Emulate].contains(&isolation);
        for way in SHUT.into_iter().chain(OPEN) {
            let said = stdout(&alone.run(kind, isolation, &[&program, way, &plug]).output()?)?;
            // Where the program lives in the phantom namespace, it is its own.
            let expected = match isolation {
                Way::Namespace => "computer's",
                _ if is_hooked && OPEN.contains(&way) => "EAFNOSUPPORT",
                _ => "hooked",
            };
            ensure!(said == format!("{way} {expected}\n"), "{said}");
        }
        if is_hooked {
            let mut command = alone.run(kind, isolation, &["env", &format!("LD_AUDIT={audit}"), &program, "symbol"]);
            let said = stdout(&command.output()?)?;
            ensure!(said == "audit EAFNOSUPPORT\nsymbol hooked\n", "{said}");
        }
        Ok(())
    })
}

/// For programs that become somebody else by their file's mode the loader ignores LD_PRELOAD; under phantom-run they become
/// nobody else.
#[test]
fn programs_that_gain_rights_leave_the_library_behind_and_gain_none_under_phantom_run() -> Result<()> {
    let alone = Alone::shared()?;
    let Victim { program, .. } = Victim::new(&alone)?;
    let gains = alone.folder.at("gains");
    prepare(Command::new("cp").args([&program, &gains]))?;
    std::fs::set_permissions(&gains, Permissions::from_mode(0o4755))?;
    let library = alone.tool(Kind::Own, "libphantom.so");
    let library =
        library.get_args().find_map(|word| word.to_str().filter(|word| word.ends_with(".so"))).context("library")?;
    let mut command = alone.command(Kind::Own, "env");
    command.arg(format!("LD_PRELOAD={library}")).arg("PHANTOM_SOCKET=/nowhere").args([&gains, "symbol"]);
    let said = stdout(&command.output()?)?;
    ensure!(said == "symbol computer's\n", "the library alone: {said}");
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Way::Preload, Way::Emulate] {
            let said = stdout(&alone.run(kind, way, &[&gains, "symbol"]).output()?)?;
            ensure!(said == "symbol hooked\n", "{kind:?} by {way:?}: {said}");
        }
    }
    Ok(())
}
