//! What a process leaves of its identities' sockets and sessions to the next, in bytes and descriptors.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use phantom_ipc::errno;
use phantom_ipc::publish::Ports;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Serials;
use phantom_proto::session::Carried;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Running;
use crate::connections::{Kept, Line};
use crate::control::{Left, Refusal};
use crate::far::Parked;
use crate::gate::{KeptFlow, KeptGate};

/// A space: its descriptors are the gate's.
#[derive(Serialize, Deserialize)]
struct SpaceState {
    /// Paths for the identity have begun.
    is_used: bool,
    /// Published until the space is closed: at which address.
    staying: Vec<([u8; 16], Ports)>,
    serials: [u8; 16],
    flows: Vec<KeptFlow>,
    aliases: (u32, Vec<[u8; 16]>),
}

/// What a space is made of again.
pub(super) struct SpaceLeft {
    pub(super) is_used: bool,
    pub(super) staying: Vec<(ApAddress, Ports)>,
    /// Of its records: the next process must go on after them (R2, H1).
    pub(super) serials: Serials,
    /// None: no program has wanted one.
    pub(super) gate: Option<KeptGate>,
}

impl SpaceLeft {
    pub(super) fn write(self) -> Option<Left> {
        let staying = self.staying.iter().map(|(at, ports)| (at.octets(), *ports)).collect();
        let serials = self.serials.to_bytes();
        let (mut state, mut descriptors) = (
            SpaceState { is_used: self.is_used, staying, serials, flows: Vec::new(), aliases: Default::default() },
            Vec::new(),
        );
        if let Some(gate) = self.gate {
            state.flows = gate.flows;
            let (first, addresses) = gate.aliases;
            state.aliases = (first, addresses.iter().map(ApAddress::octets).collect());
            descriptors = gate.descriptors;
        }
        Some(Left { state: postcard::to_allocvec(&state).ok()?, descriptors })
    }

    pub(super) fn read(left: Left) -> Result<Self, Refusal> {
        let state: SpaceState = postcard::from_bytes(&left.state).map_err(|_| not_whole())?;
        let staying = state.staying.into_iter().filter_map(|(at, ports)| Some((ApAddress::from_bytes(at)?, ports)));
        let (first, addresses) = state.aliases;
        let gate = (!left.descriptors.is_empty()).then(|| KeptGate {
            descriptors: left.descriptors,
            flows: state.flows,
            aliases: (first, addresses.into_iter().filter_map(ApAddress::from_bytes).collect()),
        });
        let serials = Serials::from_bytes(state.serials);
        Ok(Self { is_used: state.is_used, staying: staying.collect(), serials, gate })
    }
}

fn not_whole() -> Refusal {
    Refusal {
        errno: errno::EIO,
        message: "what the process before has left is not whole".to_owned(),
        hint: "start the programs anew".to_owned(),
    }
}

/// A session: its descriptor is the program's connection.
#[derive(Serialize, Deserialize)]
struct SessionState {
    identity: [u8; 16],
    peer: [u8; 16],
    port: u16,
    incoming: bool,
    moves: u32,
    traffic: [u64; 2],
    session: Option<Carried>,
    entry: Option<[u8; 16]>,
    is_reset: bool,
    up: Vec<u8>,
    up_over: bool,
    down: Vec<u8>,
}

fn written(kept: Kept) -> (SessionState, OwnedFd) {
    let Kept { line, session, entry, is_reset, parked } = kept;
    let Line { identity, peer, port, incoming, moves, traffic } = line;
    let (identity, peer) = (identity.octets(), peer.octets());
    let Parked { tcp, up, up_over, down } = parked;
    let state =
        SessionState { identity, peer, port, incoming, moves, traffic, session, entry, is_reset, up, up_over, down };
    (state, tcp.into())
}

fn read(state: SessionState, descriptor: OwnedFd) -> Option<Kept> {
    let SessionState { port, incoming, moves, traffic, session, entry, is_reset, up, up_over, down, .. } = state;
    let (identity, peer) = (ApAddress::from_bytes(state.identity)?, ApAddress::from_bytes(state.peer)?);
    let line = Line { identity, peer, port, incoming, moves, traffic };
    let parked = Parked { tcp: TcpStream::from(descriptor), up, up_over, down };
    Some(Kept { line, session, entry, is_reset, parked })
}

impl Running {
    /// Ends all sessions here, for the next process.
    pub(super) async fn leave_sessions_now(&self) -> Left {
        let (states, descriptors): (Vec<_>, Vec<_>) = self.network.hand_over().await.into_iter().map(written).unzip();
        match postcard::to_allocvec(&states) {
            Ok(state) => Left { state, descriptors },
            Err(error) => {
                tracing::error!("connections of programs are lost: {error}");
                Left { state: Vec::new(), descriptors: Vec::new() }
            }
        }
    }

    /// Goes on with those of the process before; their identities are in use.
    pub(super) fn go_on_with(&self, left: Left) {
        let state = Zeroizing::new(left.state);
        let states: Vec<SessionState> = postcard::from_bytes(&state).unwrap_or_default();
        let all = states.into_iter().zip(left.descriptors);
        let count = self.network.go_on(all.filter_map(|(state, descriptor)| read(state, descriptor)));
        if count > 0 {
            tracing::info!("{count} connections of programs go on");
        }
    }
}
