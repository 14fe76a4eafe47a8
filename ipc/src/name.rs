//! Names that people give to identities: what may be one, for launcher and daemon alike.

/// Longest name, bytes: one label of a DNS name.
pub const MAX_NAME: usize = 63;

/// Names that mean something else already.
const RESERVED: [&str; 2] = ["localhost", "phantom"];

/// A text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name must be 1 to {MAX_NAME} characters of a-z, 0-9 and inner hyphens, not only digits, and not `{}` or `{}`",
    RESERVED[0],
    RESERVED[1]
)]
pub struct NameError;

/// Whether `text` may be the name of an identity: one label of lower-case letters, digits and inner hyphens.
///
/// # Errors
/// When it may not.
pub fn check(text: &str) -> Result<(), NameError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let edges = text.starts_with('-') || text.ends_with('-');
    // All digits would be read as an IPv4 address by resolvers.
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=MAX_NAME).contains(&text.len());
    if fits && plain && !edges && !number && !RESERVED.contains(&text) { Ok(()) } else { Err(NameError) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Names fit into messages.
    const _: () = assert!(MAX_NAME <= crate::hook::MAX_IDENTITY);

    #[test]
    fn names_are_one_plain_label() {
        for text in ["a", "shop", "a-b", "1a", "1-2", &"n".repeat(MAX_NAME)] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let long = "n".repeat(MAX_NAME + 1);
        for text in ["", " ", "Shop", "a b", "a.b", "-a", "a-", "80", "../a", "a\0", "ä", "localhost", "phantom", &long]
        {
            assert_eq!(check(text), Err(NameError), "{text}");
        }
    }
}
