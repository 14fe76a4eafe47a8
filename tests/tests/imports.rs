//! Who may import whom: a level knows only those below it (docs/architecture.md). Levels are the modules at the root of a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, ensure};

/// A folder of sources, and its levels from the ground up; those of one row do not know each other.
type Building = (&'static str, &'static [&'static [&'static str]]);

const PROTOCOL: Building = (
    "daemon/proto/src",
    &[
        &["alive", "chance", "crypto"],
        &["ident"],
        &["wire"],
        &["record", "cell", "session"],
        &["netdb", "path", "terminating", "tunnel"],
        &["command"],
        &["node"],
    ],
);

const DAEMON: Building = (
    "daemon/src",
    &[
        &["advice", "aliases", "children", "far", "netlink", "os", "passed", "service_manager", "successor"],
        &["lines", "listening"],
        &["local", "say", "splice"],
        &["clock", "random", "datadir", "store", "logging", "names", "percent", "gate", "client"],
        &["commands", "link", "identity", "eula", "opened", "path_keys", "resolver"],
        &["config", "netdb", "control"],
        &["args", "bundle", "handover", "relay", "router", "emulation", "loopback", "metrics"],
        &["startup", "driver", "health"],
        &["connections", "service", "testnet"],
        &["assembly", "cli"],
    ],
);

const LAUNCHER: Building = (
    "injector/src",
    &[
        &["reason", "say"],
        &[
            "apart",
            "awaited",
            "control",
            "filter",
            "link",
            "mountinfo",
            "named_folders",
            "options",
            "own_names",
            "place",
            "privileges",
            "proxies",
            "scratch",
            "seccomp",
            "sys",
            "unix_diag",
        ],
        &[
            "activation",
            "crashes",
            "doors",
            "groups",
            "host",
            "kernel_files",
            "likeness",
            "local",
            "notes",
            "preload",
            "publish",
            "stdio",
            "supervise",
            "program_socket",
        ],
        &["deputies", "dispositions", "pathless_socket", "service", "working_folder"],
        &["devices", "secrets", "services", "twins"],
        &["run_folder"],
        &["mounts", "resume"],
        &["anew", "enclose", "isolate", "resolver"],
        &["execute", "exposed", "process"],
        &["ways"],
        &["unix", "windows"],
    ],
);

const HOOK: Building = ("hook/src", &[&["names", "outcome"], &["unix", "windows"]]);

const IPC: Building = (
    "ipc/src",
    &[&["errno", "inside", "name", "pipe", "reach", "release", "text"], &["absent", "publish"], &["admin", "hook"]],
);

/// Roots of programs and libraries know all.
const ROOTS: [&str; 3] = ["main", "lib", "bin"];

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The code of a file, without comments and without the tests, which may step two levels against each other.
fn code(text: &str) -> String {
    let own = text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at]);
    own.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn name(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of a path that begins at the root of the crate, of which braces hold several.
fn heads(text: &str) -> Vec<&str> {
    let Some(group) = text.strip_prefix('{') else { return vec![name(text)] };
    let (mut depth, mut begins, mut found) = (0, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && !letter.is_whitespace() => {
                begins = false;
                found.push(name(&group[at..]));
            }
            _ => {}
        }
    }
    found
}

/// What a file takes from the root of its crate. In a file at the root that is also what it takes from `super`.
fn imports(text: &str, at_root: bool) -> BTreeSet<&str> {
    let from = |prefix: &'static str| text.match_indices(prefix).map(move |(at, _)| &text[at + prefix.len()..]);
    let above = at_root.then(|| from("super::")).into_iter().flatten();
    from("crate::").chain(above).flat_map(heads).collect()
}

/// The levels of a building, with what each imports of the others.
fn arrows(folder: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
    for path in sources(folder)? {
        let within = path.strip_prefix(folder)?.with_extension("");
        let parts: Vec<_> = within.iter().filter_map(|part| part.to_str()).collect();
        let level = *parts.first().context("a file has a name")?;
        if ROOTS.contains(&level) || parts.contains(&"tests") {
            continue;
        }
        let at_root = parts.len() == 1 || parts[1..] == ["mod"];
        let code = code(&fs::read_to_string(&path)?);
        let imports = imports(&code, at_root).into_iter().filter(|import| *import != level).map(str::to_owned);
        arrows.entry(level.to_owned()).or_default().extend(imports);
    }
    // The rest are items of the root itself.
    let levels: BTreeSet<_> = arrows.keys().cloned().collect();
    arrows.values_mut().for_each(|imports| imports.retain(|import| levels.contains(import)));
    Ok(arrows)
}

fn holds((folder, floors): Building) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let floor = |level: &str| floors.iter().position(|floor| floor.contains(&level));
    let arrows = arrows(&root.join(folder))?;
    let gone: Vec<_> = floors.concat().into_iter().filter(|level| !arrows.contains_key(*level)).collect();
    ensure!(gone.is_empty(), "{folder}: the table names levels that are not there: {gone:?}");
    for (level, imports) in arrows {
        let own = floor(&level).with_context(|| format!("{folder}: {level} has no place in the table"))?;
        for import in imports {
            let below = floor(&import).is_some_and(|other| other < own);
            ensure!(below, "{folder}: {level} must not import {import}, which is not below it");
        }
    }
    Ok(())
}

#[test]
fn levels_of_the_protocol_know_only_those_below() -> Result<()> {
    holds(PROTOCOL)
}

#[test]
fn levels_of_the_daemon_know_only_those_below() -> Result<()> {
    holds(DAEMON)
}

#[test]
fn levels_of_launcher_hook_and_ipc_know_only_those_below() -> Result<()> {
    [LAUNCHER, HOOK, IPC].into_iter().try_for_each(holds)
}

/// Files that may name what override commands are or come to. Each does one of four things: says what they are (`command`, `commands`),
/// carries them (`netdb`), shows them (`cli`, `assembly`, `control`), or keeps a ban (`barred`, `banned`, the guards).
const COMMANDS: [&str; 14] = [
    "daemon/proto/src/node/banned.rs",
    "daemon/proto/src/node/mod.rs",
    "daemon/src/assembly/commands.rs",
    "daemon/src/assembly/mod.rs",
    "daemon/src/cli/maintain.rs",
    "daemon/src/commands/file.rs",
    "daemon/src/commands/key_set.rs",
    "daemon/src/commands/words.rs",
    "daemon/src/config/commands.rs",
    "daemon/src/driver/handle.rs",
    "daemon/src/link/barred.rs",
    "daemon/src/netdb/commands.rs",
    "daemon/src/netdb/kademlia/commands.rs",
    "daemon/src/testnet/commands.rs",
];

/// M7: a command can never do anything else. `Bans`, and records to be inserted, are all that a log comes to, and these are the files that
/// see them.
#[test]
fn what_commands_come_to_is_used_by_bans_and_the_database_alone() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut found = BTreeSet::new();
    for folder in ["daemon/src", "daemon/proto/src", "ipc/src", "hook/src", "injector/src"] {
        for path in sources(&root.join(folder))? {
            let within = path.strip_prefix(root)?.to_str().context("a path in UTF-8")?.to_owned();
            let of_tests = within.contains("/tests") || within.starts_with("daemon/proto/src/command/");
            let code = code(&fs::read_to_string(&path)?);
            if !of_tests && (code.contains("phantom_proto::command") || code.contains("crate::command::")) {
                found.insert(within);
            }
        }
    }
    ensure!(
        found == COMMANDS.map(str::to_owned).into(),
        "others use commands now, or some do not any more: {found:#?}"
    );
    Ok(())
}

/// Neither what commands are nor what keeps them can start a program, open a socket, or write anywhere but into the store.
#[test]
fn nothing_that_handles_commands_reaches_the_computer() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let carriers =
        ["daemon/src/netdb/commands.rs", "daemon/src/netdb/kademlia/commands.rs", "daemon/src/link/barred.rs"];
    let mut files = sources(&root.join("daemon/proto/src/command"))?;
    files.extend(carriers.map(|file| root.join(file)));
    files.push(root.join("daemon/proto/src/node/banned.rs"));
    for path in files {
        let code = code(&fs::read_to_string(&path)?);
        for way in [
            "std::process",
            "std::fs",
            "tokio::fs",
            "tokio::process",
            "std::net::Tcp",
            "tokio::net",
            "std::env",
            "libc",
            "rustix",
            "Command::new",
        ] {
            ensure!(!code.contains(way), "{} uses {way}", path.display());
        }
    }
    Ok(())
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::B;\nuse crate::{c, d::{E, f}, g as h};\nfn x() { crate::i() }\nuse super::j;";
    assert_eq!(imports(text, true), BTreeSet::from(["a", "c", "d", "g", "i", "j"]));
    assert!(!imports(text, false).contains("j"));
    assert_eq!(code("use crate::a;\n// crate::b\n#[cfg(test)]\nmod tests {\nuse crate::c;\n}"), "use crate::a;");
}
