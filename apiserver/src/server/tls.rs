//! The TLS side of the port: serving certificates follow their files, client certificates are asked for and judged later, and the handshake names the CAs
//! that clients may choose a certificate by, as their files have them now.

use std::sync::Arc;

use component_base::tls_protocols::TlsProtocols;
use component_base::{sni, tls};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;

use crate::authn::Authenticator;
use crate::authn::certificate::{AnyClient, Bundle, ClientCa};
use crate::options::Options;
use crate::server::self_signed;

/// What connections are accepted with.
pub struct ServingTls {
    protocols: TlsProtocols,
    certificates: Arc<dyn ResolvesServerCert>,
    authorities: Vec<Arc<ClientCa>>,
    alpn: Vec<Vec<u8>>,
    /// Made for these contents of the authorities' files.
    made: Mutex<(Vec<u64>, Arc<ServerConfig>)>,
}

impl ServingTls {
    /// By the flags.
    ///
    /// # Errors
    /// A text naming the flag.
    pub fn new(options: &Options, authenticator: &Authenticator) -> Result<Self, String> {
        let (cert, key) = match (&options.tls_cert_file, &options.tls_private_key_file) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => self_signed::pair(options)?,
        };
        tls::install_provider();
        let protocols = options.tls.protocols()?;
        let certificates = sni::resolver((&cert, &key), &options.tls_sni_cert_key).map_err(|error| {
            format!("--tls-cert-file, --tls-private-key-file, --tls-sni-cert-key: {error}")
        })?;
        let alpn: &[&str] = if options.disable_http2_serving { &["http/1.1"] } else { &["h2", "http/1.1"] };
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let authorities = authenticator.authorities();
        let (generations, bundles) = contents(&authorities);
        let config = config(&protocols, &certificates, &bundles, &alpn)
            .map_err(|error| format!("--tls-min-version, --tls-cipher-suites: {error}"))?;
        Ok(Self { protocols, certificates, authorities, alpn, made: Mutex::new((generations, config)) })
    }

    /// What to accept the next connection with.
    pub fn current(&self) -> Arc<ServerConfig> {
        let (generations, bundles) = contents(&self.authorities);
        let mut made = self.made.lock();
        if made.0 != generations {
            match config(&self.protocols, &self.certificates, &bundles, &self.alpn) {
                Ok(config) => *made = (generations, config),
                Err(error) => tracing::warn!(%error, "connections are accepted as before"),
            }
        }
        Arc::clone(&made.1)
    }
}

fn contents(authorities: &[Arc<ClientCa>]) -> (Vec<u64>, Vec<Arc<Bundle>>) {
    authorities.iter().map(|ca| ca.current()).unzip()
}

fn config(
    protocols: &TlsProtocols,
    certificates: &Arc<dyn ResolvesServerCert>,
    authorities: &[Arc<Bundle>],
    alpn: &[Vec<u8>],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = protocols
        .builder()?
        .with_client_cert_verifier(Arc::new(AnyClient::new(authorities)))
        .with_cert_resolver(Arc::clone(certificates));
    config.alpn_protocols = alpn.to_vec();
    Ok(Arc::new(config))
}
