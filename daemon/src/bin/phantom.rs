//! `phantom`, the command line.
fn main() {}
