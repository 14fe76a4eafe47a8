//! What a program sees of TCP over Phantom is what it sees of the kernel's: every line of a C program that checks it.
//!
//! The program (`tests/conformance`) runs with both ends on one machine without Phantom, and then over Phantom; the two
//! outputs may differ only where [`EXPLAINED`] says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, Way, stdout};

/// A line that is allowed to differ: its name (or the beginning of it, before `*`), what it says over Phantom, and why.
struct Difference {
    name: &'static str,
    value: &'static str,
    reason: &'static str,
}

/// See `docs/semantics.md`, which tells the same to users.
const EXPLAINED: &[Difference] = &[];

/// Where the far end waits for its control connections.
const PORT: &str = "7000";

/// A machine with one address in each family, and the errors that Phantom's policy means for the rest of the world.
const BARE: &str = "ip link set lo up
ip -6 addr add fd70:6861:6e74::1/128 dev lo nodad
ip addr add 198.18.0.1/32 dev lo
ip -6 route add prohibit 2001:db8::/32
ip route add unreachable 192.0.2.0/24
ip -6 route add unreachable fd70:dead:beef::/48
ip route add unreachable 198.19.0.0/16
exec \"$@\"";

type Lines = BTreeMap<String, String>;

#[test]
fn every_line_is_as_the_kernel_has_it() -> Result<()> {
    let network = Network::shared()?;
    let program = compile(&network.folder("conformance")?)?;
    let program = program.to_str().context("path")?;
    let kernel = lines(&bare(program, "self")?);
    let mut differences = Vec::new();
    for way in Way::ALL {
        let (_server, name) =
            network.serve(way, &format!("conform-{way:?}").to_lowercase(), &[program, "serve", PORT], "ready")?;
        let over = lines(&network.run(way, &[program, "check", &name, PORT])?);
        differences.extend(compare(&format!("{way:?}"), &kernel, &over));
    }
    report(&differences)
}

#[test]
fn connections_within_a_namespace_are_as_the_kernel_has_them() -> Result<()> {
    let network = Network::shared()?;
    let program = compile(&network.folder("conformance-inside")?)?;
    let program = program.to_str().context("path")?;
    let mut differences = Vec::new();
    for host in ["self", "::1,127.0.0.1"] {
        let kernel = lines(&bare(program, host)?);
        for way in Way::ALL {
            let inside = lines(&network.run(way, &[program, "both", host, PORT])?);
            differences.extend(compare(&format!("{way:?} within, {host}"), &kernel, &inside));
        }
    }
    report(&differences)
}

fn report(differences: &[String]) -> Result<()> {
    for difference in differences {
        println!("{difference}");
    }
    ensure!(differences.is_empty(), "{} unexplained differences from the kernel's TCP", differences.len());
    Ok(())
}

fn compile(folder: &Path) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut files: Vec<PathBuf> = std::fs::read_dir(sources)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "c"));
    let program = folder.join("conformance");
    let flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-o"];
    stdout(&Command::new("cc").args(flags).arg(&program).args(files).output()?).context("cc")?;
    Ok(program)
}

/// Both ends over the kernel alone, in a network namespace of their own.
fn bare(program: &str, host: &str) -> Result<String> {
    let command = ["-n", "sh", "-ec", BARE, "sh", program, "both", host, PORT];
    stdout(&Command::new("unshare").args(command).output()?).context("without Phantom")
}

/// Lines by name; a name that comes again is numbered.
fn lines(text: &str) -> Lines {
    let mut found = Lines::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('\t')) {
        let mut unique = name.to_owned();
        for number in 2.. {
            if !found.contains_key(&unique) {
                break;
            }
            unique = format!("{name}.{number}");
        }
        found.insert(unique, value.to_owned());
    }
    found
}

/// What differs and is not explained, and what is explained and does not differ in any line.
fn compare(run: &str, kernel: &Lines, phantom: &Lines) -> Vec<String> {
    let mut names: Vec<&String> = kernel.keys().chain(phantom.keys()).collect();
    names.sort();
    names.dedup();
    let differs = |name: &&String| kernel.get(*name) != phantom.get(*name);
    let show = |value: Option<&String>| value.map_or("(nothing)".to_owned(), String::clone);
    let mut unexplained = Vec::new();
    for name in names.into_iter().filter(differs) {
        let (wanted, got) = (show(kernel.get(name)), show(phantom.get(name)));
        match EXPLAINED.iter().find(|known| known.is(name) && known.value == got) {
            Some(known) => println!("{run}: {name}: {got}, not {wanted}: {}", known.reason),
            None => unexplained.push(format!("{run}: {name}: {got} instead of {wanted}")),
        }
    }
    unexplained
}

impl Difference {
    fn is(&self, name: &str) -> bool {
        self.name.strip_suffix('*').map_or(self.name == name, |start| name.starts_with(start))
    }
}
