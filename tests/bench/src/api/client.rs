//! An HTTP/2 client over TLS that costs little: ready-made bodies, answers handed out as bytes.
//!
//! Never here: retries, deadlines, reading of objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{Request, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const WINDOW_BYTES: u32 = 64 * 1024 * 1024;

/// JSON as it is stored.
pub const JSON: &str = "application/json";
/// A strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// Why a request has no answer of use.
#[derive(Debug)]
pub struct Failure {
    /// The answer's status, unless the connection failed.
    pub status: Option<StatusCode>,
    /// The answer's text, or the connection's failure.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}: {}", self.message),
            None => write!(f, "connection: {}", self.message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Self { status: None, message: error.to_string() }
    }
}

/// What connections to one server have in common.
#[derive(Clone)]
pub struct Target {
    port: u16,
    tls: TlsConnector,
}

impl Target {
    /// The server on a port of loopback, as the administrator of `pki`.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(port: u16, pki: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.join("ca.crt")).context("ca.crt")?)?;
        let chain = vec![CertificateDer::from_pem_file(pki.join("admin.crt")).context("admin.crt")?];
        let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).context("admin.key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { port, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// One more connection.
    ///
    /// # Errors
    /// When nothing listens there, or not with that certificate.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, socket).await?;
        let (sender, connection) = Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(1024 * 1024)
            .handshake(stream)
            .await?;
        tokio::spawn(async move {
            // The requests in flight fail with the connection and say so.
            let _ = connection.await;
        });
        Ok(Client { sender })
    }
}

/// One connection; clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Bytes>,
}

impl Client {
    /// Sends a request and gives the answer's status and body as it comes.
    ///
    /// # Errors
    /// The connection's failure.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, RecvStream), Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("content-type", content_type)
            .header("accept", JSON)
            .body(())
            .map_err(|error| Failure { status: None, message: error.to_string() })?;
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut sending) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            sending.send_data(body, true)?;
        }
        let response = response.await?;
        Ok((response.status(), response.into_body()))
    }

    /// Sends a request and gives the whole answer in its pieces.
    ///
    /// # Errors
    /// The connection's failure, or an answer that is not one of success.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Vec<Bytes>, Failure> {
        let (status, mut stream) = self.open(method, path, content_type, body).await?;
        let mut pieces = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            // Fails when the stream is over, and then the next call says why.
            let _ = stream.flow_control().release_capacity(piece.len());
            pieces.push(piece);
        }
        if status.is_success() {
            return Ok(pieces);
        }
        let message = pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<BytesMut>();
        Err(Failure { status: Some(status), message: String::from_utf8_lossy(&message).into_owned() })
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Vec<Bytes>, Failure> {
        self.send("GET", path, JSON, Bytes::new()).await
    }

    /// Creates.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Vec<Bytes>, Failure> {
        self.send("POST", path, JSON, body).await
    }
}
