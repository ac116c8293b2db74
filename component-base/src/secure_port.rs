//! A component's own HTTPS port with health and metrics: with the given certificate, or with a self-signed one that lives in memory only. Owns the
//! listener and that certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::health::Health;
use crate::metrics::SharedRegistry;
use crate::tls::{FileCertificate, TlsError, install_provider};
use crate::tls_protocols::{TlsProtocolFlags, TlsProtocols};

const ALPN: &str = "http/1.1";

/// The port's flags, but for its number, whose default each component has for itself.
#[derive(Clone, Debug, clap::Args)]
pub struct SecureServingFlags {
    /// The address of the health and metrics port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Where upstream keeps a self-signed certificate; ours is kept in memory only.
    #[arg(long, default_value = "")]
    pub cert_dir: String,
    /// Certificate of the health and metrics port; a self-signed one is made if absent.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tls: TlsProtocolFlags,
}

impl SecureServingFlags {
    /// What they say together. `host` is this machine's name.
    ///
    /// # Errors
    /// Versions or cipher suites that do not go together.
    pub fn port(
        &self,
        program: &'static str,
        host: String,
        port: u16,
    ) -> Result<SecurePort, SecurePortError> {
        Ok(SecurePort {
            program,
            host,
            address: SocketAddr::new(self.bind_address, port),
            files: self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()),
            protocols: self.tls.protocols().map_err(SecurePortError::Protocols)?,
        })
    }
}

/// The port, as the flags have it.
pub struct SecurePort {
    program: &'static str,
    host: String,
    address: SocketAddr,
    files: Option<(PathBuf, PathBuf)>,
    protocols: TlsProtocols,
}

/// Why the port does not open. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecurePortError {
    /// The certificate's files are no good.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// TLS versions or cipher suites do not go together.
    #[error("{0}")]
    Protocols(String),
    /// No certificate could be made.
    #[error(
        "cannot make a self-signed certificate: {0}; give one with --tls-cert-file and --tls-private-key-file"
    )]
    SelfSigned(Box<dyn std::error::Error + Send + Sync>),
    /// The address is taken, or none of this machine's.
    #[error(
        "cannot listen on {address}: {source}; is another {program} running? choose another --secure-port"
    )]
    Listen {
        /// Which program wants it.
        program: &'static str,
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl SecurePort {
    /// Serves health and metrics until `shutdown` fires; nothing is started if the port is switched off.
    ///
    /// # Errors
    /// See [`SecurePortError`].
    pub async fn serve(
        self,
        health: Health,
        registry: SharedRegistry,
        shutdown: CancellationToken,
    ) -> Result<Option<JoinHandle<()>>, SecurePortError> {
        if self.address.port() == 0 {
            return Ok(None);
        }
        let builder =
            self.protocols.builder().map_err(|error| SecurePortError::Protocols(error.to_string()))?;
        let mut tls = builder.with_no_client_auth().with_cert_resolver(self.certificate()?);
        tls.alpn_protocols = vec![ALPN.into()];
        let listener = self.listen().await?;
        Ok(Some(tokio::spawn(admin::serve(listener, Some(Arc::new(tls)), health, registry, shutdown))))
    }

    /// Binds the address.
    ///
    /// # Errors
    /// [`SecurePortError::Listen`].
    pub async fn listen(&self) -> Result<TcpListener, SecurePortError> {
        let Self { program, address, .. } = *self;
        let listener = TcpListener::bind(address).await;
        listener.map_err(|source| SecurePortError::Listen { program, address, source })
    }

    /// The protocol versions and cipher suites.
    pub fn protocols(&self) -> &TlsProtocols {
        &self.protocols
    }

    /// The certificate: that of the files, read again when they change, or one made now, for as long as the process lives.
    ///
    /// # Errors
    /// [`SecurePortError::Files`], [`SecurePortError::SelfSigned`].
    pub fn certificate(&self) -> Result<Arc<dyn ResolvesServerCert>, SecurePortError> {
        install_provider();
        match &self.files {
            Some((cert, key)) => Ok(Arc::new(FileCertificate::open(cert, key)?)),
            None => self.self_signed().map_err(SecurePortError::SelfSigned),
        }
    }

    fn self_signed(&self) -> Result<Arc<dyn ResolvesServerCert>, Box<dyn std::error::Error + Send + Sync>> {
        let address = self.address.ip().to_string();
        let names = vec![self.host.clone(), "localhost".to_owned(), "127.0.0.1".to_owned(), address];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = rustls::crypto::ring::default_provider();
        let pair = CertifiedKey::from_der(vec![cert.der().clone()], key, &provider)?;
        Ok(Arc::new(SingleCertAndKey::from(pair)))
    }
}
