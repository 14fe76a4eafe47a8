//! What a gate is made of, and why there is none.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use phantom_proto::ident::ApAddress;

use crate::os::Owner;

/// What a gate is made of.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// The identity's address.
    pub address: ApAddress,
    /// Whose programs may enter it. Another user than our own takes root, or [`super::can_serve_others`].
    pub owner: Owner,
    /// Executable that becomes the helper: the daemon itself.
    pub helper: PathBuf,
    /// Its arguments: [`super::HELPER_ARGUMENT`].
    pub helper_arguments: Vec<OsString>,
}

impl GateConfig {
    /// The gate of `address` for our own user, its helper being the executable at `helper`.
    pub fn new(address: ApAddress, helper: PathBuf) -> Self {
        Self { address, owner: Owner::own(), helper, helper_arguments: vec![super::HELPER_ARGUMENT.into()] }
    }
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The helper could not be started.
    #[error("starting the namespace helper {0}: {1}")]
    Helper(PathBuf, io::Error),
    /// It could not make the namespaces; the text says what was not permitted and what to do.
    #[error("{0}")]
    SetUp(String),
    /// The helper or the wire broke.
    #[error("setting the gate up: {0}")]
    Io(#[from] io::Error),
}
