//! A gate that outlives its process: what the next one needs to go on with it. Both namespaces, their helper and the two devices stay as
//! they are meanwhile; packets wait in the devices' queues, and the kernels repeat those that find no room.

use std::os::fd::OwnedFd;

use phantom_proto::ident::ApAddress;

pub use super::reflector::KeptFlow;

/// See the module.
pub struct KeptGate {
    /// Descriptors, in this order: the program's device, the gate's, the listener, the helper's socket and process, the network namespace,
    /// and the user namespace if there is one.
    pub descriptors: Vec<OwnedFd>,
    /// Connections that are open.
    pub flows: Vec<KeptFlow>,
    /// What IPv4 addresses stand for, from which on.
    pub aliases: (u32, Vec<ApAddress>),
}

/// The same, in the process that goes on.
pub(super) struct Taken {
    pub(super) program: OwnedFd,
    pub(super) gate: OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) helper: OwnedFd,
    pub(super) process: OwnedFd,
    pub(super) namespace: OwnedFd,
    pub(super) user_namespace: Option<OwnedFd>,
}

impl Taken {
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next();
        Some(Self {
            program: next()?,
            gate: next()?,
            listener: next()?,
            helper: next()?,
            process: next()?,
            namespace: next()?,
            user_namespace: next(),
        })
    }
}
