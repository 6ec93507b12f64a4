//! TLS: verified to the host's name whenever it is on, and what ties the login to the certificate (channel binding).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};

/// How a connection is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authorities that may have signed the server's certificate (PEM); the system's when there is none.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key (PEM), for a server that asks for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Takes any certificate of any host: whoever stands in between reads everything, the password too.
    pub insecure_skip_verify: bool,
}

impl Tls {
    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("TLS cannot be set up").because(error))?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TakesAny(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match &self.certificate {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                    wrong(format!("the key of the client certificate cannot be read from {}", key.display())).because(error)
                })?;
                builder.with_client_auth_cert(chain, private).map_err(|error| {
                    wrong(format!(
                        "the key {} does not fit the certificate {}",
                        key.display(),
                        certificate.display()
                    ))
                    .because(error)
                })
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let (found, place) = match &self.ca {
            Some(file) => (certificates(file)?, file.display().to_string()),
            None => (rustls_native_certs::load_native_certs().certs, "the system's store".to_owned()),
        };
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            return Err(wrong(format!(
                "{place} holds no certificate of an authority: name the server's with `ca`"
            )));
        }
        Ok(roots)
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::config("postgres_tls", what)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error| wrong(format!("certificates cannot be read from {}", file.display())).because(error);
    let read = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    match read.is_empty() {
        true => Err(wrong(format!("{} holds no certificate in PEM form", file.display()))),
        false => Ok(read),
    }
}

/// What is wrong and what to do about it, for a handshake that failed by what the two sides are set to. None: the connection broke.
pub(super) fn fault(error: &rustls::Error) -> Option<String> {
    let text = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority that we trust has signed the server's certificate: name the one that did with `ca`".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "the server's certificate is for another host: connect by a name that stands in it".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired: renew it, and look at the clocks".to_owned()
        }
        rustls::Error::InvalidCertificate(_) => "the server's certificate is not valid".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the server ends the handshake ({alert:?}): it may ask for a client certificate"),
        rustls::Error::PeerIncompatible(_) => "the server has no TLS version or cipher in common with us: TLS 1.2 is the oldest".to_owned(),
        _ => return None,
    };
    Some(text)
}

/// The hash of the server's certificate, which SCRAM ties the login to (RFC 5929, tls-server-end-point). None where its kind of signature
/// has none that is known here: then the login is not tied, as libpq does.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    let suite = match signature_hash(certificate)? {
        Hash::Sha256 => TLS13_AES_128_GCM_SHA256,
        Hash::Sha384 => TLS13_AES_256_GCM_SHA384,
    };
    let hash = suite.tls13()?.common.hash_provider;
    Some(hash.hash(certificate).as_ref().to_vec())
}

#[derive(Debug, PartialEq)]
enum Hash {
    Sha256,
    Sha384,
}

/// Certificate ::= SEQUENCE { what is signed SEQUENCE, algorithm SEQUENCE { OBJECT IDENTIFIER, … }, signature }
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (whole, _) = element(certificate, 0x30)?;
    let (_, behind) = element(whole, 0x30)?;
    let (algorithm, _) = element(behind, 0x30)?;
    let (oid, _) = element(algorithm, 0x06)?;
    // Under 1.2.840.113549.1.1 lie RSA's, under 1.2.840.10045.4.3 those of ECDSA. MD5 and SHA-1 count as SHA-256.
    match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 4 | 5 | 11] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 2] => Some(Hash::Sha256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3] => Some(Hash::Sha384),
        _ => None,
    }
}

/// The content of the DER element at the beginning, if it has this tag, and what lies behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (
            digits
                .iter()
                .try_fold(0_usize, |n, digit| n.checked_mul(256)?.checked_add(usize::from(*digit)))?,
            rest,
        )
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

/// What `insecure_skip_verify` means: any certificate, but the other side must hold its key.
#[derive(Debug)]
struct TakesAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_certificate_has_no_hash_and_does_no_harm() {
        let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        let mut certificate = vec![0x30, 0x81, 0x0f, 0x30, 0x01, 0x00, 0x30, 0x0a];
        certificate.extend(oid);
        assert_eq!(signature_hash(&certificate), Some(Hash::Sha384));
        for length in 0..certificate.len() {
            assert_eq!(signature_hash(&certificate[..length]), None, "cut at {length}");
        }
        assert_eq!(signature_hash(&[0x30, 0xff, 0xff, 0xff]), None);
    }
}
