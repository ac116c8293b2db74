//! Client certificates. The handshake takes any certificate whose key the client holds; which CA vouches for it is asked here, once a
//! connection and content of the CA's file, so that a bad certificate gets an HTTP answer instead of a broken connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use component_base::followed::Followed;
use component_base::tls;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

/// A CA that vouches for clients, as its file has it now.
#[derive(Debug)]
pub struct ClientCa {
    path: PathBuf,
    bundle: Followed<Bundle>,
}

/// What the file of a CA held at one moment.
#[derive(Debug)]
pub struct Bundle {
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Bundle {
    fn load(path: &Path) -> Result<Self, String> {
        let roots = Arc::new(tls::load_roots(path).map_err(|error| error.to_string())?);
        let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots))
            .build()
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { roots, verifier })
    }

    /// Whether the CA vouches for the chain's first certificate, now.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Err("no certificate".into()) };
        self.verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

impl ClientCa {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// A text naming the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        tls::install_provider();
        let bundle = Followed::open(&[path], || Bundle::load(path))?;
        Ok(Self { path: path.to_owned(), bundle })
    }

    /// What the file holds, and how many contents it has had: what was found out by an earlier one no longer counts.
    pub fn current(&self) -> (u64, Arc<Bundle>) {
        self.bundle.current(|| Bundle::load(&self.path))
    }
}

/// Takes any client certificate in the handshake, having checked that the client holds its key.
#[derive(Debug)]
pub struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
}

impl AnyClient {
    /// Names the CAs to clients that choose a certificate by that.
    pub fn new(authorities: &[Arc<Bundle>]) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        let hints = authorities.iter().flat_map(|bundle| bundle.roots.subjects()).collect();
        Self { algorithms: provider.signature_verification_algorithms, hints }
    }
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
