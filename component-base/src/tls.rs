//! Certificates and keys from files into rustls configurations; a server picks up renewed files without a restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::followed::Followed;
use crate::tls_protocols::TlsProtocols;

/// Why TLS could not be set up. `Display` names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no PEM block of the kind wanted.
    #[error("{path} holds no PEM {wanted}")]
    Empty {
        /// Which file.
        path: PathBuf,
        /// "certificate" or "private key".
        wanted: &'static str,
    },
    /// rustls refuses the certificate, key or combination.
    #[error("{path}: {source}")]
    Rustls {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The roots for client certificates do not work.
    #[error("client CA {path}: {message}")]
    ClientCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Not an X.509 certificate.
    #[error("malformed certificate: {0}")]
    Malformed(String),
}

/// What a TLS server is made of.
#[derive(Clone, Debug)]
pub struct ServerTls<'a> {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM key: PKCS#1, PKCS#8 or SEC1.
    pub key: PathBuf,
    /// PEM bundle that client certificates are verified against; `None` asks for no client certificate.
    pub client_ca: Option<PathBuf>,
    /// Refuse connections without a client certificate.
    pub require_client_cert: bool,
    /// ALPN protocols, preferred first.
    pub alpn: &'a [&'a str],
}

/// The identity a certificate states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// First CN.
    pub common_name: String,
    /// All O values.
    pub organizations: Vec<String>,
    /// DNS names of the subject alternative name.
    pub dns_names: Vec<String>,
    /// IP addresses of the subject alternative name.
    pub ip_addresses: Vec<std::net::IpAddr>,
    /// URIs of the subject alternative name.
    pub uris: Vec<String>,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// All certificates of a PEM file, at least one.
///
/// # Errors
/// Unreadable file, or no certificate in it.
pub fn load_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certs = rustls_pemfile::certs(&mut pem.as_slice())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if certs.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), wanted: "certificate" });
    }
    Ok(certs)
}

/// The first private key of a PEM file.
///
/// # Errors
/// Unreadable file, or no key in it.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    rustls_pemfile::private_key(&mut pem.as_slice())
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?
        .ok_or_else(|| TlsError::Empty { path: path.to_owned(), wanted: "private key" })
}

/// A PEM bundle as trust anchors.
///
/// # Errors
/// Unreadable file, no certificate, or one that is not a usable anchor.
pub fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in load_certs(path)? {
        roots.add(cert).map_err(|source| TlsError::Rustls { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// Makes *ring* the process's crypto provider; called by everything here, harmless when repeated.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A server configuration whose certificate follows the files.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(tls: &ServerTls<'_>) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with(tls, &TlsProtocols::default())
}

/// The same for these protocol versions and cipher suites only.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config_with(
    tls: &ServerTls<'_>,
    protocols: &TlsProtocols,
) -> Result<Arc<ServerConfig>, TlsError> {
    install_provider();
    let builder =
        protocols.builder().map_err(|source| TlsError::Rustls { path: tls.cert.clone(), source })?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(load_roots(path)?));
            let verifier = if tls.require_client_cert { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::ClientCa { path: path.clone(), message: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(FileCertificate::open(&tls.cert, &tls.key)?));
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client configuration. Without `roots` no server is trusted.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(
    roots: Option<&Path>,
    identity: Option<(&Path, &Path)>,
    alpn: &[&str],
) -> Result<Arc<ClientConfig>, TlsError> {
    install_provider();
    let store = roots.map_or_else(|| Ok(RootCertStore::empty()), load_roots)?;
    let builder = ClientConfig::builder().with_root_certificates(store);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(load_certs(cert)?, load_key(key)?)
            .map_err(|source| TlsError::Rustls { path: cert.to_owned(), source })?,
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// Reads the identity out of a (verified) certificate.
///
/// # Errors
/// [`TlsError::Malformed`].
pub fn subject(cert: &CertificateDer<'_>) -> Result<Subject, TlsError> {
    let malformed = |error: &dyn fmt::Display| TlsError::Malformed(error.to_string());
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|e| malformed(&e))?;
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned).ok();
    let mut subject = Subject {
        common_name: parsed.subject().iter_common_name().find_map(text).unwrap_or_default(),
        organizations: parsed.subject().iter_organization().filter_map(text).collect(),
        not_after: parsed.validity().not_after.timestamp(),
        ..Subject::default()
    };
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(dns) => subject.dns_names.push((*dns).to_owned()),
                GeneralName::URI(uri) => subject.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => match bytes.len() {
                    4 => subject.ip_addresses.extend(<[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from)),
                    16 => {
                        subject.ip_addresses.extend(<[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
    Ok(subject)
}

/// The certificate that is in the files now.
#[derive(Debug)]
pub(crate) struct FileCertificate {
    cert: PathBuf,
    key: PathBuf,
    files: Followed<CertifiedKey>,
}

impl FileCertificate {
    pub(crate) fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Followed::open(&[cert, key], || Self::load(cert, key))?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), files })
    }

    fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
        let chain = load_certs(cert)?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, load_key(key)?, &provider)
            .map_err(|source| TlsError::Rustls { path: cert.to_owned(), source })
    }

    /// What is to be served now.
    pub(crate) fn current(&self) -> Arc<CertifiedKey> {
        self.files.current(|| Self::load(&self.cert, &self.key)).1
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params =
            rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("params");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let cert = params.self_signed(&key).expect("sign");
        let paths = (dir.join("tls.crt"), dir.join("tls.key"));
        std::fs::write(&paths.0, cert.pem()).expect("write");
        std::fs::write(&paths.1, key.serialize_pem()).expect("write");
        paths
    }

    #[test]
    fn subject_has_name_groups_and_addresses() {
        let dir = tempfile::tempdir().expect("dir");
        let (cert, _) = write_pair(dir.path(), "admin");
        let subject = subject(&load_certs(&cert).expect("load")[0]).expect("parse");
        assert_eq!(
            (subject.common_name.as_str(), subject.organizations.as_slice()),
            ("admin", &["system:masters".to_owned()][..])
        );
        assert_eq!(subject.dns_names, ["localhost"]);
        assert_eq!(subject.ip_addresses, ["127.0.0.1".parse::<std::net::IpAddr>().expect("ip")]);
    }

    #[test]
    fn errors_name_the_file_and_what_is_missing() {
        let dir = tempfile::tempdir().expect("dir");
        let (cert, _) = write_pair(dir.path(), "x");
        assert!(
            load_key(&cert)
                .expect_err("a certificate is no key")
                .to_string()
                .contains("holds no PEM private key")
        );
        let missing = dir.path().join("missing.crt");
        assert!(load_certs(&missing).expect_err("missing").to_string().contains("missing.crt"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let (cert, key) = write_pair(dir.path(), "x");
        std::fs::write(&key, rcgen::KeyPair::generate().expect("key").serialize_pem()).expect("write");
        let tls = ServerTls { cert, key, client_ca: None, require_client_cert: false, alpn: &["h2"] };
        assert!(matches!(server_config(&tls), Err(TlsError::Rustls { .. })));
    }
}
