//! Which certificates of an extension server count, and upstream's words for those that do not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use component_base::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

const UNREADABLE: &str = "unable to load root certificates: unable to parse bytes as PEM block";

/// Which certificates of an extension server count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those of the authorities that the system trusts.
    System,
    /// Those of these authorities, DER.
    Authorities(Vec<Vec<u8>>),
    /// All.
    Anyone,
}

impl Trust {
    /// By a `caBundle`: PEM in base64. Without one the system decides.
    ///
    /// # Errors
    /// There is no certificate in it.
    pub fn of_bundle(bundle: &str) -> Result<Self, String> {
        if bundle.is_empty() {
            return Ok(Self::System);
        }
        Self::of_pem(&STANDARD.decode(bundle).map_err(|_| UNREADABLE.to_owned())?)
    }

    /// By the certificates of a PEM file.
    ///
    /// # Errors
    /// There is none in it, or no such file.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        Self::of_pem(&pem).map_err(named)
    }

    /// By certificates as PEM.
    ///
    /// # Errors
    /// There is none.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        let authorities: Vec<Vec<u8>> =
            CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).map(|cert| cert.to_vec()).collect();
        if authorities.is_empty() { Err(UNREADABLE.to_owned()) } else { Ok(Self::Authorities(authorities)) }
    }

    /// The TLS side of a client. HTTP/1.1, so that requests spread over the servers behind one address.
    ///
    /// # Errors
    /// The identity's files cannot be used, or no authority can.
    pub fn client(&self, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, String> {
        let files = match identity {
            Some(Identity::Files { cert, key }) => Some((cert.as_path(), key.as_path())),
            Some(Identity::Pem { .. }) | None => None,
        };
        let base = tls::client_config(None, files, &["http/1.1"]).map_err(|error| error.to_string())?;
        let mut config = (*base).clone();
        if let Some(Identity::Pem { cert, key }) = identity {
            config.client_auth_cert_resolver = shown(cert, key, config.crypto_provider())?;
        }
        let provider = Arc::clone(config.crypto_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Anyone => Arc::new(Anyone(provider)),
            Self::System => authorities(system_roots()?)?,
            Self::Authorities(list) => {
                let (mut roots, mut pinned) = (RootCertStore::empty(), Vec::new());
                for der in list {
                    let cert = CertificateDer::from(der.clone());
                    // One that is no authority may still be the server's own.
                    let _ = roots.add(cert.clone());
                    pinned.push(cert);
                }
                Arc::new(Authorities { inner: authorities(roots)?, pinned })
            }
        };
        config.dangerous().set_certificate_verifier(verifier);
        Ok(Arc::new(config))
    }
}

/// The certificate that a client shows.
#[derive(Clone)]
pub enum Identity {
    /// In PEM files, which may be renewed.
    Files {
        /// The certificate, and those between it and its authority.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// As PEM.
    Pem {
        /// The certificate, and those between it and its authority.
        cert: Vec<u8>,
        /// Its key.
        key: Vec<u8>,
    },
}

/// Shows a certificate to every server that asks for one.
fn shown(cert: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Arc<dyn ResolvesClientCert>, String> {
    let certs = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
    let certs = certs.ok().filter(|certs| !certs.is_empty());
    let certs = certs.ok_or("tls: failed to find any PEM data in certificate input")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
    let certified = CertifiedKey::from_der(certs, key, provider).map_err(|error| format!("tls: {error}"))?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn authorities(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| format!("unable to load root certificates: {error}"))
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("the system trusts no certificate authority".to_owned()) } else { Ok(roots) }
}

/// Certificates of some authorities, and those that are in the list themselves: a server that signs its own certificate is listed as its authority.
#[derive(Debug)]
struct Authorities {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn verify_pinned(
        &self,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let subject = tls::subject(cert).map_err(|error| rustls::Error::General(error.to_string()))?;
        if subject.not_after < i64::try_from(now.as_secs()).unwrap_or(i64::MAX) {
            return Err(CertificateError::Expired.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return self.verify_pinned(end_entity, server_name, now);
        }
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes every certificate: what happens where verification is switched off.
#[derive(Debug)]
pub struct Anyone(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake is called. Pure.
pub fn failure(error: &std::io::Error, server_name: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let about = match inner {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate has expired or is not yet valid".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("certificate is not valid for any names, but wanted to match {server_name}")
            }
            other => other.to_string(),
        },
        Some(other) => return format!("tls: {other}"),
        None => return error.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {about}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_where_there_is_one() {
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a certificate");
        let (cert, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
        let shows = |identity: Option<&Identity>| {
            Trust::Anyone.client(identity).map(|config| config.client_auth_cert_resolver.has_certs())
        };
        assert_eq!(shows(None), Ok(false));
        assert_eq!(shows(Some(&Identity::Pem { cert: cert.clone(), key: key.clone() })), Ok(true));
        let no_key = Identity::Pem { cert: cert.clone(), key: cert.clone() };
        assert_eq!(shows(Some(&no_key)), Err("tls: failed to find any PEM data in key input".to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let files = Identity::Files { cert: folder.path().join("a.crt"), key: folder.path().join("a.key") };
        assert!(shows(Some(&files)).is_err_and(|error| error.contains("a.crt")));
        std::fs::write(folder.path().join("a.crt"), &cert).expect("written");
        std::fs::write(folder.path().join("a.key"), &key).expect("written");
        assert_eq!(shows(Some(&files)), Ok(true));
    }
}
