//! Nothing of a program leaves by another way than Phantom: every packet of a network namespace of our own is looked at.

mod capture;
mod dying;
mod identities;
mod table;
mod user;
mod world;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use capture::{Capture, Seen};
use phantom_tests::{CLIENT, NODES, Network, SERVER, Way, stdout};
use table::{Report, Table, reports};
use world::{GIVER, Linked, World};

/// The cells that this test proves.
const TABLE: &str = include_str!("../../hostile/table.txt");

/// A network of daemons in the world, and what is seen of it from outside.
struct Stage {
    world: World,
    network: Network,
    port: String,
}

impl Stage {
    fn set() -> Result<Self> {
        let world = World::make("0")?;
        let network = Network::up(NODES)?;
        let port = network.nodes[0].listen.rsplit_once(':').context("no port")?.1.to_owned();
        Ok(Self { world, network, port })
    }

    /// The hostile program and its arguments, to rob the daemon of `node`.
    fn hostile(&self, linked: Linked, node: usize) -> Vec<String> {
        self.world.hostile(linked, &self.network.nodes[node].socket, &self.network.nodes[SERVER].socket)
    }

    /// Runs the hostile program in a way, or without any, under a capture of its own.
    fn attack(&self, way: Option<Way>, linked: Linked) -> Result<(Vec<Report>, Seen)> {
        let words = self.hostile(linked, CLIENT);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = match way {
            Some(way) => self.network.allowing(CLIENT, way, GIVER, &words),
            None => {
                let mut bare = Command::new(words[0]);
                bare.args(&words[1..]);
                bare
            }
        };
        watched(&self.world, &program, &self.port)
    }
}

/// Runs the hostile program, with descriptors that it did not ask for, under a capture of its own.
fn watched(world: &World, program: &Command, port: &str) -> Result<(Vec<Report>, Seen)> {
    let capture = Capture::start(port)?;
    let said = stdout(&world.holding(program).output()?)?;
    Ok((reports(&said)?, capture.end()?))
}

#[test]
fn hostile_programs_end_as_the_table_says() -> Result<()> {
    let stage = Stage::set()?;
    let table = Table::parse(TABLE)?;
    let mut wrong = Vec::new();
    let mut runs = Vec::new();
    for way in Way::ALL {
        runs.extend([Linked::Dynamic, Linked::Static, Linked::Musl].map(|linked| (Some(way), linked)));
    }
    // Outside of Phantom the capture sees what leaves: it could not stay empty by itself. It comes last, since the kernel
    // has more to say of it afterwards.
    runs.push((None, Linked::Dynamic));
    for (way, linked) in runs {
        let (reports, seen) = stage.attack(way, linked)?;
        wrong.extend(compare(&table, way, linked, &reports, &seen));
    }
    all_right(&wrong)
}

/// What is not as the table says.
fn compare(table: &Table, way: Option<Way>, linked: Linked, reports: &[Report], seen: &Seen) -> Vec<String> {
    let column = column(way, linked);
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(table.check(column, linked, reports, &seen.attacks).err().map(|error| error.to_string()));
    // Outside, libc and the kernel add some of their own: groups joined, services asked.
    if way.is_some() && !seen.others.is_empty() {
        wrong.push(format!("{column}: packets that are nobody's:\n  {}", seen.others.join("\n  ")));
    }
    wrong
}

fn all_right(wrong: &[String]) -> Result<()> {
    ensure!(wrong.is_empty(), "the table does not hold:\n{}", wrong.join("\n"));
    Ok(())
}

/// The column of the table; a way that puts a library between is another one for static programs.
fn column(way: Option<Way>, linked: Linked) -> &'static str {
    match (way, linked) {
        (None, _) => "outside",
        (Some(Way::Namespace), _) => "namespace",
        (Some(Way::Inject), _) => "inject",
        (Some(Way::Preload), Linked::Dynamic) => "preload",
        (Some(Way::Preload), _) => "preload static",
        (Some(Way::Emulate), Linked::Dynamic) => "emulate",
        (Some(Way::Emulate), _) => "emulate static",
    }
}
