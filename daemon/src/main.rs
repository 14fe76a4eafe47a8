//! `phantomd`, the daemon.
fn main() {}
