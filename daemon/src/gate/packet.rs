//! IP packets as a TUN device with virtio headers gives and takes them: reading, rewriting, answering, checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of the virtio header in front of every packet: flags, kind of segmentation, and four 16-bit numbers.
pub(super) const VNET: usize = 10;

/// A super-packet is at most 64 KiB of IP, plus its virtio header.
pub(super) const MAX_FRAME: usize = VNET + 65_535;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// IP protocol numbers that the gate reads.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Offset of the checksum inside a TCP header.
const TCP_CSUM: usize = 16;

/// Bits of the TCP flags byte.
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// As much of a packet as an ICMP error may quote: the error fits the smallest MTU (1280 and 576 bytes).
const QUOTE_V6: usize = 1280 - 48;
const QUOTE_V4: usize = 576 - 28;

/// A frame whose IP header was checked: lengths hold, no fragment, no options, no extension headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Where it comes from.
    pub(super) source: IpAddr,
    /// Where it wants to go.
    pub(super) destination: IpAddr,
    /// TCP, UDP or something else.
    pub(super) protocol: u8,
    /// Where the transport header begins in the frame.
    pub(super) l4: usize,
    /// Whether the checksum covers the pseudo header only, the rest being left to the device.
    partial: bool,
}

/// The TCP header's fields that matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) flags: u8,
    pub(super) sequence: u32,
    acknowledgement: u32,
    /// Sequence numbers that the segment takes: payload, SYN, FIN.
    length: u32,
}

impl Segment {
    /// A SYN that opens a connection.
    pub(super) fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}

/// Why a packet cannot go on, as ICMP says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The host cannot be reached (EHOSTUNREACH).
    Host,
    /// Policy forbids it (EACCES for IPv6, EHOSTUNREACH for IPv4).
    Prohibited,
    /// Nobody has the UDP port (ECONNREFUSED).
    Port,
}

/// Reads the IP header of a frame; none if it is malformed, fragmented, or has options or extension headers.
pub(super) fn parse(frame: &[u8]) -> Option<View> {
    let packet = frame.get(VNET..)?;
    let (source, destination, protocol, header) = match packet.first()? >> 4 {
        4 => parse_v4(packet)?,
        6 => parse_v6(packet)?,
        _ => return None,
    };
    let view = View { source, destination, protocol, l4: VNET + header, partial: frame[0] & NEEDS_CSUM != 0 };
    offloads_fit(frame, &view).then_some(view)
}

fn parse_v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, usize)> {
    const HEADER: usize = 20;
    let h: &[u8; HEADER] = packet.first_chunk()?;
    let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
    let length = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] != 0x45 || fragment != 0 || length != packet.len() {
        return None;
    }
    let source = Ipv4Addr::new(h[12], h[13], h[14], h[15]);
    let destination = Ipv4Addr::new(h[16], h[17], h[18], h[19]);
    Some((source.into(), destination.into(), h[9], HEADER))
}

fn parse_v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, usize)> {
    const HEADER: usize = 40;
    let h: &[u8; HEADER] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if length + HEADER != packet.len() || ![TCP, UDP].contains(&h[6]) {
        return None;
    }
    let address = |at: usize| h[at..].first_chunk::<16>().map(|raw| IpAddr::from(Ipv6Addr::from(*raw)));
    Some((address(8)?, address(24)?, h[6], HEADER))
}

/// Whether the virtio header asks for nothing but what a TCP packet of this family may ask for.
fn offloads_fit(frame: &[u8], view: &View) -> bool {
    let number = |at: usize| usize::from(u16::from_ne_bytes([frame[at], frame[at + 1]]));
    let gso = frame[1] & !GSO_ECN;
    if view.protocol != TCP {
        return gso == GSO_NONE;
    }
    let csum_fits = !view.partial || (number(6) == view.l4 - VNET && number(8) == TCP_CSUM);
    let wanted = if view.source.is_ipv4() { GSO_TCP4 } else { GSO_TCP6 };
    csum_fits && (gso == GSO_NONE || (gso == wanted && view.partial && number(4) > 0))
}

/// Reads the TCP header of a frame.
pub(super) fn segment(frame: &[u8], view: &View) -> Option<Segment> {
    let tcp = frame.get(view.l4..)?;
    let h: &[u8; 20] = tcp.first_chunk()?;
    let header = usize::from(h[12] >> 4) * 4;
    let payload = tcp.len().checked_sub(header).filter(|_| header >= 20)?;
    let flags = h[13];
    let length = payload + usize::from(flags & SYN != 0) + usize::from(flags & FIN != 0);
    Some(Segment {
        source: SocketAddr::new(view.source, u16::from_be_bytes([h[0], h[1]])),
        destination: SocketAddr::new(view.destination, u16::from_be_bytes([h[2], h[3]])),
        flags,
        sequence: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        acknowledgement: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        length: u32::try_from(length).ok()?,
    })
}

/// Source port, destination port and payload of a UDP frame whose length field fits.
pub(super) fn datagram<'a>(frame: &'a [u8], view: &View) -> Option<(u16, u16, &'a [u8])> {
    let udp = frame.get(view.l4..)?;
    let h: &[u8; 8] = udp.first_chunk()?;
    if usize::from(u16::from_be_bytes([h[4], h[5]])) != udp.len() {
        return None;
    }
    Some((u16::from_be_bytes([h[0], h[1]]), u16::from_be_bytes([h[2], h[3]]), &udp[8..]))
}

/// Gives a TCP frame other addresses and ports, and keeps its checksums right. Segmentation headers stay as they are.
/// Returns false, with the frame untouched, when the families differ.
pub(super) fn rewrite(frame: &mut [u8], view: &View, source: SocketAddr, destination: SocketAddr) -> bool {
    let v4 = view.source.is_ipv4();
    if source.is_ipv4() != v4 || destination.is_ipv4() != v4 || frame.len() < view.l4 + 20 {
        return false;
    }
    let addresses = if v4 { VNET + 12..VNET + 20 } else { VNET + 8..VNET + 40 };
    let ports = view.l4..view.l4 + 4;
    let (old_addresses, old_ports) = (sum(&frame[addresses.clone()]), sum(&frame[ports.clone()]));
    let middle = addresses.len() / 2;
    write_address(&mut frame[addresses.clone()][..middle], source.ip());
    write_address(&mut frame[addresses.clone()][middle..], destination.ip());
    frame[ports.start..][..2].copy_from_slice(&source.port().to_be_bytes());
    frame[ports.start + 2..][..2].copy_from_slice(&destination.port().to_be_bytes());
    let (new_addresses, new_ports) = (sum(&frame[addresses]), sum(&frame[ports]));
    if v4 {
        adjust(frame, VNET + 10, old_addresses, new_addresses, false);
    }
    // A partial checksum covers the pseudo header alone, and is not complemented.
    let (old, new) = if view.partial {
        (old_addresses, new_addresses)
    } else {
        (old_addresses + old_ports, new_addresses + new_ports)
    };
    adjust(frame, view.l4 + TCP_CSUM, old, new, view.partial);
    true
}

fn write_address(to: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => to.copy_from_slice(&address.octets()),
        IpAddr::V6(address) => to.copy_from_slice(&address.octets()),
    }
}

/// Replaces `old` by `new` in the checksum at `at` (RFC 1624, equation 3).
fn adjust(frame: &mut [u8], at: usize, old: u64, new: u64, plain: bool) {
    let field = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let field = if plain { field } else { !field };
    let field = fold(u64::from(field) + u64::from(!fold(old)) + u64::from(fold(new)));
    let field = if plain { field } else { !field };
    frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

/// Sum of 16-bit words, the last padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let whole: u64 = words.by_ref().map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    whole + words.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

/// One's complement sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The reset that answers a segment (RFC 9293, section 3.5.2), from where it wanted to go.
pub(super) fn reset(to: &Segment) -> Vec<u8> {
    let (sequence, acknowledgement, flags) = if to.flags & ACK != 0 {
        (to.acknowledgement, 0, RST)
    } else {
        (0, to.sequence.wrapping_add(to.length), RST | ACK)
    };
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(to.destination.port().to_be_bytes());
    tcp.extend(to.source.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgement.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    build(to.destination.ip(), to.source.ip(), TCP, tcp, TCP_CSUM)
}

/// The ICMP error about a frame, as if from where it wanted to go.
pub(super) fn unreachable(frame: &[u8], view: &View, obstacle: Obstacle) -> Vec<u8> {
    let v4 = view.source.is_ipv4();
    let packet = &frame[VNET..];
    let (kind, code) = match (v4, obstacle) {
        (true, Obstacle::Host) => (3, 1),
        (true, Obstacle::Prohibited) => (3, 13),
        (true, Obstacle::Port) => (3, 3),
        (false, Obstacle::Host) => (1, 3),
        (false, Obstacle::Prohibited) => (1, 1),
        (false, Obstacle::Port) => (1, 4),
    };
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend(&packet[..packet.len().min(if v4 { QUOTE_V4 } else { QUOTE_V6 })]);
    build(view.destination, view.source, if v4 { ICMP } else { ICMP6 }, icmp, 2)
}

/// A UDP datagram as a frame. The payload must fit 16 bits with both headers; else the frame is empty.
pub(super) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(8 + payload.len()) else { return Vec::new() };
    let mut udp = Vec::with_capacity(8 + payload.len());
    udp.extend(source.port().to_be_bytes());
    udp.extend(destination.port().to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    build(source.ip(), destination.ip(), UDP, udp, 6)
}

/// Puts virtio and IP headers before a transport message and fills in the checksum at `csum`.
fn build(source: IpAddr, destination: IpAddr, protocol: u8, mut l4: Vec<u8>, csum: usize) -> Vec<u8> {
    let mut frame = vec![0; VNET];
    let Ok(length) = u16::try_from(l4.len() + 20) else { return Vec::new() };
    let pseudo = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let checksum = !fold(sum(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
            if protocol == ICMP { None } else { Some(sum(&header[12..20])) }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((length - 20).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            Some(sum(&source.octets()) + sum(&destination.octets()))
        }
        _ => return Vec::new(),
    };
    let pseudo = pseudo.map_or(0, |addresses| addresses + u64::from(protocol) + u64::from(length - 20));
    let checksum = match !fold(sum(&l4) + pseudo) {
        // Zero means "no checksum" in UDP.
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    };
    l4[csum..csum + 2].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(l4);
    frame
}
