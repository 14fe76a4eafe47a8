//! A session that stands, as the next process takes it over: everything but its full connection, which ends with the process before.
//!
//! Nothing of it is ever written to a disk (I4).

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::seal::{End, Secret};
use super::stream::{self, Stream};
use super::{Phase, Session};
use crate::crypto::VerifyingKey;

/// See the module. It is as secret as the session; wiped when dropped.
#[derive(Serialize, Deserialize)]
pub struct Carried {
    secret: [u8; 32],
    /// A client's: whom it dialed.
    owner: Option<[u8; 32]>,
    ports: (u16, u16),
    attempt: u32,
    proven: u32,
    stream: stream::Carried,
    for_app: Vec<u8>,
    app_ended: bool,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.for_app.zeroize();
    }
}

impl Session {
    /// What another process needs to go on with it; `untaken` are bytes of [`Session::take_app`] that the program does not have yet.
    /// `None`: it does not stand, or is over.
    // protocol: S51
    pub fn carry(&self, untaken: &[u8]) -> Option<Carried> {
        let secret = self.secret().filter(|_| !self.is_over())?;
        Some(Carried {
            secret: *secret.bytes(),
            owner: self.owner.map(|owner| owner.0),
            ports: self.ports,
            attempt: self.attempt,
            proven: self.proven,
            stream: self.stream.carry(),
            for_app: [untaken, &self.app_out].concat(),
            app_ended: self.app_ended,
        })
    }

    /// The session of [`Session::carry`], without a full connection: it [`Session::wants_tunnel`].
    // protocol: S51
    pub fn of_carried(mut carried: Carried) -> Self {
        let owner = carried.owner.map(VerifyingKey);
        let here = if owner.is_some() { End::Client } else { End::Server };
        let secret = Secret::of_bytes(Zeroizing::new(carried.secret));
        Self {
            owner,
            ports: carried.ports,
            attempt: carried.attempt,
            proven: carried.proven,
            stream: Stream::of_carried(&mut carried.stream),
            app_out: std::mem::take(&mut carried.for_app),
            app_ended: carried.app_ended,
            ..Self::in_phase(here, Phase::Open(secret))
        }
    }
}
