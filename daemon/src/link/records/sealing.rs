//! Records that leave on a link that stands (RFC 8446, section 5): sealed where they wait, cut as rustls cuts them.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::BytesMut;
use rustls::crypto::cipher::{self, Iv, make_tls13_aad};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType};

use super::HEADER;

/// Bytes of a record's content at most.
const CONTENT_MAX: usize = 1 << 14;

/// What sealing adds: header, kind, tag.
const AROUND: usize = HEADER + 1 + TAG;

const TAG: usize = 16;

/// Bytes on the wire under one key at most. RFC 8446, section 5.5, allows AES-GCM 2^24.5 full records, which are 2^34.5 calls of the
/// cipher: as many as these bytes cost when each record has a single one.
// protocol: L42
pub(in super::super) const KEY_LIMIT: u64 = 1 << 38;

/// Seals what leaves with one key.
pub(super) struct Sealer {
    key: LessSafeKey,
    iv: Iv,
    /// Number of the next record.
    next: u64,
    /// Bytes on the wire so far.
    pub(super) sealed: u64,
    /// How many there may be.
    limit: u64,
}

/// The key has sealed as much as it may, or a record could not be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the key of the link is used up")]
pub(super) struct UsedUp;

impl Sealer {
    /// For so many bytes on the wire. `None`: it is a cipher that is never offered.
    pub(super) fn new((next, secrets): (u64, ConnectionTrafficSecrets), limit: u64) -> Option<Self> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        Some(Self::with(UnboundKey::new(algorithm, key.as_ref()).ok()?, iv, next, limit))
    }

    pub(super) fn with(key: UnboundKey, iv: Iv, next: u64, limit: u64) -> Self {
        // What rustls has sealed counts as if its records had been full.
        let sealed = next.saturating_mul((CONTENT_MAX + AROUND) as u64);
        Self { key: LessSafeKey::new(key), iv, next, sealed, limit: limit.min(KEY_LIMIT) }
    }

    /// Appends content in as few records as it needs.
    ///
    /// # Errors
    /// Some of it was not appended: only an alert may follow.
    // protocol: L42
    pub(super) fn content(&mut self, content: &[u8], out: &mut BytesMut) -> Result<(), UsedUp> {
        out.reserve(content.len() + content.len().div_ceil(CONTENT_MAX) * AROUND);
        for part in content.chunks(CONTENT_MAX) {
            if self.sealed + (part.len() + AROUND) as u64 > self.limit {
                return Err(UsedUp);
            }
            self.record(ContentType::ApplicationData, part, out)?;
        }
        Ok(())
    }

    /// Appends an alert, behind which nothing may follow.
    ///
    /// # Errors
    /// Never, as far as is known.
    pub(super) fn alert(&mut self, alert: AlertDescription, out: &mut BytesMut) -> Result<(), UsedUp> {
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        self.record(ContentType::Alert, &[level, alert.into()], out)
    }

    /// Appends one record, whose number is used once.
    pub(super) fn record(&mut self, kind: ContentType, content: &[u8], out: &mut BytesMut) -> Result<(), UsedUp> {
        let nonce = cipher::Nonce::new(&self.iv, self.next);
        self.next = self.next.checked_add(1).ok_or(UsedUp)?;
        let header = make_tls13_aad(content.len() + 1 + TAG);
        out.extend_from_slice(&header);
        let from = out.len();
        out.extend_from_slice(content);
        out.extend_from_slice(&[kind.into()]);
        let nonce = Nonce::assume_unique_for_key(nonce.0);
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[from..]).map_err(|_| UsedUp)?;
        out.extend_from_slice(tag.as_ref());
        self.sealed += (content.len() + AROUND) as u64;
        Ok(())
    }
}
