//! `phantom-run`: starts a program so that its only network is Phantom.
fn main() {}
