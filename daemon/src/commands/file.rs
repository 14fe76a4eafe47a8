//! A command on its way from maintainer to maintainer: a file of a few lines that can be sent by mail.
//!
//! ```text
//! phantom command file 1
//! command BASE64
//! signature NUMBER-OF-THE-KEY HEX        for each maintainer who has signed
//! ```

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use phantom_proto::command::{Bundle, Command};
use phantom_proto::wire::{Wire, WireError};

/// Longest file, in bytes: the longest command with all signatures there can be.
pub const MAX_FILE: usize = 16 * 1024;

const HEAD: &str = "phantom command file 1";

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It does not begin as one, or is too long.
    #[error("this is no file of a command: `phantom command make` makes one")]
    Form,
    /// A line is none that belongs there.
    #[error("line {0} of the file is damaged")]
    Line(usize),
    /// The command in it is none.
    #[error("the command in the file is damaged: {0}")]
    Command(#[from] WireError),
}

/// Reads a file. Signatures are not checked.
///
/// # Errors
/// See [`FileError`].
pub fn read(text: &str) -> Result<Bundle, FileError> {
    let mut lines = text.lines().enumerate();
    if text.len() > MAX_FILE || lines.next().map(|(_, line)| line) != Some(HEAD) {
        return Err(FileError::Form);
    }
    let command = lines.next().and_then(|(_, line)| line.strip_prefix("command ")).ok_or(FileError::Line(2))?;
    let command = BASE64URL_NOPAD.decode(command.as_bytes()).map_err(|_| FileError::Line(2))?;
    let command = Command::from_bytes(&command)?;
    let mut signatures = BTreeMap::new();
    for (at, line) in lines {
        let signature = signature(line).filter(|(number, _)| !signatures.contains_key(number));
        let (number, signature) = signature.ok_or(FileError::Line(at + 1))?;
        signatures.insert(number, signature);
    }
    Ok(Bundle::unchecked(command, signatures))
}

fn signature(line: &str) -> Option<(u8, [u8; 64])> {
    let (number, hex) = line.strip_prefix("signature ")?.split_once(' ')?;
    Some((number.parse().ok()?, HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()?))
}

/// Writes a file as [`read`] reads it.
pub fn write(bundle: &Bundle) -> String {
    let command = BASE64URL_NOPAD.encode(&bundle.command().to_bytes());
    let signatures = bundle.signatures().iter();
    let signatures =
        signatures.map(|(number, signature)| format!("signature {number} {}\n", HEXLOWER.encode(signature)));
    format!("{HEAD}\ncommand {command}\n{}", signatures.collect::<String>())
}

#[cfg(test)]
mod tests {
    use phantom_proto::command::{ACTIONS_MAX, Action, KeySet, Target};
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::ident::NodeId;

    use super::*;

    fn bundle(actions: usize) -> Bundle {
        let actions = vec![Action::Ban(Target::Node(NodeId([1; 32]))); actions];
        let key = |number| SigningKey::from_seed(&[number; 32]);
        let keys = KeySet::new(2, (1..=16).map(|number| key(number).verifying_key()).collect()).unwrap();
        let command = Command { serial: 1, predecessor: keys.root(), issued: 1, expires: 100, actions };
        let mut bundle = Bundle::new(command);
        (1..=16).for_each(|number| assert!(bundle.sign(&keys, &key(number))));
        bundle
    }

    #[test]
    fn what_is_written_is_read() {
        for actions in [1, ACTIONS_MAX] {
            let bundle = bundle(actions);
            assert_eq!(read(&write(&bundle)), Ok(bundle));
        }
    }

    #[test]
    fn what_is_damaged_is_said() {
        let text = write(&bundle(1));
        let lines: Vec<_> = text.lines().collect();
        let without = |at: usize| {
            let left: Vec<_> =
                lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect();
            left.join("\n")
        };
        assert_eq!(read(""), Err(FileError::Form));
        assert_eq!(read(&without(0)), Err(FileError::Form));
        assert_eq!(read(&without(1)), Err(FileError::Line(2)));
        assert_eq!(read(&(text.clone() + lines[2])), Err(FileError::Line(19)), "a signature twice");
        assert_eq!(read(&text.replace("signature 3 ", "signature 300 ")), Err(FileError::Line(6)));
        assert_eq!(read(&(text.clone() + &"x".repeat(MAX_FILE))), Err(FileError::Form));
        assert!(matches!(read(&text.replace("command AQ", "command Ag")), Err(FileError::Command(_))));
    }
}
