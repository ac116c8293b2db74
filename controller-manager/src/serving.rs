//! The health and metrics port: HTTPS with the given certificate, or with a self-signed one that lives in memory only. Owns the
//! listener and that certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use component_base::health::Health;
use component_base::metrics::SharedRegistry;
use component_base::tls::{ServerTls, server_config_with};
use component_base::tls_protocols::TlsProtocols;
use coracle_client::config::host_name;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::options::Options;

/// Starts the port unless it is switched off.
pub async fn start(
    options: &Options,
    health: Health,
    registry: SharedRegistry,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<JoinHandle<std::io::Result<()>>>> {
    if options.secure_port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    let protocols = options.tls.protocols().map_err(anyhow::Error::msg)?;
    let tls = match (&options.tls_cert_file, &options.tls_private_key_file) {
        (Some(cert), Some(key)) => {
            let files = ServerTls {
                cert: cert.clone(),
                key: key.clone(),
                client_ca: None,
                require_client_cert: false,
                alpn: &["http/1.1"],
            };
            server_config_with(&files, &protocols)?
        }
        _ => self_signed(address, &protocols).context("cannot make a self-signed certificate")?,
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; is another controller-manager running? choose another --secure-port"
        )
    })?;
    Ok(Some(tokio::spawn(component_base::admin::serve(listener, Some(tls), health, registry, shutdown))))
}

fn self_signed(address: SocketAddr, protocols: &TlsProtocols) -> anyhow::Result<Arc<ServerConfig>> {
    let names = vec![host_name(), "localhost".to_owned(), "127.0.0.1".to_owned(), address.ip().to_string()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut config =
        protocols.builder()?.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
