//! The link level: the same promises over TLS and in memory, and what strangers and hostile nodes get.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod hostile;
mod limits;
mod pool;
mod strangers;
mod suite;
mod support;
