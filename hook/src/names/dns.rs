//! Questions in the form of DNS packets, answered here: for programs that use res_query(3) and its relatives.
//!
//! Only A, AAAA, PTR and ANY have answers; of a name that exists, any other type is empty.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Addresses, Directory, Unknown, resolve, reverse};

/// Response codes.
pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// Bytes of a packet before the question.
const HEADER: usize = 12;

/// Seconds that an answer may be kept: the daemon is near, and addresses for IPv4 programs may change.
const TTL: u32 = 30;

/// Longest name in text, longest label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The packet that asks about `name`; none when it cannot be put into one.
pub(crate) fn question(id: u16, name: &str, class: u16, kind: u16) -> Option<Vec<u8>> {
    let [id_high, id_low] = id.to_be_bytes();
    // Recursion desired, one question.
    let mut packet = vec![id_high, id_low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    put_name(&mut packet, name)?;
    packet.extend(kind.to_be_bytes());
    packet.extend(class.to_be_bytes());
    Some(packet)
}

/// The packet that answers `query`; none when that has not even a header.
pub(crate) fn answer(query: &[u8], directory: &impl Directory) -> Option<Vec<u8>> {
    let header: &[u8; HEADER] = query.first_chunk()?;
    let Some((name, kind, class, end)) = parse(query) else { return Some(response(header, &[], FORMAT_ERROR, &[])) };
    let question = &query[HEADER..end];
    if class != INTERNET && class != ANY || header[2] & 0x78 != 0 {
        return Some(response(header, question, NOT_IMPLEMENTED, &[]));
    }
    Some(match records(&name, kind, directory) {
        Ok(records) => response(header, question, NO_ERROR, &records),
        Err(Unknown::NotFound) => response(header, question, NAME_ERROR, &[]),
        Err(Unknown::Again) => response(header, question, SERVER_FAILURE, &[]),
    })
}

/// Response code and number of answers of a packet.
pub(crate) fn verdict(packet: &[u8]) -> Option<(u8, u16)> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    Some((header[3] & 0xf, u16::from_be_bytes([header[6], header[7]])))
}

/// The packet's one question: name, type, class, and where it ends.
fn parse(query: &[u8]) -> Option<(String, u16, u16, usize)> {
    if query.get(4..6)? != [0, 1] {
        return None;
    }
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        // Longer ones are compression, which no question needs; odd letters are in no name of ours.
        let plain = label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        if length > MAX_LABEL || !plain || name.len() + length > MAX_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(label).ok()?);
    }
    let word = |at: usize| Some(u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?));
    Some((name, word(at)?, word(at + 2)?, at + 4))
}

fn records(name: &str, kind: u16, directory: &impl Directory) -> Result<Vec<(u16, Vec<u8>)>, Unknown> {
    if let Some(address) = reverse_name(name) {
        let mut data = Vec::new();
        let found = reverse::name_of(address, directory)?;
        put_name(&mut data, &found).ok_or(Unknown::NotFound)?;
        return Ok(if matches!(kind, PTR | ANY) { vec![(PTR, data)] } else { Vec::new() });
    }
    let Addresses { v6, v4 } = resolve(name, directory)?;
    let v6 = v6.filter(|_| matches!(kind, AAAA | ANY)).map(|address| (AAAA, address.octets().to_vec()));
    let v4 = v4.filter(|_| matches!(kind, A | ANY)).map(|address| (A, address.octets().to_vec()));
    Ok(v6.into_iter().chain(v4).collect())
}

/// The address behind a name in in-addr.arpa or ip6.arpa.
fn reverse_name(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = digits.rsplit('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let digit = |text: &str| if text.len() == 1 { u128::from_str_radix(text, 16).ok() } else { None };
    let digits: Vec<u128> = digits.rsplit('.').map(digit).collect::<Option<_>>()?;
    let whole = digits.len() == 32;
    whole.then(|| Ipv6Addr::from(digits.iter().fold(0, |sum, digit| sum << 4 | digit)).into())
}

fn response(header: &[u8; HEADER], question: &[u8], code: u8, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let questions = u8::from(!question.is_empty());
    // A response to this opcode; recursion as desired, and available.
    let flags = [0x80 | header[2] & 0x79, 0x80 | code];
    let mut packet = vec![header[0], header[1], flags[0], flags[1], 0, questions, 0, records.len() as u8, 0, 0, 0, 0];
    packet.extend(question);
    for (kind, data) in records {
        // The name is the question's, which begins right after the header.
        packet.extend([0xc0, HEADER as u8]);
        packet.extend(kind.to_be_bytes());
        packet.extend(INTERNET.to_be_bytes());
        packet.extend(TTL.to_be_bytes());
        packet.extend((data.len() as u16).to_be_bytes());
        packet.extend(data);
    }
    packet
}

fn put_name(packet: &mut Vec<u8>, name: &str) -> Option<()> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_NAME {
        return None;
    }
    for label in name.split('.').filter(|_| !name.is_empty()) {
        if label.is_empty() || label.len() > MAX_LABEL {
            return None;
        }
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.push(0);
    Some(())
}
