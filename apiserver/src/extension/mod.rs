//! Calls out to servers that extend this one: where they are, which certificates count, and one pooled HTTPS client for all who call. What is asked of
//! them, and what their answers mean, belongs to the callers.

pub mod client;
mod connect;
pub mod kubeconfig;
pub mod review;
pub mod service;
pub mod tls;

use coracle_api::kinds::access::{integer, present, text};
use serde_json::Value;

use tls::Trust;

const PORT_DEFAULT: u16 = 443;

/// Where an extension server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// At a host that names resolve to.
    Host {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Behind a Service.
    Service {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
        /// The Service's port.
        port: u16,
    },
}

impl Target {
    /// What its certificate has to be for.
    pub fn server_name(&self) -> String {
        match self {
            Self::Host { host, .. } => host.clone(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Host { port, .. } | Self::Service { port, .. } => *port,
        }
    }
}

/// An extension server and what it is trusted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where it is.
    pub target: Target,
    /// Which certificates of it count.
    pub trust: Trust,
    /// Host and port as URLs have them.
    pub authority: String,
    /// The path to ask for, with the slash it begins with.
    pub path: String,
}

impl Endpoint {
    /// Behind a Service.
    pub fn of_service(service: &Value, path: &str, trust: Trust) -> Self {
        let port = integer(service, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT_DEFAULT);
        let target = Target::Service {
            namespace: text(service, "namespace").to_owned(),
            name: text(service, "name").to_owned(),
            port,
        };
        let authority = format!("{}:{}", target.server_name(), target.port());
        Self { target, trust, authority, path: format!("/{}", path.trim_start_matches('/')) }
    }

    /// Of a webhook's `clientConfig`.
    ///
    /// # Errors
    /// It says neither a service nor a URL that can be understood.
    pub fn of_client_config(config: &Value) -> Result<Self, String> {
        let trust = Trust::of_bundle(text(config, "caBundle"))?;
        if let Some(service) = present(config, "service") {
            return Ok(Self::of_service(service, text(service, "path"), trust));
        }
        let url = text(config, "url");
        if url.is_empty() {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
        Self::of_url(url, trust)
    }

    /// At an HTTPS URL.
    ///
    /// # Errors
    /// It is none.
    pub fn of_url(url: &str, trust: Trust) -> Result<Self, String> {
        let parsed = url::Url::parse(url).map_err(|error| format!("Unparsable URL: {error}"))?;
        if parsed.scheme() != "https" {
            return Err(format!("{url:?}: the scheme of the URL must be https"));
        }
        let host = parsed.host_str().ok_or("Unparsable URL: no host")?;
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let port = parsed.port().unwrap_or(PORT_DEFAULT);
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { target: Target::Host { host, port }, trust, authority, path: parsed.path().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn webhooks_say_where_they_are_by_url_or_service() {
        let of = |config: Value| Endpoint::of_client_config(&config);
        let service = of(json!({"service": {"namespace": "n", "name": "s", "path": "a/b", "port": 8443}}));
        let service = service.expect("makes sense");
        assert_eq!(
            (service.target.server_name().as_str(), service.authority.as_str(), service.path.as_str()),
            ("s.n.svc", "s.n.svc:8443", "/a/b")
        );
        let six = of(json!({"url": "https://[::1]:9/x"})).expect("makes sense");
        assert_eq!(six.target, Target::Host { host: "::1".into(), port: 9 });
        assert_eq!((six.authority.as_str(), six.path.as_str()), ("[::1]:9", "/x"));
        let plain = of(json!({"url": "https://example.com"})).expect("makes sense");
        assert_eq!((plain.target.port(), plain.path.as_str()), (443, "/"));
        assert!(of(json!({})).is_err());
        assert!(of(json!({"url": "https://h", "caBundle": "bm90aGluZw=="})).is_err());
    }
}
