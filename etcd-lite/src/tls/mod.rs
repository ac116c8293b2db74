//! TLS of the client and the peer port and towards peers, from files that may be renewed, revoked or replaced at any time.
//!
//! Owns: which certificates are shown and which are taken, by etcd's rules. Never here: sockets.

mod auto;
mod checks;
mod policy;
mod reloading;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use component_base::tls::{load_certs, load_key};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub use auto::ensure as ensure_self_signed;
pub use checks::check_source;
use checks::{CheckedClient, CheckedServer, Demands};
pub use policy::Policy;
pub use reloading::Reloading;

/// Where an operating system keeps the authorities it trusts.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// One side's flags: `--cert-file` and so on, or those with `--peer-`.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificate shown to who connects.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Certificate and key shown to whom this member connects; none means those above.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Authority of the other side.
    pub trusted_ca: Option<PathBuf>,
    /// Revoked certificates of the other side.
    pub crl: Option<PathBuf>,
    /// The one CN that is taken.
    pub allowed_cn: Option<String>,
    /// The name certificates have to be good for.
    pub allowed_hostname: Option<String>,
    /// Whether the certificates are made by the members themselves, so that nobody can check them.
    pub is_self_signed: bool,
}

impl TlsFiles {
    fn demands(&self) -> anyhow::Result<Demands> {
        Demands::read(self.allowed_cn.clone(), self.allowed_hostname.as_deref(), self.crl.as_deref())
    }

    fn files(&self) -> Vec<PathBuf> {
        let client = self.client.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]);
        [self.cert.clone(), self.key.clone()]
            .into_iter()
            .chain(client)
            .chain(self.trusted_ca.clone())
            .chain(self.crl.clone())
            .collect()
    }

    /// What a port serves with; asks for certificates when there is an authority to check them by.
    ///
    /// # Errors
    /// A file is missing or does not hold what it should.
    pub fn server(
        self,
        policy: &Policy,
        alpn: &'static [&'static str],
    ) -> anyhow::Result<Reloading<ServerConfig>> {
        let (provider, versions) = (policy.provider(), policy.versions());
        Reloading::new(self.files(), Box::new(move || server(&self, &provider, versions, alpn)))
    }

    /// What this member connects with.
    ///
    /// # Errors
    /// A file is missing or does not hold what it should.
    pub fn client(
        self,
        policy: &Policy,
        alpn: &'static [&'static str],
    ) -> anyhow::Result<Reloading<ClientConfig>> {
        let (provider, versions) = (policy.provider(), policy.versions());
        Reloading::new(self.files(), Box::new(move || client(&self, &provider, versions, alpn)))
    }
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn roots(path: &Path) -> anyhow::Result<Arc<RootCertStore>> {
    Ok(Arc::new(component_base::tls::load_roots(path)?))
}

fn server(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> anyhow::Result<ServerConfig> {
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let builder = match &files.trusted_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(path)?, Arc::clone(provider))
                .build()
                .with_context(|| format!("client CA {}", path.display()))?;
            builder.with_client_cert_verifier(Arc::new(CheckedClient::new(verifier, files.demands()?)))
        }
    };
    let mut config = builder
        .with_single_cert(load_certs(&files.cert)?, load_key(&files.key)?)
        .with_context(|| format!("{} and {}", files.cert.display(), files.key.display()))?;
    config.alpn_protocols = protocols(alpn);
    if files.trusted_ca.is_some() {
        // A resumed session would keep a certificate good after its end.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn client(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> anyhow::Result<ClientConfig> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let checked = if files.is_self_signed {
        CheckedServer::unchecked(Arc::clone(provider))
    } else {
        let system = || SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
        let Some(path) = files.trusted_ca.as_deref().or_else(system) else {
            bail!("no authority to check peers by; set --peer-trusted-ca-file");
        };
        CheckedServer::by_authority(roots(path)?, Arc::clone(provider), files.demands()?)?
    };
    let (cert, key) = files.client.as_ref().map_or((&files.cert, &files.key), |(cert, key)| (cert, key));
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(checked))
        .with_client_auth_cert(load_certs(cert)?, load_key(key)?)
        .with_context(|| format!("{} and {}", cert.display(), key.display()))?;
    config.alpn_protocols = protocols(alpn);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
