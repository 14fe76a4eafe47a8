//! Ways past a preloaded library to libc's own functions: which are shut, which are open to the library alone, and that none is
//! under phantom-run. docs/threat-model.md lists them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, prepare};
use phantom_tests::{Alone, Kind, Way, binary, stdout};

/// The library sees to these itself.
const SHUT: [&str; 6] = ["symbol", "default", "next", "deepbind", "dlmopen", "syscall"];

/// Nothing that is in the process can shut these.
const OPEN: [&str; 4] = ["handle", "version", "table", "instruction"];

/// The victim's program, or what is loaded by it, in a folder of the test's own: the linker takes away what another test runs.
fn built(folder: &Folder, name: &str, options: &[&str]) -> Result<String> {
    let (path, source) = (folder.at(name), format!("{}/victims/past.c", env!("CARGO_MANIFEST_DIR")));
    prepare(Command::new("cc").args(["-O1", "-Wall", "-o", &path, &source]).args(options))?;
    Ok(path)
}

/// A program with the library and nothing else.
fn library_alone(alone: &Alone, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LD_PRELOAD", binary("libphantom.so"));
    command.env("PHANTOM_SOCKET", alone.socket(Kind::Root));
    command
}

/// A victim says what it should, and nothing else; whatever it says instead is told, with who it was.
fn says(command: &mut Command, who: &str, expected: &str) -> Result<()> {
    let output = command.output().with_context(|| who.to_owned())?;
    let said = stdout(&output).with_context(|| who.to_owned())?;
    let besides = String::from_utf8_lossy(&output.stderr);
    ensure!(said == expected, "{who}: {said:?} instead of {expected:?}; besides: {besides:?}");
    Ok(())
}

#[test]
fn each_way_past_symbols_is_shut_or_listed() -> Result<()> {
    let (alone, folder) = (Alone::shared()?, Folder::new()?);
    let program = built(&folder, "past", &["-ldl"])?;
    let plug = built(&folder, "plug.so", &["-shared", "-fPIC", "-DPLUG"])?;
    let audit = built(&folder, "audit.so", &["-shared", "-fPIC", "-DAUDIT"])?;
    for way in SHUT.into_iter().chain(OPEN) {
        let expected = if SHUT.contains(&way) { "hooked" } else { "computer's" };
        let mut command = library_alone(&alone, &[&program, way, &plug]);
        says(&mut command, &format!("{way} by the library alone"), &format!("{way} {expected}\n"))?;
    }
    // The loader's own companions have a libc of their own.
    let mut command = library_alone(&alone, &[&program, "symbol"]);
    command.env("LD_AUDIT", &audit);
    says(&mut command, "LD_AUDIT by the library alone", "audit computer's\nsymbol hooked\n")?;
    alone.everywhere(|kind, isolation| {
        let is_hooked = [Way::Preload, Way::Emulate].contains(&isolation);
        for way in SHUT.into_iter().chain(OPEN) {
            // Where the program lives in the phantom namespace, it is its own.
            let expected = match isolation {
                Way::Namespace => "computer's",
                _ if is_hooked && OPEN.contains(&way) => "EAFNOSUPPORT",
                _ => "hooked",
            };
            let mut command = alone.run(kind, isolation, &[&program, way, &plug]);
            says(&mut command, &format!("{way}, {kind:?} by {isolation:?}"), &format!("{way} {expected}\n"))?;
        }
        if is_hooked {
            let mut command = alone.run(kind, isolation, &["env", &format!("LD_AUDIT={audit}"), &program, "symbol"]);
            let who = format!("LD_AUDIT, {kind:?} by {isolation:?}");
            says(&mut command, &who, "audit EAFNOSUPPORT\nsymbol hooked\n")?;
        }
        Ok(())
    })
}

/// For programs that become somebody else by their file's mode the loader ignores LD_PRELOAD; under phantom-run they become
/// nobody else.
#[test]
fn programs_that_gain_rights_leave_the_library_behind_and_gain_none_under_phantom_run() -> Result<()> {
    let (alone, folder) = (Alone::shared()?, Folder::new()?);
    let gains = built(&folder, "gains", &["-ldl"])?;
    std::fs::set_permissions(&gains, Permissions::from_mode(0o4755))?;
    let library = alone.tool(Kind::Own, "libphantom.so");
    let library =
        library.get_args().find_map(|word| word.to_str().filter(|word| word.ends_with(".so"))).context("library")?;
    let mut command = alone.command(Kind::Own, "env");
    command.arg(format!("LD_PRELOAD={library}")).arg("PHANTOM_SOCKET=/nowhere").args([&gains, "symbol"]);
    says(&mut command, "the library alone", "symbol computer's\n")?;
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Way::Preload, Way::Emulate] {
            says(&mut alone.run(kind, way, &[&gains, "symbol"]), &format!("{kind:?} by {way:?}"), "symbol hooked\n")?;
        }
    }
    Ok(())
}
