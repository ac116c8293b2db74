//! Asks kubelets for `/metrics/resource` over HTTPS. Owns the connections, one kept open for each node; never what the answers mean.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use component_base::host_port::join_host_port;
use coracle_client::config::{ClientConfig, load};
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use kube::client::ConfigExt;
use kube::config::AuthInfo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::options::Options;

/// More than the containers of a full node come to.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How kubelets are asked.
pub struct Kubelets {
    connector: TlsConnector,
    auth: AuthInfo,
    address_types: Vec<String>,
    port: u16,
    port_of_status: bool,
    patience: Duration,
    /// Open connections by address, idle ones.
    idle: Mutex<HashMap<String, SendRequest<Empty<Bytes>>>>,
}

/// Why a kubelet was asked in vain. `Display` says what to look at.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The node's status has none of the types that are asked for.
    #[error("the node has no address of the types {0:?}; see --kubelet-preferred-address-types")]
    NoAddress(Vec<String>),
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// No answer over it.
    #[error("{0} does not answer: {1}")]
    Answer(String, String),
    /// An answer that is none.
    #[error("{0} answers {1}: {2}; kubelets ask whether this user may get nodes/metrics")]
    Refused(String, StatusCode, String),
    /// It took too long.
    #[error("{0} did not answer within {1:?}; see --kubelet-request-timeout")]
    Late(String, Duration),
}

impl Kubelets {
    /// As the flags say, with the kubeconfig's credentials unless they name others.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn new(options: &Options, settings: &ClientConfig) -> anyhow::Result<Self> {
        let mut config = load(settings).await?;
        if !options.kubelet_certificate_authority.is_empty() {
            let path = Path::new(&options.kubelet_certificate_authority);
            let roots = component_base::tls::load_certs(path)?;
            config.root_cert = Some(roots.iter().map(|certificate| certificate.to_vec()).collect());
        }
        config.accept_invalid_certs = options.kubelet_insecure_tls;
        if !options.kubelet_client_certificate.is_empty() {
            config.auth_info = AuthInfo {
                client_certificate: Some(options.kubelet_client_certificate.clone()),
                client_key: Some(options.kubelet_client_key.clone()),
                ..AuthInfo::default()
            };
        }
        let mut tls = config.rustls_client_config().context("cannot set up TLS to the kubelets")?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls)),
            auth: config.auth_info,
            address_types: options.kubelet_preferred_address_types.clone(),
            port: options.kubelet_port,
            port_of_status: options.kubelet_use_node_status_port,
            patience: options.kubelet_request_timeout.get(),
            idle: Mutex::default(),
        })
    }

    /// What the node's kubelet says.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, node: &Node) -> Result<String, AskError> {
        let (host, port) = self.place(node).ok_or_else(|| AskError::NoAddress(self.address_types.clone()))?;
        let authority = join_host_port(&host, port);
        match tokio::time::timeout(self.patience, self.exchange(&host, port, &authority)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Late(authority, self.patience)),
        }
    }

    /// Closes connections to addresses that no node has any more.
    pub fn keep(&self, nodes: &[Arc<Node>]) {
        let places = nodes.iter().filter_map(|node| self.place(node));
        let known: HashSet<String> = places.map(|(host, port)| join_host_port(&host, port)).collect();
        self.idle.lock().retain(|authority, sender| !sender.is_closed() && known.contains(authority));
    }

    /// Where the node's kubelet listens.
    fn place(&self, node: &Node) -> Option<(String, u16)> {
        let port = self.port_of_status.then(|| status_port(node)).flatten().unwrap_or(self.port);
        Some((address(node, &self.address_types)?, port))
    }

    async fn exchange(&self, host: &str, port: u16, authority: &str) -> Result<String, AskError> {
        let kept = self.idle.lock().remove(authority);
        if let Some(mut sender) = kept.filter(|sender| !sender.is_closed())
            && let Ok(text) = self.get(&mut sender, authority).await
        {
            self.idle.lock().insert(authority.to_owned(), sender);
            return Ok(text);
        }
        let mut sender = self.connect(host, port, authority).await?;
        let text = self.get(&mut sender, authority).await?;
        self.idle.lock().insert(authority.to_owned(), sender);
        Ok(text)
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        authority: &str,
    ) -> Result<SendRequest<Empty<Bytes>>, AskError> {
        let failed =
            |error: &dyn std::fmt::Display| AskError::Connect(authority.to_owned(), error.to_string());
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
        let stream = self.connector.connect(name, stream).await.map_err(|error| failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn get(&self, sender: &mut SendRequest<Empty<Bytes>>, authority: &str) -> Result<String, AskError> {
        let failed =
            |error: &dyn std::fmt::Display| AskError::Answer(authority.to_owned(), error.to_string());
        let mut request =
            Request::get("/metrics/resource").header(HOST, authority).header(ACCEPT, "text/plain");
        if let Some(token) = token(&self.auth) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        sender.ready().await.map_err(|error| failed(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| failed(&error))?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status == StatusCode::OK {
            return Ok(text);
        }
        let line = text.lines().next().unwrap_or_default().chars().take(200).collect();
        Err(AskError::Refused(authority.to_owned(), status, line))
    }
}

/// The token of the credentials; one in a file is read each time, as it is renewed there.
fn token(auth: &AuthInfo) -> Option<String> {
    match &auth.token_file {
        Some(path) => fs::read_to_string(path).ok().map(|text| text.trim().to_owned()),
        // The type that holds it is another crate's; written out it is a text.
        None => serde_json::to_value(auth).ok()?["token"].as_str().map(str::to_owned),
    }
}

/// The first address of the types, in their order.
fn address(node: &Node, types: &[String]) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    types.iter().find_map(|wanted| {
        let found = addresses.iter().find(|one| one.type_ == *wanted && !one.address.is_empty());
        found.map(|one| one.address.clone())
    })
}

fn status_port(node: &Node) -> Option<u16> {
    let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
    let port = u16::try_from(endpoints.kubelet_endpoint.as_ref()?.port).ok()?;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_first_type_that_the_node_has() {
        let node: Node = serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}}}}))
        .expect("a node");
        let of =
            |types: &[&str]| address(&node, &types.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["ExternalIP", "InternalIP", "Hostname"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(of(&["Hostname"]).as_deref(), Some("n"));
        assert_eq!(of(&["ExternalDNS"]), None);
        assert_eq!(status_port(&node), Some(1234));
    }
}
