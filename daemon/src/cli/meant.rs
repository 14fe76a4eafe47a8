//! What may have been meant by words that are no commands: what is only spelt alike leads whoever says them astray.

/// Words that are no commands, and what whoever says them wants.
const MEANT: [(&[&str], &str); 6] = [
    (&["run", "exec"], "`phantom-run PROGRAM` starts a program"),
    (&["start", "daemon"], "`phantomd` is the daemon, `phantom-run PROGRAM` starts a program"),
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
