//! What is asked of the other side's certificate beyond its authority: a CN, a name, not being revoked, coming from where it says. Never
//! here: authorities and dates, which the library checks.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

/// Time to look up the names in a certificate.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// What a certificate has to satisfy.
#[derive(Debug, Default)]
pub(super) struct Demands {
    common_name: Option<String>,
    hostname: Option<ServerName<'static>>,
    /// Serial numbers, without leading zeros.
    revoked: HashSet<Vec<u8>>,
}

impl Demands {
    pub(super) fn read(
        common_name: Option<String>,
        hostname: Option<&str>,
        crl: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let hostname = hostname
            .map(|name| {
                ServerName::try_from(name.to_owned()).with_context(|| format!("{name:?} is no host name"))
            })
            .transpose()?;
        let revoked = crl.map(revoked_serials).transpose()?.unwrap_or_default();
        Ok(Self { common_name, hostname, revoked })
    }

    fn check(&self, chain: &[&CertificateDer<'_>]) -> Result<(), Error> {
        let Some(leaf) = chain.first() else { return Err(Error::NoCertificatesPresented) };
        if let Some(wanted) = &self.common_name {
            let subject = component_base::tls::subject(leaf).map_err(|_| CertificateError::BadEncoding)?;
            if subject.common_name != *wanted {
                return Err(Error::General(format!(
                    "client certificate authentication failed: its CN is {:?} and {wanted:?} is asked for",
                    subject.common_name
                )));
            }
        }
        if let Some(hostname) = &self.hostname {
            let parsed = ParsedCertificate::try_from(*leaf)?;
            rustls::client::verify_server_name(&parsed, hostname).map_err(|error| {
                Error::General(format!("client certificate authentication failed: {error}"))
            })?;
        }
        if !self.revoked.is_empty() {
            for certificate in chain {
                let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
                    .map_err(|_| CertificateError::BadEncoding)?;
                if self.revoked.contains(plain_serial(parsed.raw_serial())) {
                    return Err(CertificateError::Revoked.into());
                }
            }
        }
        Ok(())
    }
}

fn plain_serial(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

/// As etcd reads the list: whoever signed it and however old it is.
fn revoked_serials(path: &Path) -> anyhow::Result<HashSet<Vec<u8>>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pem = rustls_pemfile::crls(&mut bytes.as_slice()).next();
    let der = match pem {
        Some(Ok(der)) => der.to_vec(),
        _ => bytes,
    };
    let (_, list) = x509_parser::parse_x509_crl(&der)
        .map_err(|error| anyhow::anyhow!("{} is no certificate revocation list: {error}", path.display()))?;
    Ok(list.iter_revoked_certificates().map(|entry| plain_serial(entry.raw_serial()).to_vec()).collect())
}

/// Checks who connects.
#[derive(Debug)]
pub(super) struct CheckedClient {
    inner: Arc<dyn ClientCertVerifier>,
    demands: Demands,
}

impl CheckedClient {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, demands: Demands) -> Self {
        Self { inner, demands }
    }
}

impl ClientCertVerifier for CheckedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now)?;
        self.demands.check(&std::iter::once(leaf).chain(intermediates).collect::<Vec<_>>())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks to whom this member connects.
pub(super) struct CheckedServer {
    /// `None` for certificates that members made for themselves.
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    demands: Demands,
}

impl CheckedServer {
    pub(super) fn by_authority(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        demands: Demands,
    ) -> anyhow::Result<Self> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .context("peers' authority")?;
        Ok(Self { inner: Some(inner), provider, demands })
    }

    pub(super) fn unchecked(provider: Arc<CryptoProvider>) -> Self {
        Self { inner: None, provider, demands: Demands::default() }
    }
}

impl fmt::Debug for CheckedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedServer").field("demands", &self.demands).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for CheckedServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(inner) = &self.inner {
            inner.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        }
        self.demands.check(&std::iter::once(leaf).chain(intermediates).collect::<Vec<_>>())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate that names addresses or hosts comes from one of them, as etcd asks of clients and peers.
///
/// # Errors
/// It comes from elsewhere; the text names both.
pub async fn check_source(certificate: &CertificateDer<'_>, source: IpAddr) -> Result<(), String> {
    let source = source.to_canonical();
    let subject = component_base::tls::subject(certificate).map_err(|error| error.to_string())?;
    let (addresses, names) = (&subject.ip_addresses, &subject.dns_names);
    if addresses.contains(&source) || (addresses.is_empty() && names.is_empty()) {
        return Ok(());
    }
    if names.is_empty() {
        let valid = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(format!("x509: certificate is valid for {valid}, not {source}"));
    }
    let look_up = async {
        // A wildcard names no host that could be looked up.
        for name in names.iter().filter(|name| !name.starts_with('*')) {
            if let Ok(mut found) = tokio::net::lookup_host((name.as_str(), 0)).await
                && found.any(|address| address.ip().to_canonical() == source)
            {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(LOOKUP_DEADLINE, look_up).await {
        Ok(true) => Ok(()),
        _ => Err(format!("tls: \"{source}\" does not match any of DNSNames {names:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).expect("a certificate").cert.der().clone()
    }

    #[tokio::test]
    async fn a_certificate_comes_from_where_it_says() {
        let here = "127.0.0.1".parse().expect("address");
        let check = async |names: &[&str]| check_source(&certificate(names), here).await;
        check(&[]).await.expect("it says nothing");
        check(&["127.0.0.1", "nowhere.invalid"]).await.expect("the address");
        check(&["localhost"]).await.expect("the name of the address");
        let error = check(&["10.0.0.1"]).await.expect_err("another address");
        assert_eq!(error, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1");
        let error = check(&["nowhere.invalid"]).await.expect_err("another name");
        assert_eq!(error, "tls: \"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"]");
        check_source(&certificate(&["127.0.0.1"]), "::ffff:127.0.0.1".parse().expect("mapped"))
            .await
            .expect("the same address");
    }

    #[test]
    fn revoked_serials_are_read_from_pem_and_der() {
        let dir = tempfile::tempdir().expect("dir");
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::Issuer::new(params, key);
        let now = std::time::SystemTime::now();
        let list = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: 0x8001_u64.into(),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).expect("a list");
        let path = dir.path().join("crl");
        for bytes in [list.pem().expect("PEM").into_bytes(), list.der().to_vec()] {
            std::fs::write(&path, bytes).expect("write");
            let revoked = revoked_serials(&path).expect("a list");
            assert!(revoked.contains(&[0x80, 0x01][..]) && revoked.len() == 1, "{revoked:?}");
        }
        std::fs::write(&path, "no list").expect("write");
        assert!(
            revoked_serials(&path)
                .expect_err("no list")
                .to_string()
                .contains("no certificate revocation list")
        );
    }
}
