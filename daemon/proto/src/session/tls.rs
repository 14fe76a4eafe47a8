//! TLS 1.3 between two AP keys: raw public keys (RFC 7250) both ways, one version, few choices, no tickets.
//!
//! Its randomness is the library's own: rustls takes none as an argument.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};
use zeroize::Zeroizing;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::ident::ApAddress;

/// The server's verdict, as the protocol that it chooses: encrypted, signed, and in its first flight. rustls sends no half-RTT data
/// where clients are authenticated, and so a message would come a round trip later.
// protocol: S7
pub(super) const ACCEPTED: &[u8] = b"phantom/1";
/// As [`ACCEPTED`]: nothing listens on the port.
pub(super) const REFUSED: &[u8] = b"phantom/1 refused";

/// What both ends agree to: TLS 1.3 with a post-quantum key exchange and 256-bit ciphers. There is nothing to fall back to (I8), so no
/// older or weaker choice is offered.
// protocol: S4, S6
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// Raw public keys do not expire: TLS needs no clock, and so gets none.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// PKCS #8 version 1 of an Ed25519 seed, up to the seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A TLS client that accepts nobody but the owner of `target`.
pub(super) fn client(key: &SigningKey, target: ApAddress) -> Result<ClientConnection, Error> {
    // An address is no host name: no SNI is sent.
    ClientConnection::new(Arc::new(client_config(key, target)?), ServerName::IpAddress(target.ipv6().into()))
}

pub(super) fn client_config(key: &SigningKey, target: ApAddress) -> Result<ClientConfig, Error> {
    client_config_of(PROVIDER.clone(), key, target)
}

pub(super) fn client_config_of(
    provider: Arc<CryptoProvider>,
    key: &SigningKey,
    target: ApAddress,
) -> Result<ClientConfig, Error> {
    let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OwnerOf { target }))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ACCEPTED.to_vec(), REFUSED.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A TLS server that accepts any AP key and tells which.
pub(super) fn server(key: &SigningKey, accepted: bool) -> Result<ServerConnection, Error> {
    ServerConnection::new(Arc::new(server_config(key, accepted)?))
}

// protocol: S5
pub(super) fn server_config(key: &SigningKey, accepted: bool) -> Result<ServerConfig, Error> {
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let mut config = ServerConfig::builder_with_details(PROVIDER.clone(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyApKey))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![if accepted { ACCEPTED } else { REFUSED }.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

pub(super) fn certified(key: &SigningKey) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = Zeroizing::new([&PKCS8_PREFIX[..], key.seed()].concat());
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&key.verifying_key()))], signer)))
}

fn spki(key: &VerifyingKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key.0].concat()
}

/// The AP key in a raw public key certificate.
pub(super) fn ap_key(certificate: &CertificateDer<'_>) -> Option<VerifyingKey> {
    let key = certificate.strip_prefix(&SPKI_PREFIX[..])?;
    Some(VerifyingKey(key.try_into().ok()?))
}

fn wrong() -> Error {
    Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)
}

fn verify_raw(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = SubjectPublicKeyInfoDer::from(certificate.as_ref());
    verify_tls13_signature_with_raw_key(message, &key, signed, &PROVIDER.signature_verification_algorithms)
}

/// Only the key whose hash is the address that was dialed (I6).
#[derive(Debug)]
struct OwnerOf {
    target: ApAddress,
}

impl ServerCertVerifier for OwnerOf {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = ap_key(certificate).ok_or_else(wrong)?;
        if ApAddress::of(&key) == self.target { Ok(ServerCertVerified::assertion()) } else { Err(wrong()) }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(wrong())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_raw(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Any AP key, proven: its hash is the peer's address.
#[derive(Debug)]
struct AnyApKey;

impl ClientCertVerifier for AnyApKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ap_key(certificate).map(|_| ClientCertVerified::assertion()).ok_or_else(wrong)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(wrong())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_raw(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
