//! What hostile nodes get of paths whose nodes the real choice draws: tables for docs/threat-model.md.
//!
//!   choice [attacks|sizes] [OWNERS] [BUILDS PER DAY] [SEED]

mod owner;
mod tables;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let table = args.first().map_or("attacks", String::as_str);
    let (Ok(owners), Ok(builds), Ok(seed)) = (number(1, 100), number(2, 60), number(3, 1)) else {
        eprintln!("usage: choice [attacks|sizes] [OWNERS] [BUILDS PER DAY] [SEED]");
        return ExitCode::FAILURE;
    };
    println!("seed {seed}, {owners} owners for each line, each 30 days with {builds} paths a day");
    match table {
        "attacks" => tables::attacks(owners, builds, seed),
        "sizes" => tables::sizes(owners, builds, seed),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
