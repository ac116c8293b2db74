//! One connection to a member, made when it is needed and again when it broke, at one of the member's peer URLs after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::options::EtcdUrl;
use crate::tls::Reloading;

const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How to talk to peers over TLS.
pub type PeerTls = Arc<Reloading<rustls::ClientConfig>>;

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There is a connection now.
    Connected,
    /// Nobody listens at any of the member's addresses.
    Refused,
}

/// Whether a member could be reached at these URLs, as far as can be told without trying.
///
/// # Errors
/// Names the URL, or the flags that are missing.
pub fn check_urls(urls: &[String], tls: Option<&PeerTls>) -> anyhow::Result<()> {
    targets(urls, tls).map(|_| ())
}

fn targets(urls: &[String], tls: Option<&PeerTls>) -> anyhow::Result<Vec<EtcdUrl>> {
    let parse = |url: &String| url.parse::<EtcdUrl>().with_context(|| format!("peer URL {url}"));
    let targets: Vec<EtcdUrl> = urls.iter().map(parse).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!targets.is_empty(), "a member without peer URLs cannot be reached");
    anyhow::ensure!(
        tls.is_some() || !targets.iter().any(EtcdUrl::is_secure),
        "https peer URLs need --peer-cert-file and --peer-key-file, or --peer-auto-tls"
    );
    Ok(targets)
}

/// A channel to a member that connects when it is needed, and tells whether that works.
pub(super) fn open(
    urls: &[String],
    tls: Option<PeerTls>,
    tell: impl Fn(Attempt) + Send + Sync + 'static,
) -> anyhow::Result<Channel> {
    let targets: Arc<[EtcdUrl]> = targets(urls, tls.as_ref())?.into();
    // tonic is given a ready connection, so the URL here only names the authority.
    let first = &targets[0];
    let authority = match first.unix_path() {
        Some(_) => "localhost".to_owned(),
        None if first.host().contains(':') => format!("[{}]", first.host()),
        None => first.host().to_owned(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}:{}", first.port()))?
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let (next, refused, tell) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(tell));
    let connector = tower::service_fn(move |_: Uri| {
        let (targets, tls, tell) = (Arc::clone(&targets), tls.clone(), Arc::clone(&tell));
        let (next, refused) = (Arc::clone(&next), Arc::clone(&refused));
        async move {
            let target = targets[next.load(Ordering::Relaxed) % targets.len()].clone();
            let connected = connect(target, tls).await;
            match &connected {
                Ok(_) => {
                    refused.store(0, Ordering::Relaxed);
                    tell(Attempt::Connected);
                }
                Err(error) => {
                    next.fetch_add(1, Ordering::Relaxed);
                    if error.kind() != std::io::ErrorKind::ConnectionRefused {
                        refused.store(0, Ordering::Relaxed);
                    } else if refused.fetch_add(1, Ordering::Relaxed) + 1 >= targets.len() {
                        tell(Attempt::Refused);
                    }
                }
            }
            connected.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(target: EtcdUrl, tls: Option<PeerTls>) -> std::io::Result<Box<dyn Connection>> {
    let stream: Box<dyn Connection> = match target.unix_path() {
        Some(path) => Box::new(UnixStream::connect(path).await?),
        None => {
            let stream = TcpStream::connect((target.host(), target.port())).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    let Some(tls) = tls.filter(|_| target.is_secure()) else { return Ok(stream) };
    let name = rustls::pki_types::ServerName::try_from(target.host().to_owned());
    let name = name.or_else(|_| "localhost".try_into()).map_err(std::io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(tls.current());
    let stream = connector.connect(name, stream).await.inspect_err(
        |error| tracing::warn!(remote_addr = %target, %error, "the TLS handshake with a peer failed"),
    )?;
    Ok(Box::new(stream))
}

/// A plain or an encrypted connection.
trait Connection: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Connection for T {}
