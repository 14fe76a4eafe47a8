//! An identity outside the daemon: its key and name sealed with a passphrase, as a short text that fits on paper.
//!
//! ```text
//!  phantom identity
//!  base64( version 1 │ memory u32 │ passes u32 │ salt 16 │ sealed( seed 32 │ name ) │ tag 16 )
//!          └──────── authenticated, Argon2id ──────────┘  ChaCha20-Poly1305
//! ```

use data_encoding::BASE64;
use phantom_proto::crypto::passphrase::{Cost, stretch};
use phantom_proto::crypto::{SigningKey, aead};
use phantom_proto::wire::{Reader, WireError};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::ApIdentity;
use crate::names::Alias;

/// The first line.
const TITLE: &str = "phantom identity";

/// The form that follows.
const VERSION: u8 = 1;

/// Characters of a line, as others have it.
const LINE: usize = 64;

/// Before the sealed part, in bytes.
const HEAD: usize = 1 + 4 + 4 + 16;

/// Shortest passphrase, in bytes: shorter ones are found by trying, whatever a try costs.
pub const SHORTEST: usize = 8;

/// Why a text does not become an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// It is something else.
    #[error("this is no exported identity")]
    Form,
    /// It is of a later release.
    #[error("this identity was exported by a later release")]
    Version,
    /// What it asks for would be an attack.
    #[error("this file asks for more memory or time than any exported identity does")]
    Cost,
    /// One of the two; nobody can tell which.
    #[error("the passphrase is wrong, or the file was changed")]
    Passphrase,
    /// For new ones only.
    #[error("a passphrase has at least {SHORTEST} characters: shorter ones are found by trying")]
    Short,
}

impl From<WireError> for SealedError {
    fn from(_: WireError) -> Self {
        Self::Form
    }
}

/// What was sealed.
pub struct Unsealed {
    /// Under which it was exported.
    pub name: Alias,
    /// The AP key.
    pub key: SigningKey,
}

/// Seals a named identity. Takes the memory and time of [`Cost::default`].
///
/// # Errors
/// When the passphrase is too short.
pub fn seal(identity: &ApIdentity, passphrase: &str, rng: &mut dyn CryptoRng) -> Result<String, SealedError> {
    seal_at(Cost::default(), identity, passphrase, rng)
}

fn seal_at(
    cost: Cost,
    identity: &ApIdentity,
    passphrase: &str,
    rng: &mut dyn CryptoRng,
) -> Result<String, SealedError> {
    if passphrase.len() < SHORTEST {
        return Err(SealedError::Short);
    }
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let head = [&[VERSION][..], &cost.memory.to_be_bytes(), &cost.passes.to_be_bytes(), &salt].concat();
    let name = identity.name.as_ref().map(Alias::as_str).unwrap_or_default();
    let plain = Zeroizing::new([&identity.key.seed()[..], name.as_bytes()].concat());
    let key = stretch(passphrase.as_bytes(), &salt, cost).map_err(|_| SealedError::Cost)?;
    // The salt is fresh, so the key is used once.
    let sealed = [head.clone(), aead::seal(&key, 0, &head, &plain)].concat();
    let text = BASE64.encode(&sealed);
    let lines = text.as_bytes().chunks(LINE).map(|line| String::from_utf8_lossy(line) + "\n");
    Ok(format!("{TITLE}\n{}", lines.collect::<String>()))
}

/// Whether the text begins as what [`seal`] makes.
pub fn is_titled(text: &str) -> bool {
    body(text).is_some()
}

fn body(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix(TITLE)
}

/// Opens what [`seal`] made.
///
/// # Errors
/// See [`SealedError`].
pub fn unseal(text: &str, passphrase: &str) -> Result<Unsealed, SealedError> {
    let body: String = body(text).ok_or(SealedError::Form)?.split_whitespace().collect();
    let bytes = BASE64.decode(body.as_bytes()).map_err(|_| SealedError::Form)?;
    if bytes.first().is_some_and(|version| *version > VERSION) {
        return Err(SealedError::Version);
    }
    let (head, sealed) = bytes.split_at_checked(HEAD).ok_or(SealedError::Form)?;
    let mut reader = Reader::new(head);
    if reader.u8()? != VERSION {
        return Err(SealedError::Form);
    }
    let cost = Cost { memory: reader.u32()?, passes: reader.u32()? };
    let salt = reader.array::<16>()?;
    reader.finish()?;
    let key = stretch(passphrase.as_bytes(), &salt, cost).map_err(|_| SealedError::Cost)?;
    let plain = Zeroizing::new(aead::open(&key, 0, head, sealed).map_err(|_| SealedError::Passphrase)?);
    let (seed, name) = plain.split_first_chunk::<32>().ok_or(SealedError::Form)?;
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(SealedError::Form)?;
    Ok(Unsealed { name, key: SigningKey::from_seed(seed) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const CHEAP: Cost = Cost { memory: 8 * 1024, passes: 1 };

    fn sealed() -> (ApIdentity, String) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identity = ApIdentity { name: Some("web".parse().unwrap()), ..ApIdentity::fresh(&mut rng) };
        let text = seal_at(CHEAP, &identity, "correct horse", &mut rng).unwrap();
        (identity, text)
    }

    #[test]
    fn what_was_sealed_is_there_for_who_knows_the_passphrase() {
        let (identity, text) = sealed();
        // As mail and editors leave it.
        for text in [text.clone(), text.replace('\n', "\r\n"), format!("\n  {}\n\n", text.trim())] {
            let Ok(Unsealed { name, key }) = unseal(&text, "correct horse") else { panic!("{text}") };
            assert_eq!((name.as_str(), key.seed()), ("web", identity.key.seed()));
        }
        assert_eq!(unseal(&text, "correct horsf").err(), Some(SealedError::Passphrase));
        assert_eq!(unseal(&text, "").err(), Some(SealedError::Passphrase));
        assert!(text.len() < 300 && text.lines().all(|line| line.len() <= LINE), "{text}");
        let short = seal(&identity, "seven 7", &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(short.err(), Some(SealedError::Short));
    }

    /// Cost and salt are in the key, and the seal is over them besides.
    #[test]
    fn any_change_is_found_out() {
        let (_, text) = sealed();
        let bytes = BASE64.decode(text.lines().skip(1).collect::<String>().as_bytes()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let text = format!("{TITLE}\n{}\n", BASE64.encode(&changed));
            assert!(unseal(&text, "correct horse").is_err(), "byte {at}");
        }
        for end in 0..bytes.len() {
            let text = format!("{TITLE}\n{}\n", BASE64.encode(&bytes[..end]));
            assert!(unseal(&text, "correct horse").is_err(), "{end} bytes");
        }
    }

    #[test]
    fn files_that_ask_for_too_much_and_later_ones_are_refused() {
        let of = |version: u8, memory: u32| {
            let bytes = [&[version][..], &memory.to_be_bytes(), &1u32.to_be_bytes(), &[0; 16 + 64]].concat();
            unseal(&format!("{TITLE}\n{}", BASE64.encode(&bytes)), "correct horse").err()
        };
        assert_eq!(of(1, u32::MAX), Some(SealedError::Cost));
        assert_eq!(of(2, 8 * 1024), Some(SealedError::Version));
        assert_eq!(of(0, 8 * 1024), Some(SealedError::Form));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            prop_assert!(unseal(&text, "correct horse").is_err());
            let titled = format!("{TITLE}\n{text}");
            prop_assert!(unseal(&titled, "correct horse").is_err());
        }
    }
}
