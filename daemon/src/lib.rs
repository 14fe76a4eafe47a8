//! The daemon: joins the protocol to sockets, disk, clock and programs. `docs/architecture.md` is the map.

pub mod clock;
pub mod driver;
pub mod gate;
pub mod link;
pub mod netdb;
pub mod network;
pub mod relay;

/// The system's randomness, which does not run dry: failing to get it at all is no state to go on in.
pub fn random() -> impl rand::CryptoRng + Send {
    rand::rand_core::UnwrapErr(rand::rngs::SysRng)
}
