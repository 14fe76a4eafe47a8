//! The question to a resolver and its answer, as bytes: nothing is believed that does not fit the question.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use phantom_proto::ident::ApAddress;

use crate::far::Unanswered;

/// Names in a row that stand for each other; resolvers stop about there too.
const MAX_ALIASES: usize = 8;

/// What a resolver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// The AP address, if the name has one.
    pub(super) address: Option<ApAddress>,
    /// How long it may be kept, in seconds; none if the answer does not say.
    pub(super) lifetime: Option<u32>,
}

/// The message that asks for the IPv6 addresses of a name.
pub(super) fn question(id: u16, name: &Name) -> Result<Vec<u8>, Unanswered> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), RecordType::AAAA));
    message.to_vec().map_err(|_| Unanswered)
}

/// Reads an answer to [`question`]: the first AP address of the name, through its aliases. All other addresses count as
/// none, since they lead out of Phantom.
pub(super) fn read(bytes: &[u8], id: u16, name: &Name) -> Result<Heard, Unanswered> {
    let message = Message::from_vec(bytes).map_err(|_| Unanswered)?;
    let [asked] = &message.queries[..] else { return Err(Unanswered) };
    let head = &message.metadata;
    let is_answer = head.message_type == MessageType::Response && head.op_code == OpCode::Query && head.id == id;
    let is_ours = asked.name == *name && asked.query_type == RecordType::AAAA && asked.query_class == DNSClass::IN;
    if !is_answer || !is_ours || head.truncation {
        return Err(Unanswered);
    }
    match head.response_code {
        ResponseCode::NoError => Ok(follow(&message, name)),
        ResponseCode::NXDomain => Ok(Heard { address: None, lifetime: None }),
        _ => Err(Unanswered),
    }
}

fn follow(message: &Message, name: &Name) -> Heard {
    let (mut name, mut lifetime) = (name, u32::MAX);
    for _ in 0..=MAX_ALIASES {
        let of_name =
            || message.answers.iter().filter(|record| record.name == *name && record.dns_class == DNSClass::IN);
        let address = of_name().find_map(|record| match &record.data {
            RData::AAAA(address) => Some((ApAddress::from_ipv6(address.0)?, record.ttl)),
            _ => None,
        });
        if let Some((address, ttl)) = address {
            return Heard { address: Some(address), lifetime: Some(lifetime.min(ttl)) };
        }
        let alias = of_name().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else { break };
        (name, lifetime) = (target, lifetime.min(ttl));
    }
    Heard { address: None, lifetime: None }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use proptest::prelude::*;

    use super::*;

    const AP: &str = "fd70::1";
    const FOREIGN: &str = "2001:db8::1";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn ap(text: &str) -> ApAddress {
        ApAddress::from_ipv6(text.parse().unwrap()).unwrap()
    }

    fn aaaa(owner: &str, ttl: u32, address: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::AAAA(AAAA(address.parse().unwrap())))
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    /// The answer to a question for `shop.example.` under the id 7.
    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name("shop.example."), RecordType::AAAA));
        message.answers = records;
        message
    }

    fn heard(message: &Message) -> Result<Heard, Unanswered> {
        read(&message.to_vec().unwrap(), 7, &name("shop.example."))
    }

    fn found(address: &str, lifetime: u32) -> Heard {
        Heard { address: Some(ap(address)), lifetime: Some(lifetime) }
    }

    const NOTHING: Heard = Heard { address: None, lifetime: None };

    #[test]
    fn the_question_is_one_that_a_server_reads() {
        let message = Message::from_vec(&question(7, &name("shop.example.")).unwrap()).unwrap();
        assert!(message.metadata.recursion_desired && message.metadata.id == 7);
        assert_eq!(message.queries, [Query::query(name("shop.example."), RecordType::AAAA)]);
    }

    #[test]
    fn only_ap_addresses_are_taken() {
        assert_eq!(heard(&answer(vec![aaaa("shop.example.", 60, AP)])), Ok(found(AP, 60)));
        let both = vec![aaaa("shop.example.", 60, FOREIGN), aaaa("SHOP.example.", 50, AP)];
        assert_eq!(heard(&answer(both)), Ok(found(AP, 50)));
        assert_eq!(heard(&answer(vec![aaaa("shop.example.", 60, FOREIGN)])), Ok(NOTHING));
        let a = RData::A(A("192.0.2.1".parse().unwrap()));
        assert_eq!(heard(&answer(vec![Record::from_rdata(name("shop.example."), 60, a)])), Ok(NOTHING));
        assert_eq!(heard(&answer(Vec::new())), Ok(NOTHING));
        assert_eq!(heard(&answer(vec![aaaa("other.example.", 60, AP)])), Ok(NOTHING), "of another name");
    }

    #[test]
    fn aliases_are_followed_within_the_answer_and_not_for_ever() {
        let chain = vec![
            aaaa("c.example.", 90, AP),
            cname("b.example.", 30, "c.example."),
            cname("shop.example.", 60, "b.example."),
        ];
        assert_eq!(heard(&answer(chain)), Ok(found(AP, 30)));
        let circle = vec![cname("shop.example.", 60, "b.example."), cname("b.example.", 60, "shop.example.")];
        assert_eq!(heard(&answer(circle)), Ok(NOTHING));
        assert_eq!(heard(&answer(vec![cname("shop.example.", 60, "b.example.")])), Ok(NOTHING));
    }

    #[test]
    fn answers_that_do_not_fit_the_question_are_none() {
        let good = || answer(vec![aaaa("shop.example.", 60, AP)]);
        let changed = |change: fn(&mut Message)| {
            let mut message = good();
            change(&mut message);
            heard(&message)
        };
        assert!(changed(|_| {}).is_ok());
        assert_eq!(changed(|message| message.metadata.id = 8), Err(Unanswered));
        assert_eq!(changed(|message| message.metadata.message_type = MessageType::Query), Err(Unanswered));
        assert_eq!(changed(|message| message.metadata.op_code = OpCode::Notify), Err(Unanswered));
        assert_eq!(changed(|message| message.metadata.truncation = true), Err(Unanswered));
        assert_eq!(changed(|message| message.queries.clear()), Err(Unanswered));
        assert_eq!(changed(|message| message.queries[0].name = name("other.example.")), Err(Unanswered));
        assert_eq!(changed(|message| message.queries[0].query_type = RecordType::A), Err(Unanswered));
        assert_eq!(changed(|message| message.metadata.response_code = ResponseCode::ServFail), Err(Unanswered));
        assert_eq!(changed(|message| message.metadata.response_code = ResponseCode::NXDomain), Ok(NOTHING));
    }

    #[test]
    fn compression_that_never_ends_is_no_answer() {
        let mut bytes = answer(Vec::new()).to_vec().unwrap();
        // One answer whose name points to itself.
        bytes[7] = 1;
        let here = u8::try_from(bytes.len()).unwrap();
        bytes.extend([0xc0, here, 0, 28, 0, 1, 0, 0, 0, 60, 0, 0]);
        assert_eq!(read(&bytes, 7, &name("shop.example.")), Err(Unanswered));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, 7, &name("shop.example."));
        }

        #[test]
        fn changed_bytes_never_lead_out_of_phantom(at in 0usize..200, with: u8, cut in 0usize..200) {
            let records = vec![cname("shop.example.", 60, "b.example."), aaaa("b.example.", 60, AP), aaaa("b.example.", 60, FOREIGN)];
            let mut bytes = answer(records).to_vec().unwrap();
            let length = bytes.len();
            bytes[at % length] = with;
            bytes.truncate(length - cut % length);
            // An ApAddress is one by its type; that it was read at all is what could go wrong.
            let _ = read(&bytes, 7, &name("shop.example."));
        }
    }
}
