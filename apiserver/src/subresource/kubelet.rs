//! Reaches a node's kubelet: where it listens, and one HTTPS connection to it for one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component_base::host_port::join_host_port;
use component_base::tls;
use coracle_api::meta::get;
use coracle_api::status::ApiError;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::core;
use crate::extension::tls::Anyone;
use crate::options::Options;
use crate::registry::Registry;
use crate::server::body::BoxError;
use crate::server::relay;

const PORT_DEFAULT: u16 = 10250;
/// How long a kubelet may take before it begins to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// Where a kubelet listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Location {
    /// Both as URLs have them.
    pub fn authority(&self) -> String {
        join_host_port(&self.host, self.port)
    }
}

/// Where a node's kubelet listens: the first address of the best type it has. Pure.
fn location(node: &Value, preferred_types: &[String]) -> Option<Location> {
    let addresses = get(node, &["status", "addresses"])?.as_array()?;
    let host = preferred_types.iter().find_map(|wanted| {
        let found = addresses.iter().find(|address| address["type"] == wanted.as_str())?;
        found.get("address")?.as_str().filter(|address| !address.is_empty())
    })?;
    let port = get(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(PORT_DEFAULT);
    Some(Location { host: host.to_owned(), port })
}

/// Looks the node up.
///
/// # Errors
/// 404 for the node, 500 when it has no usable address.
pub async fn locate(registry: &Arc<Registry>, node: &str) -> Result<Location, ApiError> {
    let object = registry.read(core("nodes")?, "", node).await?;
    location(&object, &registry.options.kubelet_preferred_address_types).ok_or_else(|| {
        let types = &registry.options.kubelet_preferred_address_types;
        ApiError::internal(format!(
            "no preferred addresses found; known addresses: none of {types:?} on node {node}"
        ))
    })
}

/// Read anew for each connection, so that renewed certificates are used.
fn client_config(options: &Options) -> Result<Arc<ClientConfig>, ApiError> {
    let identity = options.kubelet_client_certificate.as_deref().zip(options.kubelet_client_key.as_deref());
    let roots = options.kubelet_certificate_authority.as_deref();
    let config = tls::client_config(roots, identity, &["http/1.1"]).map_err(|error| {
        ApiError::internal(format!(
            "--kubelet-client-certificate, --kubelet-client-key or --kubelet-certificate-authority: {error}"
        ))
    })?;
    if roots.is_some() {
        return Ok(config);
    }
    // Without an authority to check against, every kubelet is believed.
    let mut config = (*config).clone();
    let provider = Arc::clone(config.crypto_provider());
    config.dangerous().set_certificate_verifier(Arc::new(Anyone(provider)));
    Ok(Arc::new(config))
}

/// Sends a request to a kubelet and waits for the head of its answer. The connection lives as long as the answer's body
/// or its upgraded stream.
///
/// # Errors
/// 500 when the kubelet cannot be reached, 504 when it does not answer.
pub async fn send<B>(
    options: &Options,
    location: &Location,
    mut request: Request<B>,
) -> Result<http::Response<Incoming>, ApiError>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let authority = location.authority();
    let failed = {
        let target = format!("https://{authority}{}", request.uri());
        let method = request.method().clone();
        move |error: &dyn std::fmt::Display| ApiError::internal(format!("{method} {target:?}: {error}"))
    };
    let config = client_config(options)?;
    let name = ServerName::try_from(location.host.clone()).map_err(|error| failed(&error))?;
    let connect = async {
        let stream = TcpStream::connect((location.host.as_str(), location.port)).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = match tokio::time::timeout(options.kubelet_timeout.get(), connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(&format_args!("dial tcp {authority}: {error}"))),
        Err(_) => return Err(failed(&format_args!("dial tcp {authority}: i/o timeout"))),
    };
    let mut sender = relay::speak(stream).await.map_err(|error| failed(&error))?;
    if let Ok(host) = HeaderValue::from_str(&authority) {
        request.headers_mut().insert(HOST, host);
    }
    match tokio::time::timeout(ANSWER_DEADLINE, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(ApiError::timeout("the kubelet did not answer in time", 0)),
    }
}

/// A kubelet's refusal as an error for the client.
pub async fn refusal(response: http::Response<Incoming>) -> ApiError {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect();
    let text = match tokio::time::timeout(ANSWER_DEADLINE, body).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        _ => String::new(),
    };
    let text = if text.is_empty() { format!("the kubelet answered {code}") } else { text };
    match code {
        400 => ApiError::bad_request(text),
        401 => ApiError::new(
            500,
            "InternalError",
            format!("the kubelet does not accept --kubelet-client-certificate: {text}"),
        ),
        403 => ApiError::new(403, "Forbidden", text),
        404 => ApiError::new(404, "NotFound", text),
        429 => ApiError::too_many_requests(text, 1),
        503 => ApiError::service_unavailable(text),
        _ => ApiError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_address_of_the_best_type_is_taken() {
        let types = ["InternalIP".to_owned(), "Hostname".to_owned()];
        let mut node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "10.0.0.1"}]}});
        assert_eq!(location(&node, &types).map(|l| l.authority()), Some("10.0.0.1:10250".into()));
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = 4000.into();
        assert_eq!(location(&node, &types[1..]).map(|l| l.authority()), Some("a:4000".into()));
        assert_eq!(location(&node, &["ExternalIP".to_owned()]), None);
    }
}
