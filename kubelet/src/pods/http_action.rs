//! One HTTP or HTTPS GET, as probes and lifecycle hooks do it. Certificates are not checked, as upstream.
//!
//! Never here: thresholds.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

const BODY_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

/// A port by number or by the name it has in the container.
///
/// # Errors
/// Names a port that is not there.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|candidate| candidate.name.as_deref() == Some(name))
            .map(|found| found.container_port)
            .or_else(|| name.parse().ok()),
    };
    match (number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0), port) {
        (Some(number), _) => Ok(number),
        (None, IntOrString::Int(number)) => Err(format!("invalid port number: {number}")),
        (None, IntOrString::String(name)) => Err(format!("couldn't find port: {name:?}")),
    }
}

/// Fetches; status and the beginning of the body.
///
/// # Errors
/// In the words of upstream's probe: `Get "http://10.0.0.1:80/": dial tcp ...`.
pub async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(StatusCode, String), String> {
    let port = resolve_port(&action.port, container)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let shown = format!("{}://{authority}{path}", if https { "https" } else { "http" });
    let failed = |error: String| format!("Get \"{shown}\": {error}");
    let first = Url::parse(&shown).map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(timeout, follow(first, action)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

/// Fetches, and follows redirects within the same host. A redirect to another host is the answer itself.
async fn follow(mut url: Url, action: &HTTPGetAction) -> Result<(StatusCode, String), String> {
    for _ in 0..REDIRECTS_MAX {
        let Answer { status, location, body } = once(&url, action).await?;
        let next = location
            .filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308))
            .and_then(|location| url.join(&location).ok())
            .filter(|next| next.host() == url.host() && matches!(next.scheme(), "http" | "https"));
        match next {
            Some(next) => url = next,
            None => return Ok((status, body)),
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

async fn once(url: &Url, action: &HTTPGetAction) -> Result<Answer, String> {
    let host = url.host_str().unwrap_or_default();
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
    let tcp = TcpStream::connect(&authority)
        .await
        .map_err(|error| format!("dial tcp {authority}: {}", plain(&error)))?;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::get(target).header("Connection", "close");
    let mut named = (false, false, false);
    for header in action.http_headers.iter().flatten() {
        named.0 |= header.name.eq_ignore_ascii_case("user-agent");
        named.1 |= header.name.eq_ignore_ascii_case("accept");
        named.2 |= header.name.eq_ignore_ascii_case("host");
        request = request.header(&header.name, &header.value);
    }
    if !named.0 {
        request = request.header("User-Agent", "kube-probe/1.35");
    }
    if !named.1 {
        request = request.header("Accept", "*/*");
    }
    if !named.2 {
        request = request.header("Host", &authority);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    if url.scheme() != "https" {
        return send(tcp, request).await;
    }
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    send(connector.connect(name, tcp).await.map_err(|error| error.to_string())?, request).await
}

/// An IO error in Go's words where they are well known.
pub fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<bytes::Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let result = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let location = response.headers().get(http::header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
        // A body that is too long is cut off, not an error.
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok(Answer { status, location, body })
    }
    .await;
    driver.abort();
    result
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(resolve_port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(resolve_port(&IntOrString::Int(1), &container), Ok(1));
        assert!(resolve_port(&IntOrString::String("no".into()), &container).is_err());
        assert!(resolve_port(&IntOrString::Int(70_000), &container).is_err());
    }

    /// A server that answers `/moved` with a redirect to `target`, all else with 200.
    async fn redirecting(target: &'static str) -> HTTPGetAction {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                let moved = buffer[..length].starts_with(b"GET /moved");
                let head =
                    if moved { format!("302 Found\r\nLocation: {target}") } else { "200 OK".to_owned() };
                let text = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        HTTPGetAction {
            path: Some("/moved".into()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }
    }

    #[tokio::test]
    async fn redirects_are_followed_within_the_host_alone() {
        let limit = Duration::from_secs(5);
        let container = Container::default();
        let own = redirecting("/here").await;
        assert_eq!(get(&own, &container, "127.0.0.1", limit).await.unwrap().0, StatusCode::OK);
        let other = redirecting("http://0.0.0.0/").await;
        assert_eq!(get(&other, &container, "127.0.0.1", limit).await.unwrap().0, StatusCode::FOUND);
        let endless = redirecting("/moved").await;
        let error = get(&endless, &container, "127.0.0.1", limit).await.unwrap_err();
        assert!(error.ends_with("stopped after 10 redirects"), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_in_the_known_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let action = HTTPGetAction { port: IntOrString::Int(i32::from(port)), ..HTTPGetAction::default() };
        let error =
            get(&action, &Container::default(), "127.0.0.1", Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            )
        );
    }
}
