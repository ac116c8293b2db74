//! From the security flags to what each port and connection speaks. Never here: how TLS works.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use rustls::ClientConfig;

use crate::listener::ServerTls;
use crate::options::{EtcdUrl, Options};
use crate::tls::{Policy, Reloading, TlsFiles, ensure_self_signed};

/// TLS of one member; `None` where nothing is encrypted.
pub struct MemberTls {
    /// Of the client port and the metrics port.
    pub clients: Option<ServerTls>,
    /// Of the peer port.
    pub peers: Option<ServerTls>,
    /// Towards peers.
    pub towards_peers: Option<Arc<Reloading<ClientConfig>>>,
}

/// What the flags say about a certificate.
struct Pair<'a> {
    cert: Option<&'a PathBuf>,
    key: Option<&'a PathBuf>,
    names: (&'static str, &'static str),
}

impl Pair<'_> {
    fn files(&self) -> anyhow::Result<Option<(PathBuf, PathBuf)>> {
        match (self.cert, self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (cert, key) => {
                let shown =
                    |path: Option<&PathBuf>| path.map_or_else(String::new, |path| path.display().to_string());
                bail!(
                    "KeyFile and CertFile must both be present[key: {}, cert: {}]; set {} and {}",
                    shown(key),
                    shown(cert),
                    self.names.0,
                    self.names.1
                )
            }
        }
    }
}

impl MemberTls {
    /// Reads the files that the flags name, and makes those that `--auto-tls` and `--peer-auto-tls` ask for.
    ///
    /// # Errors
    /// Names the flag or file, in etcd's words where it has some.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        component_base::tls::install_provider();
        let security = &options.security;
        let policy =
            Policy::new(&security.cipher_suites, &security.tls_min_version, &security.tls_max_version)?;
        let clients = client_files(options)?;
        let peers = peer_files(options)?;
        let server = |files: TlsFiles, checks_source, alpn| -> anyhow::Result<ServerTls> {
            Ok(ServerTls { config: Arc::new(files.server(&policy, alpn)?), checks_source })
        };
        let checks_peers = !security.experimental_peer_skip_client_san_verification;
        Ok(Self {
            towards_peers: peers
                .clone()
                .map(|files| files.client(&policy, &["h2"]))
                .transpose()?
                .map(Arc::new),
            clients: clients.map(|files| server(files, true, &["h2", "http/1.1"])).transpose()?,
            peers: peers.map(|files| server(files, checks_peers, &["h2", "http/1.1"])).transpose()?,
        })
    }
}

fn secure<'a>(urls: impl IntoIterator<Item = &'a EtcdUrl>) -> Option<&'a EtcdUrl> {
    urls.into_iter().find(|url| url.is_secure())
}

fn client_files(options: &Options) -> anyhow::Result<Option<TlsFiles>> {
    let (security, urls) = (&options.security, &options.urls);
    let own = Pair {
        cert: security.cert_file.as_ref(),
        key: security.key_file.as_ref(),
        names: ("--cert-file", "--key-file"),
    };
    let mut files = own.files()?;
    if security.auto_tls && files.is_none() {
        let hosts = hosts(&urls.listen_client_urls);
        let dir = options.data_dir().join("fixtures/client");
        files = Some(ensure_self_signed(&dir, &hosts, security.self_signed_cert_validity)?);
    }
    let wanting = secure(urls.listen_client_urls.iter().chain(&urls.listen_metrics_urls));
    let (Some((cert, key)), Some(_)) = (&files, wanting) else {
        if let Some(url) = wanting {
            bail!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            );
        }
        if files.is_some() {
            for url in &urls.listen_client_urls {
                tracing::warn!(
                    client_url = %url,
                    "scheme is http or unix while key and cert files are present; ignoring key and cert files"
                );
            }
        }
        return Ok(None);
    };
    let as_client = Pair {
        cert: security.client_cert_file.as_ref(),
        key: security.client_key_file.as_ref(),
        names: ("--client-cert-file", "--client-key-file"),
    };
    if security.client_cert_auth && security.trusted_ca_file.is_none() {
        bail!("--client-cert-auth needs --trusted-ca-file, by which client certificates are checked");
    }
    Ok(Some(TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client: as_client.files()?,
        trusted_ca: security.trusted_ca_file.clone(),
        crl: security.client_crl_file.clone(),
        allowed_cn: None,
        allowed_hostname: security.client_cert_allowed_hostname.clone(),
        is_self_signed: false,
    }))
}

fn peer_files(options: &Options) -> anyhow::Result<Option<TlsFiles>> {
    let (security, urls) = (&options.security, &options.urls);
    let own = Pair {
        cert: security.peer_cert_file.as_ref(),
        key: security.peer_key_file.as_ref(),
        names: ("--peer-cert-file", "--peer-key-file"),
    };
    let mut files = own.files()?;
    let is_self_signed = security.peer_auto_tls && files.is_none();
    if is_self_signed {
        let hosts = hosts(&urls.listen_peer_urls);
        let dir = options.data_dir().join("fixtures/peer");
        files = Some(ensure_self_signed(&dir, &hosts, security.self_signed_cert_validity)?);
    }
    let Some((cert, key)) = files else {
        if let Some(url) = secure(&urls.listen_peer_urls) {
            bail!(
                "cannot listen on TLS for {}:{}: KeyFile and CertFile are not presented; set --peer-cert-file and --peer-key-file",
                url.host(),
                url.port()
            );
        }
        return Ok(None);
    };
    for url in urls.listen_peer_urls.iter().filter(|url| !url.is_secure()) {
        tracing::warn!(peer_url = %url, "scheme is http or unix while key and cert files are present; ignoring key and cert files");
    }
    let as_client = Pair {
        cert: security.peer_client_cert_file.as_ref(),
        key: security.peer_client_key_file.as_ref(),
        names: ("--peer-client-cert-file", "--peer-client-key-file"),
    };
    if security.peer_client_cert_auth && security.peer_trusted_ca_file.is_none() {
        bail!(
            "--peer-client-cert-auth needs --peer-trusted-ca-file, by which peers' certificates are checked"
        );
    }
    Ok(Some(TlsFiles {
        cert,
        key,
        client: as_client.files()?,
        trusted_ca: security.peer_trusted_ca_file.clone(),
        crl: security.peer_crl_file.clone(),
        allowed_cn: security.peer_cert_allowed_cn.clone(),
        allowed_hostname: security.peer_cert_allowed_hostname.clone(),
        is_self_signed,
    }))
}

fn hosts(urls: &[EtcdUrl]) -> Vec<String> {
    let mut hosts: Vec<String> =
        urls.iter().filter(|url| url.unix_path().is_none()).map(|url| url.host().to_owned()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
