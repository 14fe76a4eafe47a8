//! Name questions of programs that see the host's own resolv.conf: if it names a resolver on loopback, one answers there.
//!
//! To any other address the gate itself answers, so this is needed only for loopback, which never reaches the gate.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_reuseport;

use crate::control::{Contact, Line};
use crate::local;
use crate::mounts::RESOLVER_ADDRESS;

/// Port of DNS.
const PORT: u16 = 53;

/// Resolvers that libc looks at.
const MAX_SERVERS: usize = 3;

/// dnsmasq and its like, and systemd-resolved's two.
const USUAL: [Ipv4Addr; 3] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Questions under way; then the oldest is forgotten, and asked again by the program.
const MAX_QUESTIONS: u16 = 1024;

/// Longest message over UDP that programs take.
const MESSAGE: usize = 4096;

/// Sockets in the phantom namespace: at the addresses that programs ask, and towards the gate.
pub(crate) struct StandIn {
    asking: Vec<UdpSocket>,
    gate: UdpSocket,
}

/// Opens what is needed; none when no resolver on loopback is named.
pub(crate) fn open(contact: &Contact) -> Result<Option<StandIn>> {
    let addresses = on_loopback(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    if addresses.is_empty() {
        return Ok(None);
    }
    let mut line = Line::open(&contact.socket)?;
    let asking: Result<_> = addresses.into_iter().map(|address| asked_at(&mut line, contact, address)).collect();
    Ok(Some(StandIn { asking: asking?, gate: towards_gate(&mut line, contact)? }))
}

/// The same for a file that was not there before, or may change: where it says, and where resolvers of computers are; not where
/// the program has one of its own.
pub(crate) fn open_anew(contact: &Contact) -> Result<StandIn> {
    let named = on_loopback(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let addresses: BTreeSet<IpAddr> = named.into_iter().chain(USUAL.map(IpAddr::V4)).collect();
    let mut line = Line::open(&contact.socket)?;
    let asking = addresses.into_iter().filter_map(|address| asked_at(&mut line, contact, address).ok()).collect();
    Ok(StandIn { asking, gate: towards_gate(&mut line, contact)? })
}

fn asked_at(line: &mut Line, contact: &Contact, address: IpAddr) -> Result<UdpSocket> {
    let at = SocketAddr::new(address, PORT);
    let socket = local::socket(line, &contact.identity, at, libc::SOCK_DGRAM)?;
    // Other programs of the same identity may have one too; the kernel takes turns.
    set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &at).with_context(|| format!("offering a resolver at {address}"))?;
    Ok(socket.into())
}

fn towards_gate(line: &mut Line, contact: &Contact) -> Result<UdpSocket> {
    let to = SocketAddr::new(RESOLVER_ADDRESS.into(), PORT);
    let gate = local::socket(line, &contact.identity, to, libc::SOCK_DGRAM)?;
    rustix::net::connect(&gate, &to).context("reaching the gate's resolver")?;
    Ok(gate.into())
}

/// Passes a question on. The end of a gate ends what leads to it; the next one is in its place.
fn ask(gate: &UdpSocket, question: &[u8]) -> io::Result<()> {
    if gate.send(question).is_err() {
        gate.connect((RESOLVER_ADDRESS, PORT))?;
        gate.send(question)?;
    }
    Ok(())
}

/// The resolvers on loopback in a resolv.conf. libc takes 127.0.0.1 when none is named.
fn on_loopback(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let all: Vec<IpAddr> = named.filter_map(|word| word.parse().ok()).take(MAX_SERVERS).collect();
    if all.is_empty() {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    all.into_iter().filter(IpAddr::is_loopback).collect()
}

/// Carries questions and answers, in a thread of its own. This process must not fork any more.
pub(crate) fn serve(stand_in: &StandIn) -> io::Result<()> {
    let asking: Vec<UdpSocket> = stand_in.asking.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
    let gate = stand_in.gate.try_clone()?;
    thread::Builder::new().spawn(move || {
        let mut table = Table { asked: vec![None; MAX_QUESTIONS.into()], next: 0 };
        while table.turn(&asking, &gate).is_ok() {}
    })?;
    Ok(())
}

/// Who asked: at which socket, from where, by which id.
type Question = (usize, SocketAddr, [u8; 2]);

struct Table {
    asked: Vec<Option<Question>>,
    next: u16,
}

impl Table {
    /// Waits for messages and passes each on. What cannot be sent is lost, as it may be with UDP.
    fn turn(&mut self, asking: &[UdpSocket], gate: &UdpSocket) -> io::Result<()> {
        let mut polled: Vec<PollFd<'_>> =
            asking.iter().chain([gate]).map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let mut message = [0; MESSAGE];
        for (socket, _) in ready.iter().take(asking.len()).enumerate().filter(|(_, ready)| **ready) {
            if let Ok((length, from)) = asking[socket].recv_from(&mut message)
                && let Some(id) = message[..length].first_chunk_mut()
            {
                let slot = self.next;
                self.next = (slot + 1) % MAX_QUESTIONS;
                self.asked[usize::from(slot)] = Some((socket, from, *id));
                *id = slot.to_be_bytes();
                let _ = ask(gate, &message[..length]);
            }
        }
        if ready[asking.len()]
            && let Ok(length) = gate.recv(&mut message)
            && let Some(id) = message[..length].first_chunk_mut()
            && let Some(asked) = self.asked.get_mut(usize::from(u16::from_be_bytes(*id)))
            && let Some((socket, to, own)) = asked.take()
        {
            *id = own;
            let _ = asking[socket].send_to(&message[..length], to);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_on_loopback_need_somebody_there() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(on_loopback(""), [loopback]);
        assert_eq!(on_loopback("# nothing\nsearch a b\nnameserver\nnameserver x"), [loopback]);
        assert!(on_loopback("nameserver 192.0.2.1\n").is_empty());
        let text = "nameserver 192.0.2.1\n nameserver\t127.0.0.53 \nnameserver ::1\nnameserver 127.0.0.9";
        let expected: [IpAddr; 2] = [Ipv4Addr::new(127, 0, 0, 53).into(), std::net::Ipv6Addr::LOCALHOST.into()];
        assert_eq!(on_loopback(text), expected);
    }
}
