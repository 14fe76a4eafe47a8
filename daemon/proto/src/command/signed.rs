//! A command with its signatures, and the way from one key's signature to all that are needed.

use std::collections::BTreeMap;

use super::keys::{KEYS_MAX, KeySet};
use super::{COMMAND_MAX, Command, Refused};
use crate::crypto::sign::SIGNATURE_LEN;
use crate::crypto::{Signature, SigningKey};
use crate::wire::{Reader, Wire, WireError, Writer};

const CONTEXT: &str = "phantom v1 command";

/// A command as it travels: body and signatures, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    body: Vec<u8>,
    signatures: BTreeMap<u8, Signature>,
}

impl Signed {
    /// Longest encoding in bytes.
    pub const LEN_MAX: usize = 2 + COMMAND_MAX + 1 + KEYS_MAX * (1 + SIGNATURE_LEN);

    /// The command, when as many keys of the set have signed it as must.
    ///
    /// # Errors
    /// See [`Refused`]: all but the first are the sender's fault.
    // protocol: M4, M9
    pub fn check(&self, keys: &KeySet) -> Result<Command, Refused> {
        if keys.is_nobody() {
            return Err(Refused::Nobody);
        }
        if self.signatures.len() != keys.threshold() {
            return Err(Refused::Signatures);
        }
        let message = message(keys, &self.body);
        for (index, signature) in &self.signatures {
            let key = keys.keys().get(usize::from(*index)).ok_or(Refused::Signatures)?;
            key.verify(CONTEXT, &message, signature).map_err(|_| Refused::Signatures)?;
        }
        Ok(Command::from_bytes(&self.body)?)
    }
}

/// Length(2) and body, count(1), then for each signature, keys ascending: number of the key(1), signature(64).
// protocol: M9
impl Wire for Signed {
    fn write(&self, out: &mut Writer) {
        out.bytes16(&self.body);
        out.u8(u8::try_from(self.signatures.len()).unwrap_or(u8::MAX));
        for (index, signature) in &self.signatures {
            out.u8(*index);
            out.bytes(signature);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let body = reader.bytes16(COMMAND_MAX)?.to_vec();
        let count = usize::from(reader.u8()?);
        if !(1..=KEYS_MAX).contains(&count) {
            return Err(WireError::TooLong);
        }
        let mut signatures = BTreeMap::new();
        for _ in 0..count {
            let index = reader.u8()?;
            if signatures.last_key_value().is_some_and(|(last, _)| index <= *last) {
                return Err(WireError::Value);
            }
            signatures.insert(index, reader.array()?);
        }
        Ok(Self { body, signatures })
    }
}

/// A command on its way from maintainer to maintainer: the body and whatever signatures there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    command: Command,
    signatures: BTreeMap<u8, Signature>,
}

impl Bundle {
    /// A command that nobody has signed.
    pub fn new(command: Command) -> Self {
        Self { command, signatures: BTreeMap::new() }
    }

    /// As it came from somebody; the signatures are checked when it is taken.
    pub fn unchecked(command: Command, signatures: BTreeMap<u8, Signature>) -> Self {
        Self { command, signatures }
    }

    /// What would be signed.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Numbers of the keys that have signed.
    pub fn signers(&self) -> impl Iterator<Item = u8> {
        self.signatures.keys().copied()
    }

    /// The signatures, by number of the key.
    pub fn signatures(&self) -> &BTreeMap<u8, Signature> {
        &self.signatures
    }

    /// Signs as one of the set. False: the key is not of the set.
    pub fn sign(&mut self, keys: &KeySet, key: &SigningKey) -> bool {
        let Some(index) = keys.index(&key.verifying_key()) else { return false };
        let message = message(keys, &self.command.to_bytes());
        self.signatures.insert(index, key.sign(CONTEXT, &message));
        true
    }

    /// Takes another's signature, if it is right.
    ///
    /// # Errors
    /// [`Refused::Signatures`]: it is not this key's, or not of this command.
    pub fn add(&mut self, keys: &KeySet, index: u8, signature: Signature) -> Result<(), Refused> {
        let key = keys.keys().get(usize::from(index)).ok_or(Refused::Signatures)?;
        let message = message(keys, &self.command.to_bytes());
        key.verify(CONTEXT, &message, &signature).map_err(|_| Refused::Signatures)?;
        self.signatures.insert(index, signature);
        Ok(())
    }

    /// The command as it can be sent: with the first signatures of those that are needed. `None`: too few.
    pub fn signed(&self, keys: &KeySet) -> Option<Signed> {
        let signatures: BTreeMap<_, _> =
            self.signatures.iter().take(keys.threshold()).map(|(index, signature)| (*index, *signature)).collect();
        let enough = !keys.is_nobody() && signatures.len() == keys.threshold();
        enough.then(|| Signed { body: self.command.to_bytes(), signatures })
    }
}

/// What is signed: the set's root, then the body.
// protocol: M4
fn message(keys: &KeySet, body: &[u8]) -> Vec<u8> {
    [&keys.root()[..], body].concat()
}
