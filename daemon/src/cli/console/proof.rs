//! By what a page knows that its own console answers: whoever takes the port when that has ended cannot show anything in it.
//!
//! ```text
//!  page, which has the key ── GET /ROOM/state, Phantom-Challenge: a new UUID ──> console
//!                          <── Phantom-Proof: HMAC-SHA-256(key, challenge, answer) ──
//! ```
//! The key is in the page alone. The cookie would not do: the next one at this port is sent it.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use data_encoding::BASE64URL_NOPAD;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use rand::Rng;
use zeroize::Zeroizing;

pub(super) const CHALLENGE: HeaderName = HeaderName::from_static("phantom-challenge");
pub(super) const PROOF: HeaderName = HeaderName::from_static("phantom-proof");

/// Characters of a challenge, of one length: what is signed divides in one way.
const UUID: usize = 36;

/// What stands in the page for the key.
const BLANK: &str = "PROOF-KEY";

/// See the module.
pub(super) struct Proof {
    key: Key,
    written: Zeroizing<String>,
}

impl Proof {
    /// With a new key.
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self { key: Key::new(HMAC_SHA256, &*bytes), written: Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes)) }
    }

    /// The page with the key in it.
    pub(super) fn written_into(&self, page: &str) -> String {
        page.replacen(BLANK, &self.written, 1)
    }

    /// Of this answer to that request; none where none is asked for.
    pub(super) fn of<B>(&self, request: &Request<B>, answer: &[u8]) -> Option<HeaderValue> {
        let challenge = request.headers().get(CHALLENGE).filter(|challenge| challenge.len() == UUID)?;
        let tag = sign(&self.key, &[challenge.as_bytes(), answer].concat());
        HeaderValue::try_from(BASE64URL_NOPAD.encode(tag.as_ref())).ok()
    }
}
