//! Paths of web addresses, of which %-escapes are a part (RFC 3986, section 2.1), as both of our web servers read them.

/// A path with its escapes resolved. `None`: it is none.
pub(crate) fn decoded(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
            let [Some(high), Some(low)] = digits else { return None };
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    // The system would end the path at a zero.
    String::from_utf8(out).ok().filter(|path| !path.contains('\0'))
}

/// As part of a link: everything that is not a letter, a digit or harmless is escaped.
pub(crate) fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_path_is_decoded_without_panic(path: String) {
            let _ = decoded(&path);
        }

        #[test]
        fn escapes_are_resolved(text: String) {
            let expected = (!text.contains('\0')).then(|| text.clone());
            let all: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decoded(&all), expected.clone());
            prop_assert_eq!(decoded(&encoded(&text)), expected);
        }
    }
}
