//! The certificate that strangers see: made here, or given by the operator.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use rand::RngExt;
use rand::rngs::StdRng;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::LinkError;

const DAY: u64 = 24 * 3600;

/// A self-signed certificate's life: what people give those that they do not want to think of again.
const LIFE: Duration = Duration::from_secs(3650 * DAY);

/// It seems to have been made at some time in the last half year, so that it does not tell when the node began.
const AGE: u64 = 180 * DAY;

/// The certificate that strangers see, with its key. Nodes do not rely on it: they prove their identity keys.
#[derive(Clone)]
pub struct Certificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
}

impl Certificate {
    /// Makes a self-signed certificate for `name`, a host name or an IP address.
    ///
    /// Keep it ([`Certificate::to_pem`]): a server with a new certificate at every start is remarkable.
    pub fn self_signed(name: &str) -> Result<Self, LinkError> {
        let failed = |error: rcgen::Error| LinkError::Local(format!("no certificate for {name}: {error}"));
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        // The library's own subject and dates are a mark by which one could look for its users.
        params.distinguished_name.push(DnType::CommonName, name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let made = now.saturating_sub(rand::make_rng::<StdRng>().random_range(0..AGE));
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(made);
        params.not_after = params.not_before + LIFE;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| LinkError::Local(format!("no certificate key: {error}")))?;
        Ok(Self { chain: vec![certificate.der().clone()], key: Arc::new(key) })
    }

    /// Reads a chain, own certificate first, and its private key from PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, LinkError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| LinkError::Local(format!("the certificate file is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(LinkError::Local("the certificate file holds no certificate".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| LinkError::Local(format!("the certificate's key file holds no key: {error}")))?;
        Ok(Self { chain, key: Arc::new(key) })
    }

    /// Chain and private key as PEM.
    pub fn to_pem(&self) -> (String, Zeroizing<String>) {
        let kind = match &*self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let chain = self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
        (chain, Zeroizing::new(pem(kind, self.key.secret_der())))
    }
}

/// Says nothing of the key.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate(chain of {})", self.chain.len())
    }
}

/// RFC 7468: lines of 64 characters.
fn pem(kind: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {kind}-----\n");
    for line in der.chunks(48) {
        BASE64.encode_append(line, &mut text);
        text.push('\n');
    }
    text + &format!("-----END {kind}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_round_trip() {
        let made = Certificate::self_signed("www.example.org").unwrap();
        let (chain, key) = made.to_pem();
        let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!((&read.chain, &read.key), (&made.chain, &made.key));
        assert_eq!(format!("{read:?}"), "Certificate(chain of 1)");
    }

    #[test]
    fn files_without_certificate_or_key_are_explained() {
        let (chain, key) = Certificate::self_signed("192.0.2.1").unwrap().to_pem();
        assert!(Certificate::from_pem(b"", key.as_bytes()).unwrap_err().to_string().contains("no certificate"));
        assert!(Certificate::from_pem(chain.as_bytes(), b"").unwrap_err().to_string().contains("no key"));
    }

    /// The subject is the operator's, in the place where browsers and scanners look, and no library's mark is left.
    #[test]
    fn the_certificate_bears_no_librarys_name() {
        let made = Certificate::self_signed("www.example.org").unwrap();
        let der = made.chain[0].as_ref();
        let has = |text: &[u8]| der.windows(text.len()).filter(|part| *part == text).count();
        assert_eq!(has(b"rcgen"), 0);
        // Issuer, subject, alternative name.
        assert_eq!(has(b"www.example.org"), 3);
    }
}
