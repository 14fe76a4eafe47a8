//! What `--version` says: the release, the commit if it was known when this was built, and which versions are spoken.

use std::sync::OnceLock;

use crate::VERSION;

/// Version of the protocol between nodes (docs/protocol.md).
pub const PROTOCOL: u8 = 1;

/// As `0.1.0 (commit 1a2b3c4, protocol 1, local dialect 4)`. Release builds say their commit by PHANTOM_COMMIT.
pub fn release() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| text(option_env!("PHANTOM_COMMIT").filter(|commit| !commit.is_empty())))
}

fn text(commit: Option<&str>) -> String {
    let commit = commit.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    format!("{} ({commit}protocol {PROTOCOL}, local dialect {VERSION})", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_said_where_it_is_known() {
        let spoken = format!("protocol {PROTOCOL}, local dialect {VERSION})");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(text(None), format!("{version} ({spoken}"));
        assert_eq!(text(Some("1a2b3c4")), format!("{version} (commit 1a2b3c4, {spoken}"));
    }
}
