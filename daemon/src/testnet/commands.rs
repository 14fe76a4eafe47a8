//! The maintainers of a test network: three, of whom two must sign.

use std::fs;
use std::path::{Path, PathBuf};

use phantom_proto::command::KeySet;
use phantom_proto::crypto::SigningKey;
use rand::CryptoRng;

use super::TestnetError;
use crate::commands::{write_key, write_key_set};
use crate::datadir::write_private;

const MAINTAINERS: usize = 3;
const MUST_SIGN: usize = 2;

/// The file of public keys.
pub(super) fn public(dir: &Path) -> PathBuf {
    dir.join("commands.keys")
}

fn secret(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("maintainer-{number}.key"))
}

/// Makes their keys.
pub(super) fn create(dir: &Path, rng: &mut dyn CryptoRng) -> Result<(), TestnetError> {
    let keys: Vec<_> = (0..MAINTAINERS).map(|_| SigningKey::generate(rng)).collect();
    for (at, key) in keys.iter().enumerate() {
        let path = secret(dir, at + 1);
        write_private(&path, write_key(key).as_bytes()).map_err(|error| TestnetError::Io(path, error))?;
    }
    let set = KeySet::new(MUST_SIGN, keys.iter().map(SigningKey::verifying_key).collect());
    let text = write_key_set(&set.unwrap_or_else(|_| KeySet::nobody()));
    let path = public(dir);
    write_private(&path, text.as_bytes()).map_err(|error| TestnetError::Io(path, error))
}

pub(super) fn remove(dir: &Path) {
    let files = (1..=MAINTAINERS).map(|number| secret(dir, number)).chain([public(dir)]);
    // What is not there need not go.
    files.for_each(|file| drop(fs::remove_file(file)));
}
