//! What a program sees of TCP over Phantom is what it sees of the kernel's: every line of a C program that checks it.
//!
//! The program (`tests/conformance`) runs with both ends on one machine without Phantom, and then over Phantom; the two
//! outputs may differ only where [`EXPLAINED`] says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, Way, stdout};

/// A line that is allowed to differ: its name, what it says over Phantom, and why.
struct Difference {
    name: &'static str,
    value: &'static str,
    reason: &'static str,
}

const IN_LINE: &str = "urgent bytes go in line with the rest: a session carries one stream";
const OTHER_FAMILY: &str = "an address has no family: a program that listens in one is reached by clients of the other";
const ONE_VIEW: &str = "the IPv4 view is each machine's own: the far end sees the peer's address, not an alias of ours";
const ASKS: &str =
    "connect() of a datagram socket answers with the own address, by which programs choose; sending is refused";

/// See `docs/semantics.md`, which tells the same to users.
const EXPLAINED: &[Difference] = &[
    Difference { name: "data.urgent.urgent_byte", value: "EINVAL", reason: IN_LINE },
    Difference { name: "data.urgent.in_line", value: "ab!cd", reason: IN_LINE },
    Difference { name: "listen.any4.ipv6", value: "0", reason: OTHER_FAMILY },
    Difference { name: "listen.own4.ipv6", value: "0", reason: OTHER_FAMILY },
    Difference { name: "listen.only6.ipv4", value: "0", reason: OTHER_FAMILY },
    Difference { name: "listen.own6.ipv4", value: "0", reason: OTHER_FAMILY },
    Difference { name: "name.connected_ipv4.family_there", value: "ipv6", reason: ONE_VIEW },
    Difference { name: "datagram.others.nobody.connect", value: "0", reason: ASKS },
    Difference { name: "datagram.others.nobody.send", value: "ENETUNREACH", reason: ASKS },
    Difference { name: "datagram.others.outside.connect", value: "0", reason: ASKS },
    Difference { name: "datagram.others.outside.send", value: "ENETUNREACH", reason: ASKS },
    Difference { name: "datagram.others.outside4.connect", value: "0", reason: ASKS },
    Difference { name: "datagram.others.outside4.send", value: "ENETUNREACH", reason: ASKS },
    Difference { name: "datagram.others.web.connect", value: "0", reason: ASKS },
    Difference { name: "datagram.others.web.send", value: "ENETUNREACH", reason: ASKS },
];

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
until ip -6 route get fd70:6861:6e74::1 >/dev/null 2>&1; do sleep 0.01; done
exec \"$@\"";

type Lines = BTreeMap<String, String>;

#[test]
fn every_line_is_as_the_kernel_has_it() -> Result<()> {
    let network = Network::shared()?;
    let program = compile(&network.folder("conformance")?)?;
    let program = program.to_str().context("path")?;
    let kernel = lines(&bare(program, "self")?);
    let mut table = Table::default();
    for way in Way::KERNEL {
        let identity = format!("conform-{way:?}").to_lowercase();
        let (_server, name) = network.serve(way, &identity, &[program, "serve", PORT], "ready")?;
        let over = lines(&network.run(way, &[program, "check", &name, PORT])?);
        table.compare(&format!("{way:?}"), &kernel, &over);
    }
    table.report()
}

#[test]
fn connections_within_a_namespace_are_as_the_kernel_has_them() -> Result<()> {
    let network = Network::shared()?;
    let program = compile(&network.folder("conformance-inside")?)?;
    let program = program.to_str().context("path")?;
    let mut table = Table::default();
    // The own address, and loopback.
    for host in ["self", "::1,127.0.0.1"] {
        let kernel = lines(&bare(program, host)?);
        let run = |way| network.run(way, &[program, "both", host, PORT]);
        // Mostly waits: all ways at once, each in a namespace of its own.
        let texts = std::thread::scope(|scope| {
            Way::KERNEL.map(|way| scope.spawn(move || run(way))).map(|thread| thread.join().expect("no panic"))
        });
        for (way, text) in Way::KERNEL.iter().zip(texts) {
            table.compare(&format!("{way:?} ({host})"), &kernel, &lines(&text?));
        }
    }
    table.report()
}

/// Every difference, and the runs that have it.
#[derive(Default)]
struct Table {
    explained: BTreeMap<String, Vec<String>>,
    unexplained: BTreeMap<String, Vec<String>>,
}

impl Table {
    fn compare(&mut self, run: &str, kernel: &Lines, phantom: &Lines) {
        let names: BTreeSet<&String> = kernel.keys().chain(phantom.keys()).collect();
        for name in names.into_iter().filter(|name| kernel.get(*name) != phantom.get(*name)) {
            let (wanted, got) = (show(kernel, name), show(phantom, name));
            let known = EXPLAINED.iter().find(|known| known.name == name && known.value == got);
            let reason = known.map_or(String::new(), |known| format!(" ({})", known.reason));
            let table = if known.is_some() { &mut self.explained } else { &mut self.unexplained };
            table.entry(format!("{name}: {got}, the kernel: {wanted}{reason}")).or_default().push(run.to_owned());
        }
    }

    fn report(&self) -> Result<()> {
        for (title, table) in [("explained", &self.explained), ("NOT EXPLAINED", &self.unexplained)] {
            for (difference, runs) in table {
                println!("{title}: {difference} in {}", runs.join(", "));
            }
        }
        ensure!(self.unexplained.is_empty(), "{} differences from the kernel's TCP", self.unexplained.len());
        Ok(())
    }
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

fn show<'a>(lines: &'a Lines, name: &str) -> &'a str {
    lines.get(name).map_or("(nothing)", String::as_str)
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
        found.insert(unique, value.trim_end().to_owned());
    }
    found
}
