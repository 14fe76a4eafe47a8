//! Names and addresses from people and programs: any text is read without panic, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::{ApAddress, ApName};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(name) = text.parse::<ApName>()
    {
        let written = name.to_string();
        assert!(text.to_ascii_lowercase().trim_end_matches('.') == written);
        assert_eq!(written.parse::<ApName>().map(|again| again.0), Ok(name.0));
        assert!(ApAddress::from_ipv6(name.address().ipv6()).is_some());
    }
    if let Some((key, rest)) = data.split_first_chunk::<32>() {
        // A real name, in any case, with and without its dot, then with something on top.
        let mut text = ApName(VerifyingKey(*key)).to_string();
        assert_eq!(format!("{}.", text.to_ascii_uppercase()).parse::<ApName>().map(|name| name.0.0), Ok(*key));
        text.push_str(&String::from_utf8_lossy(rest));
        assert_eq!(text.parse::<ApName>().is_ok(), rest.is_empty() || rest == b".");
    }
    if let Some(bytes) = data.first_chunk::<16>()
        && let Some(address) = ApAddress::from_bytes(*bytes)
    {
        assert_eq!(ApAddress::from_ipv6(address.ipv6()), Some(address));
        assert_eq!(address.octets(), *bytes);
    }
});
