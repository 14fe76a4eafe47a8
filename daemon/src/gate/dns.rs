//! The resolver that programs in the phantom namespace talk to: a DNS message in, a DNS message out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use phantom_proto::ident::ApAddress;

use super::aliases::{Aliases, OWN_IPV4, shown_as};
use super::{Found, Network, Unanswered, is_own_name};

/// How long programs may keep an answer, in seconds. Short, since IPv4 aliases are handed on when many are in use.
const LIFETIME: u32 = 60;

/// What fits one packet everywhere, in bytes.
const PAYLOAD: u16 = 1_232;

/// Records of one name: how long they hold, and their data.
type Records = (u32, Vec<RData>);

/// Answers one DNS message; none if it is not even the beginning of a question.
pub(super) async fn answer(
    message: &[u8],
    own: ApAddress,
    network: &dyn Network,
    aliases: &Mutex<Aliases>,
) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(message) else { return malformed(message) };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&query.metadata);
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        answer.edns = Some(edns);
    }
    answer.metadata.response_code = match &query.queries[..] {
        _ if query.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [question] if question.query_class != DNSClass::IN => ResponseCode::Refused,
        [question] => match look_up(&question.name, question.query_type, own, network, aliases).await {
            Ok(Some((lifetime, records))) => {
                let record = |data| Record::from_rdata(question.name.clone(), lifetime, data);
                answer.answers = records.into_iter().map(record).collect();
                ResponseCode::NoError
            }
            Ok(None) => ResponseCode::NXDomain,
            Err(Unanswered) => ResponseCode::ServFail,
        },
        _ => ResponseCode::FormErr,
    };
    answer.to_vec().ok()
}

/// What cannot be read is told so, if at least it has the header of a question.
fn malformed(message: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let is_query = message.len() >= HEADER && message[2] & 0x80 == 0;
    let id = u16::from_be_bytes(*message.first_chunk()?);
    is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())?
}

/// The data behind a name, empty if there is none of this type; none if there is no such name.
async fn look_up(
    name: &Name,
    kind: RecordType,
    own: ApAddress,
    network: &dyn Network,
    aliases: &Mutex<Aliases>,
) -> Result<Option<Records>, Unanswered> {
    if let Some(address) = reverse(name) {
        let Some(name) = name_of(address, own, network, aliases).await else { return Ok(None) };
        let pointer = matches!(kind, RecordType::PTR | RecordType::ANY).then_some(RData::PTR(PTR(name)));
        return Ok(Some((LIFETIME, pointer.into_iter().collect())));
    }
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    if text == "localhost" || text.ends_with(".localhost") || is_own_name(text) {
        return Ok(Some((LIFETIME, addresses(kind, Ipv6Addr::LOCALHOST, || Ipv4Addr::LOCALHOST))));
    }
    let Some(Found { address, lifetime }) = network.resolve(text).await? else { return Ok(None) };
    let ipv4 = || shown_as(aliases, own, address);
    Ok(Some((lifetime.min(LIFETIME), addresses(kind, address.ipv6(), ipv4))))
}

fn addresses(kind: RecordType, v6: Ipv6Addr, v4: impl FnOnce() -> Ipv4Addr) -> Vec<RData> {
    match kind {
        RecordType::AAAA | RecordType::ANY => vec![RData::AAAA(AAAA(v6))],
        RecordType::A => vec![RData::A(A(v4()))],
        _ => Vec::new(),
    }
}

/// The whole address that a name of `ip6.arpa` or `in-addr.arpa` stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

async fn name_of(address: IpAddr, own: ApAddress, network: &dyn Network, aliases: &Mutex<Aliases>) -> Option<Name> {
    let address = match address {
        IpAddr::V6(address) => ApAddress::from_ipv6(address)?,
        IpAddr::V4(OWN_IPV4) => own,
        IpAddr::V4(alias) => aliases.lock().unwrap_or_else(PoisonError::into_inner).behind(alias)?,
    };
    let mut name = Name::from_ascii(network.name_of(address).await?).ok()?;
    name.set_fqdn(true);
    Some(name)
}
