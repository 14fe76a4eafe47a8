//! Sets of maintainers' keys as text, the one that this release has, and files of secret keys.

use data_encoding::HEXLOWER_PERMISSIVE;
use phantom_proto::command::{KeySet, KeySetError};
use phantom_proto::crypto::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// What stands before the seed in a file of a secret key.
const SECRET: &str = "phantom-maintainer-secret ";

/// Why a text is no set of keys, or no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFileError {
    /// The first line.
    #[error("the first line must say how many of how many must sign, as in `2 of 3`, or `nobody`")]
    Head,
    /// A key.
    #[error("line {0}: a public key is 64 characters of hexadecimal, and a note may follow it")]
    Key(usize),
    /// Another number of keys than the first line says.
    #[error("the first line says {0} keys, there are {1}")]
    Count(usize, usize),
    /// They make no set.
    #[error(transparent)]
    Set(#[from] KeySetError),
    /// Not a secret key.
    #[error("this is no secret key of a maintainer: `phantom command key FILE` makes one")]
    Secret,
}

/// The set that is compiled in.
///
/// # Panics
/// When the file of this release is wrong, which its test says first.
pub fn compiled_in() -> KeySet {
    read_key_set(include_str!("maintainers.keys")).expect("maintainers.keys is right")
}

/// Reads a set: `nobody`, or `M of N` and N public keys, one a line; blank lines and lines that begin with `#` are skipped.
///
/// # Errors
/// See [`KeySetFileError`].
pub fn read_key_set(text: &str) -> Result<KeySet, KeySetFileError> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, head) = lines.next().ok_or(KeySetFileError::Head)?;
    let numbers = || {
        let (threshold, count) = head.split_once(" of ")?;
        Some((threshold.trim().parse::<usize>().ok()?, count.trim().parse::<usize>().ok()?))
    };
    let keys =
        |(at, line): (usize, &str)| line.split_whitespace().next().and_then(public).ok_or(KeySetFileError::Key(at));
    let keys = lines.map(keys).collect::<Result<Vec<_>, _>>()?;
    let (threshold, count) = match head {
        "nobody" if keys.is_empty() => return Ok(KeySet::nobody()),
        _ => numbers().ok_or(KeySetFileError::Head)?,
    };
    if keys.len() != count {
        return Err(KeySetFileError::Count(count, keys.len()));
    }
    Ok(KeySet::new(threshold, keys)?)
}

fn public(hex: &str) -> Option<VerifyingKey> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok().map(VerifyingKey)
}

/// Writes a set as [`read_key_set`] reads it.
pub fn write_key_set(keys: &KeySet) -> String {
    if keys.is_nobody() {
        return "nobody\n".to_owned();
    }
    let lines = keys.keys().iter().map(|key| HEXLOWER_PERMISSIVE.encode(&key.0) + "\n");
    format!("{} of {}\n{}", keys.threshold(), keys.keys().len(), lines.collect::<String>())
}

/// Reads a secret key.
///
/// # Errors
/// [`KeySetFileError::Secret`].
pub fn read_key(text: &str) -> Result<SigningKey, KeySetFileError> {
    let hex = text.trim().strip_prefix(SECRET).ok_or(KeySetFileError::Secret)?;
    let seed = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map(Zeroizing::new).map_err(|_| KeySetFileError::Secret)?;
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| KeySetFileError::Secret)?;
    Ok(SigningKey::from_seed(seed))
}

/// Writes a secret key as [`read_key`] reads it.
pub fn write_key(key: &SigningKey) -> Zeroizing<String> {
    let hex = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(key.seed()));
    Zeroizing::new([SECRET, &hex, "\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_seed(&[number; 32])
    }

    #[test]
    fn this_release_s_keys_can_be_read() {
        let set = compiled_in();
        assert_eq!(read_key_set(&write_key_set(&set)), Ok(set));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_said() {
        let set = KeySet::new(2, (1..=3).map(|number| key(number).verifying_key()).collect()).unwrap();
        let text = write_key_set(&set);
        assert_eq!(read_key_set(&text), Ok(set));
        let noted = text.replace('\n', "  somebody\n").replacen("  somebody", "", 1);
        assert!(read_key_set(&format!("# a network's\n\n{noted}")).is_ok());
        assert_eq!(read_key_set("nobody\n"), Ok(KeySet::nobody()));
        for (wrong, why) in [
            (String::new(), KeySetFileError::Head),
            ("two of three\n".into(), KeySetFileError::Head),
            (text.replace("2 of 3", "nobody"), KeySetFileError::Head),
            (text.replace("2 of 3", "2 of 4"), KeySetFileError::Count(4, 3)),
            (text.replace("2 of 3", "4 of 3"), KeySetError::Threshold(4, 3).into()),
            (format!("2 of 3\nx{}", &text[8..]), KeySetFileError::Key(2)),
        ] {
            assert_eq!(read_key_set(&wrong), Err(why), "{wrong}");
        }
    }

    #[test]
    fn a_secret_key_comes_back_and_nothing_else_is_one() {
        let text = write_key(&key(7));
        assert_eq!(read_key(&text).unwrap().verifying_key(), key(7).verifying_key());
        for wrong in ["", "phantom-maintainer-secret 00", &text[1..], &text[..text.len() - 2]] {
            assert_eq!(read_key(wrong).map(drop), Err(KeySetFileError::Secret), "{wrong}");
        }
    }
}
