//! What hostile nodes get of paths whose nodes the real choice draws: tables for docs/anonymity-figures.md.
//!
//!   choice attacks|sizes [OWNERS] [PATHS PER DAY] [SEED] [NODES]       NODES: of the first table only

mod owner;
mod tables;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let table = args.first().map_or("attacks", String::as_str);
    let (Ok(owners), Ok(builds), Ok(seed), Ok(nodes)) = (number(1, 40), number(2, 60), number(3, 1), number(4, 1000))
    else {
        eprintln!("usage: choice attacks|sizes [OWNERS] [PATHS PER DAY] [SEED] [NODES]");
        return ExitCode::FAILURE;
    };
    println!("choice {table} {owners} {builds} {seed} {nodes}");
    match table {
        "attacks" => tables::attacks(owners, builds, seed, nodes as usize),
        "sizes" => tables::sizes(owners, builds, seed),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
