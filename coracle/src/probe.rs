//! Asks a process whether it serves, and a store member for its metrics. Every question has a deadline.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::layout::Layout;
use crate::topology::{Probe, Process};

const DEADLINE: Duration = Duration::from_secs(2);
const BODY_BYTES_MAX: usize = 4 << 20;

/// Whether the process answers its probe; a process without one is taken to serve.
pub async fn is_serving(process: &Process, layout: &Layout) -> bool {
    match &process.probe {
        None => true,
        Some(Probe::Socket(path)) => UnixStream::connect(path).await.is_ok(),
        Some(Probe::Http(address, port)) => {
            get(SocketAddr::from((*address, *port)), "/health").await.is_some()
        }
        Some(Probe::Https(address, port)) => {
            https_ready(SocketAddr::from((*address, *port)), &layout.pki("ca.crt")).await
        }
    }
}

/// GET over plain HTTP; the body if the status is 200.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let request = async {
        let stream = TcpStream::connect(address).await.ok()?;
        request(stream, &address.to_string(), path).await
    };
    tokio::time::timeout(DEADLINE, request).await.ok().flatten()
}

/// Whether `/readyz` answers 200 over TLS with a certificate of the cluster's authority.
pub async fn https_ready(address: SocketAddr, ca: &Path) -> bool {
    https_get(address, ca, "/readyz").await.is_some()
}

/// GET over TLS, with a server certificate of the cluster's authority; the body if the status is 200.
pub async fn https_get(address: SocketAddr, ca: &Path, path: &str) -> Option<String> {
    let ask = async {
        let config = component_base::tls::client_config(Some(ca), None, &["http/1.1"]).ok()?;
        let stream = TcpStream::connect(address).await.ok()?;
        let name = rustls_pki_types::ServerName::from(address.ip());
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.ok()?;
        request(stream, &address.to_string(), path).await
    };
    tokio::time::timeout(DEADLINE, ask).await.ok().flatten()
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Option<String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let driver = tokio::spawn(connection);
    let request =
        http::Request::get(path).header(http::header::HOST, host).body(Empty::<Bytes>::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    let good = response.status() == http::StatusCode::OK;
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
    driver.abort();
    good.then(|| String::from_utf8_lossy(&body).into_owned())
}
