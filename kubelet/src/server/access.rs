//! Who asks, and whether they may: client certificates, tokens reviewed by the API server, and its authorization.
//!
//! Never here: what is asked.

use component_base::tls;
use coracle_client::delegated::{Recent, is_allowed, owner_of_token};
use http::{HeaderMap, Method, StatusCode};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReviewSpec};
use kube::Client;
use rustls::pki_types::CertificateDer;

use crate::config::{Config, Trust};

/// The API server's own certificate, which reaches kubelets; and the group that may do everything.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const MASTERS: &str = "system:masters";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    name: String,
    groups: Vec<String>,
}

impl Peer {
    /// The user that a client certificate names.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let subject = tls::subject(certificate).ok()?;
        Some(Self { name: subject.common_name, groups: subject.organizations })
    }

    fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }
}

/// Who wants to do what with which subresource.
type Question = (Peer, String, String);

/// Decides about requests.
pub struct Access {
    client: Client,
    node_name: String,
    anonymous: bool,
    tokens: bool,
    review: bool,
    trust: Trust,
    /// Recent reviews of tokens.
    known: Recent<String, Peer>,
    /// Recent decisions: user and attributes to whether they may.
    decided: Recent<Question, bool>,
}

/// A refusal: status and text.
pub type Refusal = (StatusCode, String);

impl Access {
    /// As configured.
    pub fn new(client: Client, node_name: String, config: &Config) -> Self {
        Self {
            client,
            node_name,
            anonymous: config.anonymous,
            tokens: config.webhook_authentication,
            review: config.webhook_authorization,
            trust: config.trust,
            known: Recent::default(),
            decided: Recent::default(),
        }
    }

    /// Lets the request pass or says why not.
    ///
    /// # Errors
    /// 401 for who is not known, 403 for who may not.
    pub async fn check(
        &self,
        certified: Option<&Peer>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Refusal> {
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let peer = match (certified, bearer(headers)) {
            (Some(peer), _) => peer.clone(),
            (None, Some(token)) if self.tokens => self.review_token(token).await.ok_or_else(unauthorized)?,
            (None, Some(_)) => return Err(unauthorized()),
            (None, None) if self.anonymous => Peer::anonymous(),
            (None, None) => return Err(unauthorized()),
        };
        if !self.review || peer.name == API_SERVER || peer.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::DELETE => "delete",
            Method::PATCH => "patch",
            _ => "get",
        };
        let mut last = String::new();
        // The subresource of this path alone, else the one for everything.
        for subresource in subresources(path) {
            match self.review_access(&peer, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    last = format!(
                        "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        peer.name
                    );
                }
                Err(error) => {
                    tracing::warn!(user = peer.name, error, "cannot ask the API server for permission");
                    return Err((
                        StatusCode::INTERNAL_SERVER_ERROR,
                        format!(
                            "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                            peer.name
                        ),
                    ));
                }
            }
        }
        Err((StatusCode::FORBIDDEN, last))
    }

    async fn review_token(&self, token: &str) -> Option<Peer> {
        if let Some(peer) = self.known.get(token) {
            return Some(peer);
        }
        let answer = owner_of_token(&self.client, token).await;
        let user =
            answer.inspect_err(|error| tracing::warn!(%error, "cannot have a token reviewed")).ok()??;
        let peer = Peer { name: user.username.unwrap_or_default(), groups: user.groups.unwrap_or_default() };
        self.known.insert(token.to_owned(), peer.clone(), self.trust.token);
        Some(peer)
    }

    async fn review_access(&self, peer: &Peer, verb: &str, subresource: &str) -> Result<bool, String> {
        let key = (peer.clone(), verb.to_owned(), subresource.to_owned());
        if let Some(allowed) = self.decided.get(&key) {
            return Ok(allowed);
        }
        let asked = SubjectAccessReviewSpec {
            user: Some(peer.name.clone()),
            groups: Some(peer.groups.clone()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node_name.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let allowed = is_allowed(&self.client, asked).await.map_err(|error| error.to_string())?;
        let holds = if allowed { self.trust.permission } else { self.trust.refusal };
        self.decided.insert(key, allowed, holds);
        Ok(allowed)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// The subresources of `nodes` that allow a path, most specific first.
fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "checkpoint" => vec!["checkpoint"],
        "healthz" => vec!["healthz", "proxy"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        "configz" => vec!["configz", "proxy"],
        _ => vec!["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_mapped_to_subresources() {
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/metrics"), ["metrics"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/runningpods/"), ["pods", "proxy"]);
        assert_eq!(subresources("/configz"), ["configz", "proxy"]);
        assert_eq!(subresources("/healthz/ping"), ["healthz", "proxy"]);
        assert_eq!(subresources("/checkpoint/n/p/c"), ["checkpoint"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
    }

    #[test]
    fn only_bearer_tokens_count() {
        let mut headers = HeaderMap::new();
        assert!(bearer(&headers).is_none());
        headers.insert("authorization", "Basic x".parse().unwrap());
        assert!(bearer(&headers).is_none());
        headers.insert("authorization", "Bearer abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some("abc"));
    }
}
