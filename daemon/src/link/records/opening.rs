//! Records that arrive on a link that stands (RFC 8446, section 5): opened in place by rustls' own cipher, and judged as rustls
//! judges them, so that nobody on the wire can tell who reads.

use bytes::{Buf, BytesMut};
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType, Error, PeerMisbehaved, ProtocolVersion};

use super::{HEADER, length};

/// What follows a header is shorter. TLS 1.3 would allow less, but rustls judges by this first, and then by what was inside.
const WIRE_LIMIT: usize = (1 << 14) + 2048;

/// Records without content that may follow each other.
const EMPTY_MAX: u8 = 32;

/// Warnings without a meaning that a link may bring.
const WARNINGS_MAX: u8 = 4;

/// Opens what arrives with one key.
pub(super) struct Opener {
    pub(super) cipher: Box<dyn MessageDecrypter>,
    /// Number of the next record.
    pub(super) next: u64,
    /// Records without content, one after the other.
    empty: u8,
    /// Warnings so far.
    warnings: u8,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// close_notify.
    Said,
    /// TCP's end, without it.
    Cut,
    /// Something is wrong, or the other end says so.
    Broken {
        /// What.
        why: &'static str,
        /// The alert that answers it.
        alert: Option<AlertDescription>,
    },
}

impl Opener {
    /// `None`: it is a cipher that is never offered.
    pub(super) fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (suite, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (suite::TLS13_AES_128_GCM_SHA256, key, iv),
            Aes256Gcm { key, iv } => (suite::TLS13_AES_256_GCM_SHA384, key, iv),
            Chacha20Poly1305 { key, iv } => (suite::TLS13_CHACHA20_POLY1305_SHA256, key, iv),
            _ => return None,
        };
        Some(Self { cipher: suite.tls13()?.aead_alg.decrypter(key, iv), next, empty: 0, warnings: 0 })
    }

    /// Takes the next record and gives its content, which may be empty. `None`: not all of it has arrived.
    ///
    /// # Errors
    /// There is none: nothing more may be opened.
    pub(super) fn open(&mut self, arrived: &mut BytesMut) -> Result<Option<BytesMut>, End> {
        let Some((kind, length)) = whole(arrived)? else { return Ok(None) };
        let mut record = arrived.split_to(HEADER + length);
        record.advance(HEADER);
        if kind == ContentType::ChangeCipherSpec {
            let alert =
                if record[..] == [1] { AlertDescription::UnexpectedMessage } else { AlertDescription::DecodeError };
            return Err(broken("a change of ciphers behind the handshake", alert));
        }
        let message = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, &mut record);
        let plain = self.cipher.decrypt(message, self.next).map_err(|error| fault(&error))?;
        self.next += 1;
        let (kind, length) = (plain.typ, plain.payload.len());
        record.truncate(length);
        self.empty = if length > 0 { 0 } else { self.empty + 1 };
        if self.empty > EMPTY_MAX {
            return Err(End::Broken { why: "too many records without content", alert: None });
        }
        match kind {
            ContentType::ApplicationData => return Ok(Some(record)),
            ContentType::Alert => self.alert(&record)?,
            // protocol: L41
            ContentType::Handshake => return Err(broken("the handshake is over", AlertDescription::UnexpectedMessage)),
            _ => return Err(broken("a record of an unknown kind", AlertDescription::DecodeError)),
        }
        Ok(Some(BytesMut::new()))
    }

    /// RFC 8446, section 6. What it says of its level goes for all alerts but two, of which one means nothing.
    fn alert(&mut self, alert: &[u8]) -> Result<(), End> {
        use AlertDescription::{CloseNotify, DecodeError, IllegalParameter, UserCanceled};
        let &[level, description] = alert else { return Err(broken("a malformed alert", DecodeError)) };
        match (level, AlertDescription::from(description)) {
            (0 | 3.., _) => Err(broken("an alert of an unknown level", IllegalParameter)),
            (_, CloseNotify) => Err(End::Said),
            (1, _) if self.warnings == WARNINGS_MAX => Err(End::Broken { why: "too many warnings", alert: None }),
            (1, UserCanceled) => {
                self.warnings += 1;
                Ok(())
            }
            (1, _) => Err(broken("a warning that TLS 1.3 does not have", DecodeError)),
            (2, _) => Err(End::Broken { why: "the other end says that something is wrong", alert: None }),
        }
    }
}

/// Kind and length of the first record once all of it has arrived. What is wrong with its header is seen as soon as it has arrived.
fn whole(arrived: &[u8]) -> Result<Option<(ContentType, usize)>, End> {
    let wrong = |why| Err(broken(why, AlertDescription::DecodeError));
    let Some(&kind) = arrived.first() else { return Ok(None) };
    let kind = ContentType::from(kind);
    if matches!(kind, ContentType::Unknown(_)) {
        return wrong("it is no record");
    }
    let Some(&[_, high, low]) = arrived.first_chunk() else { return Ok(None) };
    if matches!(ProtocolVersion::from(u16::from_be_bytes([high, low])), ProtocolVersion::Unknown(_) if high != 3) {
        return wrong("a record of another protocol");
    }
    let Some(header) = arrived.first_chunk() else { return Ok(None) };
    let length = length(header);
    if length == 0 && kind != ContentType::ApplicationData {
        return wrong("an empty record");
    }
    if length >= WIRE_LIMIT {
        return wrong("too long a record");
    }
    Ok((arrived.len() >= HEADER + length).then_some((kind, length)))
}

/// What rustls says of a record that it did not open, and how it answers.
fn fault(error: &Error) -> End {
    match error {
        Error::DecryptError => broken("not from the other end", AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => broken("too long a record", AlertDescription::RecordOverflow),
        Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
            broken("a change of ciphers behind the handshake", AlertDescription::UnexpectedMessage)
        }
        _ => End::Broken { why: "nothing but padding", alert: None },
    }
}

fn broken(why: &'static str, alert: AlertDescription) -> End {
    End::Broken { why, alert: Some(alert) }
}
