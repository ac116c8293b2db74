//! One TLS connection to an extension server: resolves where it is, dials, shakes hands. As a connector for the pooled client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use component_base::host_port::join_host_port;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Target, service, tls};
use crate::registry::Registry;

/// How long each step of opening a connection may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Opens connections to one extension server.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) registry: Arc<Registry>,
    pub(super) target: Target,
    pub(super) config: Arc<ClientConfig>,
}

impl Connector {
    async fn connect(self) -> Result<Stream, io::Error> {
        let (host, port) = match &self.target {
            Target::Host { host, port } => (host.clone(), *port),
            Target::Service { namespace, name, port } => {
                let mut random = [0_u8; 8];
                // Without random bytes it is always the same one of several.
                let _ = getrandom::fill(&mut random);
                service::resolve(&self.registry, namespace, name, *port, u64::from_le_bytes(random))
                    .await
                    .map_err(io::Error::other)?
            }
        };
        let failed =
            |reason: &str| io::Error::other(format!("dial tcp {}: {reason}", join_host_port(&host, port)));
        let dialled = tokio::time::timeout(DEADLINE, TcpStream::connect((host.as_str(), port))).await;
        let stream = dialled.map_err(|_| failed("i/o timeout"))?.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => failed("connect: connection refused"),
            _ => failed(&error.to_string()),
        })?;
        stream.set_nodelay(true)?;
        let server_name = self.target.server_name();
        let name = ServerName::try_from(server_name.clone()).map_err(io::Error::other)?;
        let shaken =
            tokio::time::timeout(DEADLINE, TlsConnector::from(self.config).connect(name, stream)).await;
        let stream = shaken.map_err(|_| io::Error::other("net/http: TLS handshake timeout"))?;
        let stream = stream.map_err(|error| io::Error::other(tls::failure(&error, &server_name)))?;
        Ok(Stream(TokioIo::new(stream)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Stream, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// An encrypted connection.
pub(super) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
