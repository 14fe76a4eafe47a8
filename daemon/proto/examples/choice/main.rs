//! What hostile nodes get of paths whose nodes the real choice draws: tables for docs/anonymity-figures.md.
//!
//!   choice attacks|sizes [OWNERS] [PATHS PER DAY] [SEED] [NODES] [HOSTILE]
//!
//! NODES, and only one share of hostile ones, in hundredths, are for the first table.

mod owner;
mod tables;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let table = args.first().map_or("attacks", String::as_str);
    let numbers = [(1, 40), (2, 60), (3, 1), (4, 1000), (5, 0)].map(|(index, default)| number(index, default));
    let [Ok(owners), Ok(builds), Ok(seed), Ok(nodes), Ok(hostile)] = numbers else {
        eprintln!("usage: choice attacks|sizes [OWNERS] [PATHS PER DAY] [SEED] [NODES] [HOSTILE]");
        return ExitCode::FAILURE;
    };
    println!("choice {}", args.join(" "));
    let shares = if hostile == 0 { vec![5, 10, 20, 30] } else { vec![hostile as usize] };
    match table {
        "attacks" => tables::attacks(owners, builds, seed, nodes as usize, &shares),
        "sizes" => tables::sizes(owners, builds, seed),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
