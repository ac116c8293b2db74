//! Listening for clients and peers: TCP or Unix sockets, plain or TLS, or both on one port, told apart by the first byte.
//!
//! Owns: sockets, handshakes and their bounds, what is told to who comes with the wrong one. Never here: what is served on a connection.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::options::EtcdUrl;
use crate::tls::{Reloading, check_source};

/// Time for the first byte and the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Handshakes under way on one listener; who comes later waits in the kernel's queue.
const HANDSHAKES: usize = 512;
/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// As Go's HTTP server answers HTTP/1 on a TLS port.
const PLAIN_ON_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What HTTP/1 requests begin with.
const HTTP1_METHODS: [&[u8]; 6] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"DELET"];
/// Bytes that are read and thrown away of who speaks plain text on a TLS port.
const UNREAD_MAX: usize = 64 * 1024;

/// What a port serves TLS with.
#[derive(Clone)]
pub struct ServerTls {
    /// Follows the files.
    pub config: Arc<Reloading<ServerConfig>>,
    /// Whether a certificate that names addresses has to come from one of them.
    pub checks_source: bool,
}

/// A bound socket.
pub struct Listening {
    socket: Socket,
    /// As it is logged.
    pub address: String,
    /// Whether plain text is spoken.
    pub takes_plain: bool,
    /// Whether TLS is spoken.
    pub takes_tls: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Somebody else may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A connection whose handshake is done.
pub struct Accepted {
    /// The bytes.
    pub stream: Stream,
    /// The other side; `None` on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// The other side's verified certificate.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Accepted {
    /// The CN of the other side's verified certificate; empty if that has none, which is not the same as no certificate.
    pub fn common_name(&self) -> Option<String> {
        Some(component_base::tls::subject(self.certificate.as_ref()?).ok()?.common_name)
    }
}

/// Binds all URLs of a flag; those of one address share a socket.
///
/// # Errors
/// An address cannot be listened on; names the flag and the next step.
pub async fn bind_all(flag: &str, urls: &[EtcdUrl], reuse_port: bool) -> anyhow::Result<Vec<Listening>> {
    let mut kinds: BTreeMap<String, (EtcdUrl, bool, bool)> = BTreeMap::new();
    for url in urls {
        let address = match url.unix_path() {
            Some(path) => path.to_owned(),
            None => address(url).with_context(|| format!("{flag}={url}"))?.to_string(),
        };
        let (_, takes_plain, takes_tls) = kinds.entry(address).or_insert_with(|| (url.clone(), false, false));
        *takes_plain |= !url.is_secure();
        *takes_tls |= url.is_secure();
    }
    let mut listeners = Vec::new();
    for (address, (url, takes_plain, takes_tls)) in kinds {
        if url.unix_path().is_some() && takes_plain && takes_tls {
            bail!("{flag}: {address} cannot be unix and unixs at once; use two paths");
        }
        let bound = match url.unix_path() {
            Some(path) => bind_unix(path),
            None => bind_tcp(&address, reuse_port),
        };
        let socket = bound.with_context(|| {
            format!(
                "cannot listen on {address} ({flag}); end what uses it (`ss -tlnpx`) or choose another address"
            )
        })?;
        listeners.push(Listening { socket, address, takes_plain, takes_tls });
    }
    Ok(listeners)
}

fn bind_tcp(address: &str, reuse_port: bool) -> anyhow::Result<Socket> {
    let address: SocketAddr = address.parse()?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    Ok(Socket::Tcp(socket.listen(BACKLOG)?))
}

fn bind_unix(path: &str) -> anyhow::Result<Socket> {
    let path = PathBuf::from(path);
    if let Ok(meta) = std::fs::metadata(&path) {
        use std::os::unix::fs::FileTypeExt;
        if !meta.file_type().is_socket() {
            bail!("{} exists and is no socket", path.display());
        }
        // Of a process that did not end in order.
        std::fs::remove_file(&path)?;
    }
    Ok(Socket::Unix(UnixListener::bind(&path)?, path))
}

fn address(url: &EtcdUrl) -> anyhow::Result<SocketAddr> {
    // `localhost` comes first as IPv6 on some machines; etcd listens on IPv4.
    let mut all: Vec<SocketAddr> = (url.host(), url.port()).to_socket_addrs()?.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().with_context(|| format!("{} has no address", url.host()))
}

/// Accepts connections until `shutdown`, gives each to `handle` when its handshake is done, and returns when all have been handled.
pub async fn serve<H, F>(listening: Listening, tls: Option<ServerTls>, shutdown: CancellationToken, handle: H)
where
    H: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut connections = tokio::task::JoinSet::new();
    let (takes_plain, tls) = (listening.takes_plain, tls.filter(|_| listening.takes_tls));
    loop {
        let next = async {
            let permit = Arc::clone(&handshakes).acquire_owned().await.ok();
            (permit, listening.socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let (raw, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, address = listening.address, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, handle, shutdown) = (tls.clone(), handle.clone(), shutdown.clone());
        connections.spawn(async move {
            let settled = tokio::select! {
                () = shutdown.cancelled() => return,
                settled = settle(raw, remote, takes_plain, tls, permit) => settled,
            };
            if let Some(accepted) = settled {
                handle(accepted).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listening);
    // Each ends by itself, within its own deadline.
    while connections.join_next().await.is_some() {}
}

/// Does the handshake if there is one to do. `None` when the connection is not taken, which is logged.
async fn settle(
    raw: Raw,
    remote: Option<SocketAddr>,
    takes_plain: bool,
    tls: Option<ServerTls>,
    permit: Option<OwnedSemaphorePermit>,
) -> Option<Accepted> {
    let Some(tls) = tls else {
        return Some(Accepted { stream: raw.into(), remote, certificate: None });
    };
    let shown = remote.map_or_else(|| "unix".to_owned(), |remote| remote.to_string());
    let reject = |error: &str| tracing::warn!(remote_addr = shown, error, "rejected connection");
    let result = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake(raw, remote, takes_plain, &tls)).await;
    drop(permit);
    match result {
        Ok(Ok(accepted)) => Some(accepted),
        Ok(Err(Rejection::Gone)) => None,
        Ok(Err(Rejection::Because(error))) => {
            reject(&error);
            None
        }
        Err(_) => {
            reject("the TLS handshake took too long");
            None
        }
    }
}

enum Rejection {
    /// The other side left without a word, as health checks do.
    Gone,
    Because(String),
}

async fn handshake(
    raw: Raw,
    remote: Option<SocketAddr>,
    takes_plain: bool,
    tls: &ServerTls,
) -> Result<Accepted, Rejection> {
    let because = |error: io::Error| Rejection::Because(error.to_string());
    let first = raw.first_bytes().await.map_err(because)?;
    match first.first() {
        None => return Err(Rejection::Gone),
        Some(&TLS_HANDSHAKE) => {}
        Some(_) if takes_plain => return Ok(Accepted { stream: raw.into(), remote, certificate: None }),
        Some(_) => {
            refuse_plain(raw, &first).await;
            return Err(Rejection::Because(
                "tls: first record does not look like a TLS handshake; the client has to use https"
                    .to_owned(),
            ));
        }
    }
    let acceptor = TlsAcceptor::from(tls.config.current());
    let (stream, certificate) = match raw {
        Raw::Tcp(stream) => {
            let stream = acceptor.accept(stream).await.map_err(|error| handshake_error(&error))?;
            let certificate = shown_certificate(stream.get_ref().1);
            (Stream::TlsTcp(Box::new(stream)), certificate)
        }
        Raw::Unix(stream) => {
            let stream = acceptor.accept(stream).await.map_err(|error| handshake_error(&error))?;
            let certificate = shown_certificate(stream.get_ref().1);
            (Stream::TlsUnix(Box::new(stream)), certificate)
        }
    };
    if let (true, Some(certificate), Some(remote)) = (tls.checks_source, &certificate, remote) {
        let source: IpAddr = remote.ip();
        check_source(certificate, source).await.map_err(Rejection::Because)?;
    }
    Ok(Accepted { stream, remote, certificate })
}

/// Why a handshake failed, in the words of Go's TLS where there are some.
fn handshake_error(error: &io::Error) -> Rejection {
    use rustls::{CertificateError, Error};
    const UNVERIFIED: &str = "tls: failed to verify client certificate: x509:";
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Rejection::Because("EOF in the TLS handshake".to_owned());
    }
    Rejection::Because(match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        None => error.to_string(),
        Some(Error::NoCertificatesPresented) => "tls: client didn't provide a certificate".to_owned(),
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            format!("{UNVERIFIED} certificate signed by unknown authority")
        }
        Some(Error::InvalidCertificate(
            expired @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => format!("{UNVERIFIED} certificate has expired or is not yet valid: {expired}; renew it"),
        Some(Error::InvalidCertificate(other)) => format!("{UNVERIFIED} {other}"),
        Some(Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
    })
}

fn shown_certificate(connection: &rustls::ServerConnection) -> Option<CertificateDer<'static>> {
    connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned())
}

/// Answers who speaks HTTP/1 in plain text; HTTP/2 has no such answer, and is closed.
async fn refuse_plain(raw: Raw, first: &[u8]) {
    let mut stream = Stream::from(raw);
    if HTTP1_METHODS.iter().any(|method| first.starts_with(method)) {
        // The other side may have gone.
        let _ = stream.write_all(PLAIN_ON_TLS).await;
    }
    let _ = stream.shutdown().await;
    // Closing with bytes unread would take the answer back.
    let mut unread = [0; 1024];
    for _ in 0..UNREAD_MAX / unread.len() {
        if !matches!(stream.read(&mut unread).await, Ok(1..)) {
            return;
        }
    }
}

enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<(Raw, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                // Fails for a connection that is gone already.
                let _ = stream.set_nodelay(true);
                Ok((Raw::Tcp(stream), Some(remote)))
            }
            Self::Unix(listener, _) => Ok((Raw::Unix(listener.accept().await?.0), None)),
        }
    }
}

impl Raw {
    /// Waits for the first bytes and leaves them where they are.
    async fn first_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 8];
        let count = match self {
            Self::Tcp(stream) => stream.peek(&mut bytes).await?,
            // Who has the path of a Unix socket knows what is spoken there: there are never two kinds.
            Self::Unix(_) => return Ok(vec![TLS_HANDSHAKE]),
        };
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// A connection of any kind.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    TlsTcp(Box<TlsStream<TcpStream>>),
    /// TLS over a Unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl From<Raw> for Stream {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::Tcp(stream) => Self::Tcp(stream),
            Raw::Unix(stream) => Self::Unix(stream),
        }
    }
}

/// Does the same with whichever stream it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream.get_mut() {
            Stream::Tcp($inner) => $do,
            Stream::Unix($inner) => $do,
            Stream::TlsTcp($inner) => $do,
            Stream::TlsUnix($inner) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::TlsTcp(stream) => stream.is_write_vectored(),
            Self::TlsUnix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
