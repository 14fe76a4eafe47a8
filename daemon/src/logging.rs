//! Logs: what is written, where to, how loud, and what never appears.
//!
//! Everything goes to standard error, one line per event; the last ones are kept in memory ([`journal`]). error = act, warn = worth knowing, info = rare and normal.
//!
//! Redaction: keys and payload never appear at any level. AP addresses, names, and the addresses of an owner's peers
//! appear only when the operator asked for debug or trace: every such value is wrapped in [`private`], which prints
//! `[…]` otherwise. `Debug` of the types in `phantom_proto::ident` is redacted at every level.

pub mod journal;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Level when nothing is said.
pub const DEFAULT_LEVEL: &str = "info";

/// Libraries that are quiet unless named: their info is our debug.
const NOISY: [&str; 6] = ["libp2p", "libp2p_kad", "libp2p_swarm", "yamux", "multistream_select", "rustls"];

/// Set when the operator asked for more than info.
static REVEAL: AtomicBool = AtomicBool::new(false);

/// Why a level text is wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is no log level: say off, error, warn, info, debug or trace, or TARGET=LEVEL pairs with commas between"
)]
pub struct LevelError {
    text: String,
}

/// Reads `info`, or `info,phantom_daemon::link=debug` and the like.
///
/// # Errors
/// When the text has another form.
pub fn parse(text: &str) -> Result<Targets, LevelError> {
    let wrong = || LevelError { text: text.to_owned() };
    if text.trim().is_empty() {
        return Err(wrong());
    }
    // A lone word that is no level would be taken for a target by `Targets`.
    for part in text.split(',').filter(|part| !part.contains('=')) {
        part.trim().parse::<LevelFilter>().map_err(|_| wrong())?;
    }
    let asked: Targets = text.parse().map_err(|_| wrong())?;
    let named: Vec<String> = asked.iter().map(|(target, _)| target.to_owned()).collect();
    let quiet = NOISY.into_iter().filter(|noisy| !named.iter().any(|target| target == noisy));
    let ceiling = asked.default_level().unwrap_or(LevelFilter::OFF).min(LevelFilter::ERROR);
    Ok(asked.with_targets(quiet.map(|target| (target, ceiling))))
}

/// Starts logging to standard error.
///
/// # Errors
/// When logging was started before in this process.
pub fn start(targets: Targets) -> Result<(), TryInitError> {
    REVEAL.store(reveals(&targets), Ordering::Relaxed);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let kept = journal::Journal.with_filter(journal::filter());
    tracing_subscriber::registry().with(lines.with_filter(targets)).with(kept).try_init()
}

fn reveals(targets: &Targets) -> bool {
    let loudest = targets.iter().map(|(_, level)| level).chain(targets.default_level()).max();
    loudest.is_some_and(|level| level >= LevelFilter::DEBUG)
}

/// Wraps a value that must not appear in logs of the default level.
pub fn private<T: fmt::Display>(value: T) -> Private<T> {
    Private(value)
}

/// See [`private`].
pub struct Private<T>(T);

impl<T: fmt::Display> fmt::Display for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if REVEAL.load(Ordering::Relaxed) { self.0.fmt(f) } else { f.write_str("[…]") }
    }
}

impl<T: fmt::Display> fmt::Debug for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read() {
        for text in ["off", "error", "info", "TRACE", "info,phantom_daemon::link=debug"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_level_is_refused_with_the_choice() {
        for text in ["", "loud", "phantom_daemon", "info,loud", "x=loud"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("off, error, warn, info, debug or trace"), "{error}");
        }
    }

    #[test]
    fn libraries_stay_quiet_unless_named() {
        let targets = parse("debug").unwrap();
        assert!(!targets.would_enable("libp2p_kad", &tracing::Level::INFO));
        assert!(targets.would_enable("phantom_daemon::link", &tracing::Level::DEBUG));
        assert!(parse("info,libp2p_kad=debug").unwrap().would_enable("libp2p_kad", &tracing::Level::DEBUG));
    }

    #[test]
    fn private_values_are_hidden_unless_debug_was_asked_for() {
        assert!(!reveals(&parse("info").unwrap()));
        assert!(reveals(&parse("warn,phantom_daemon=debug").unwrap()));
        assert_eq!(private("fd70::1").to_string(), "[…]");
        assert_eq!(format!("{:?}", private("fd70::1")), "[…]");
    }
}
