//! What hook, launcher, command line and daemon say to each other.
#![forbid(unsafe_code)]
