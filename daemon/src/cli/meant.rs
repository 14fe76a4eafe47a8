//! What may have been meant by words that are no commands: what is only spelt alike leads whoever says them astray.

/// Words that are no commands, and what whoever says them wants.
const MEANT: [(&[&str], &str); 13] = [
    (&["run", "exec"], "`phantom-run PROGRAM` starts a program"),
    (&["shell", "bash"], "`phantom-run bash` is a shell whose only network is Phantom, and that of all that it starts"),
    (
        &["start", "daemon", "up", "login"],
        "`phantom setup` the first time; then `phantomd` is the daemon, `phantom-run PROGRAM` starts a program",
    ),
    (&["down", "quit", "exit", "kill", "logout"], "`phantom stop` ends the daemon"),
    (&["init", "install", "config"], "`phantom setup` makes what a first start needs"),
    (
        &["join", "connect"],
        "`phantom setup --peer PEER` joins a network, `phantom-run PROGRAM` starts a program that connects",
    ),
    (
        &["publish", "offer", "expose", "share"],
        "`phantom-run --publish 80:web PROGRAM` offers a program's port, `phantom forward` what runs already, `phantom serve` a folder",
    ),
    (&["lookup", "resolve"], "`phantom netdb lookup NAME.phantom` asks the network database"),
    (
        &["ping", "check", "test"],
        "`phantom doctor` looks at this computer, `phantom netdb lookup NAME.phantom` whether an address is published",
    ),
    (
        &["new", "create", "ip", "whoami", "export", "import", "backup"],
        "`phantom identity` makes, shows, exports and imports addresses that last; each run without one has a fresh one",
    ),
    (
        &["newnym", "renew", "rotate"],
        "each start by `phantom-run PROGRAM` has a fresh identity and paths of its own: start the program anew",
    ),
    (
        &["circuit", "circuits", "route", "trace", "hops"],
        "`phantom path list` shows the daemon's paths, `phantom connection list` the way of each connection",
    ),
    (&["update", "upgrade", "uninstall"], "docs/install.md says how Phantom is upgraded and removed"),
];

/// What may have been meant by a word that is no command.
pub(super) fn meant(word: &str) -> Option<&'static str> {
    MEANT.iter().find(|(words, _)| words.contains(&word)).map(|(_, tip)| *tip)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;
    use crate::cli::args::Cli;

    /// A word that is a command by now needs no tip, and one that is spelt like a command is no such word.
    #[test]
    fn words_that_were_meant_for_something_else_are_no_commands() {
        for word in MEANT.iter().flat_map(|(words, _)| *words) {
            let error = Cli::try_parse_from(["phantom", word]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidSubcommand, "{word}");
        }
    }
}
