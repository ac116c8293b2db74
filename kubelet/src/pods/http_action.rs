//! One HTTP or HTTPS GET, as probes and lifecycle hooks do it. Certificates are not checked, as upstream.
//!
//! Never here: thresholds.

use std::sync::Arc;
use std::time::Duration;

use component_base::host_port::join_host_port;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction};
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
/// In Go's words: upstream tries a name that no port has as a number.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = |port: &&ContainerPort| port.name.as_deref() == Some(name);
            match container.ports.iter().flatten().find(named) {
                Some(found) => found.container_port,
                None => {
                    name.parse().map_err(|_| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?
                }
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// Why there is no answer.
#[derive(Debug)]
pub enum GetError {
    /// The action itself cannot be carried out: nothing was asked.
    Action(String),
    /// What was asked for was not given: `Get "http://10.0.0.1:80/": dial tcp ...`.
    Request(String),
    /// A server that was to speak TLS does not.
    NotTls(String),
}

impl GetError {
    /// Upstream's words.
    pub fn text(self) -> String {
        match self {
            Self::Action(text) | Self::Request(text) | Self::NotTls(text) => text,
        }
    }
}

/// Fetches as a probe does; status and the beginning of the body.
///
/// # Errors
/// See [`GetError`].
pub async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(StatusCode, String), GetError> {
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    fetch(action, container, pod_ip, timeout, https, "kube-probe/1.35").await
}

/// Fetches as a lifecycle hook does: any answer will do. Of a server that speaks plain HTTP in place of HTTPS the
/// `host:port` is returned.
///
/// # Errors
/// In upstream's words.
pub async fn get_for_hook(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<Option<String>, String> {
    let agent = "kube-lifecycle/1.35";
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    match fetch(action, container, pod_ip, timeout, https, agent).await {
        Ok(_) => Ok(None),
        Err(GetError::NotTls(_)) => {
            let mut plain = action.clone();
            // What is only for the other end is not said in the open.
            plain.http_headers.iter_mut().for_each(|headers| {
                headers.retain(|header| !header.name.eq_ignore_ascii_case("authorization"));
            });
            let answer = fetch(&plain, container, pod_ip, timeout, false, agent).await;
            answer.map_err(GetError::text)?;
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
            Ok(Some(format!("{host}:{}", resolve_port(&action.port, container)?)))
        }
        Err(error) => Err(error.text()),
    }
}

async fn fetch(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
    https: bool,
    agent: &str,
) -> Result<(StatusCode, String), GetError> {
    let port = resolve_port(&action.port, container).map_err(GetError::Action)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let authority = join_host_port(host, port);
    let shown = format!("{}://{authority}{path}", if https { "https" } else { "http" });
    let failed = |error: String| format!("Get \"{shown}\": {error}");
    let first = Url::parse(&shown).map_err(|error| GetError::Action(failed(error.to_string())))?;
    match tokio::time::timeout(timeout, follow(first, action, agent)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Failure::NotTls)) => {
            Err(GetError::NotTls(failed("http: server gave HTTP response to HTTPS client".to_owned())))
        }
        Ok(Err(Failure::Other(error))) => Err(GetError::Request(failed(error))),
        Err(_) => Err(GetError::Request(failed(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        ))),
    }
}

/// Why one request failed.
enum Failure {
    NotTls,
    Other(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

/// Whether what came was no TLS at all.
fn tells_of_no_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// Fetches, and follows redirects within the same host. A redirect to another host is the answer itself.
async fn follow(mut url: Url, action: &HTTPGetAction, agent: &str) -> Result<(StatusCode, String), Failure> {
    for _ in 0..REDIRECTS_MAX {
        let Answer { status, location, body } = once(&url, action, agent).await?;
        let next = location
            .filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308))
            .and_then(|location| url.join(&location).ok())
            .filter(|next| next.host() == url.host() && matches!(next.scheme(), "http" | "https"));
        match next {
            Some(next) => url = next,
            None => return Ok((status, body)),
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects").into())
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: String,
}

async fn once(url: &Url, action: &HTTPGetAction, agent: &str) -> Result<Answer, Failure> {
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
        request = request.header("User-Agent", agent);
    }
    if !named.1 {
        request = request.header("Accept", "*/*");
    }
    if !named.2 {
        request = request.header("Host", &authority);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    if url.scheme() != "https" {
        return Ok(send(tcp, request).await?);
    }
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector.connect(name, tcp).await.map_err(|error| match tells_of_no_tls(&error) {
        true => Failure::NotTls,
        false => Failure::Other(error.to_string()),
    })?;
    Ok(send(tls, request).await?)
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
        let error = resolve_port(&IntOrString::String("no".into()), &container).unwrap_err();
        assert_eq!(error, "strconv.Atoi: parsing \"no\": invalid syntax");
        let error = resolve_port(&IntOrString::Int(70_000), &container).unwrap_err();
        assert_eq!(error, "invalid port number: 70000");
    }

    #[tokio::test]
    async fn a_hook_takes_any_answer_and_tries_plain_http() {
        component_base::tls::install_provider();
        let limit = Duration::from_secs(5);
        let container = Container::default();
        let mut action = redirecting("http://0.0.0.0/").await;
        assert_eq!(get_for_hook(&action, &container, "127.0.0.1", limit).await, Ok(None));
        action.scheme = Some("HTTPS".to_owned());
        let IntOrString::Int(port) = action.port else { unreachable!("it is a number") };
        let told = get_for_hook(&action, &container, "127.0.0.1", limit).await;
        assert_eq!(told, Ok(Some(format!("127.0.0.1:{port}"))));
        let probed = get(&action, &container, "127.0.0.1", limit).await.unwrap_err();
        assert!(probed.text().ends_with("http: server gave HTTP response to HTTPS client"));
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
        let error = get(&endless, &container, "127.0.0.1", limit).await.unwrap_err().text();
        assert!(error.ends_with("stopped after 10 redirects"), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_in_the_known_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let action = HTTPGetAction { port: IntOrString::Int(i32::from(port)), ..HTTPGetAction::default() };
        let answer = get(&action, &Container::default(), "127.0.0.1", Duration::from_secs(1)).await;
        let error = answer.unwrap_err().text();
        assert_eq!(
            error,
            format!(
                "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            )
        );
    }
}
