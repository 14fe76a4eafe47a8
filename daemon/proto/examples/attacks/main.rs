//! Attacks on the network database at scale, by the rules as they are, each with the defence taken out and in: figures for docs/scale.md.
//!
//!   attacks short|whole [SEED] [FIGURE]
//!
//! Each line is a point of a figure: its name, the line it belongs to, x, y.

mod database;
mod sample;
#[path = "../../tests/world/mod.rs"]
mod world;

use std::process::ExitCode;

/// How much is played.
#[derive(Clone, Copy)]
struct Scale {
    /// Honest nodes.
    nodes: usize,
    /// Services that somebody looks up, for each point.
    services: u16,
    /// Hostile nodes around one key, at most.
    crowd: usize,
    seed: u64,
}

/// Its name, and what plays it.
type Figure = (&'static str, fn(Scale));

fn point(figure: &str, line: &str, x: usize, hits: usize, of: usize) {
    println!("{figure},{line},{x},{:.4}", hits as f64 / of as f64);
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seed = args.get(1).map_or(Ok(1), |seed| seed.parse());
    let scale = match (args.first().map(String::as_str), seed) {
        (Some("short"), Ok(seed)) => Scale { nodes: 300, services: 4, crowd: 200, seed },
        (Some("whole"), Ok(seed)) => Scale { nodes: 1000, services: 40, crowd: 20_000, seed },
        _ => {
            eprintln!("usage: attacks short|whole [SEED] [FIGURE]");
            return ExitCode::FAILURE;
        }
    };
    let figures: [Figure; 5] = [
        ("surrounded", database::surrounded),
        ("stale", database::stale),
        ("withheld", database::withheld),
        ("shelf", database::flooded_shelf),
        ("sample", sample::flooded),
    ];
    let wanted = |name: &str| args.get(2).is_none_or(|wanted| wanted == name);
    figures.iter().filter(|(name, _)| wanted(name)).for_each(|(_, play)| play(scale));
    ExitCode::SUCCESS
}
