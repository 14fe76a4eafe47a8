//! The gate's resolver: any message is answered, or not, without panic; what is answered carries the question's id.
#![no_main]

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Some(answer) = phantom_fuzz::gate::dns_answer(message) {
        let read = Message::from_vec(&answer).expect("our answer is a message");
        assert_eq!(read.metadata.message_type, MessageType::Response);
        assert_eq!(answer[..2], message[..2]);
    }
});
