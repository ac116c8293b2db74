//! Service account tokens for pods: asked of the API server, bound to the pod, renewed at 80% of their life.
//!
//! Never here: files.

use std::collections::BTreeMap;

use coracle_client::config::{CALL_DEADLINE, within};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};
use kubelet_core::pod_view;
use parking_lot::Mutex;

/// A token and when to ask for the next one.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token itself.
    pub text: String,
    /// When it is due for renewal.
    pub renew_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    pod_uid: String,
    audience: String,
    seconds: i64,
}

/// Tokens of the pods on this node.
pub struct Tokens {
    client: Client,
    held: Mutex<BTreeMap<Key, Token>>,
}

impl Tokens {
    /// No tokens yet.
    pub fn new(client: Client) -> Self {
        Self { client, held: Mutex::new(BTreeMap::new()) }
    }

    /// The pod's token for a projection, from memory if it is fresh.
    ///
    /// # Errors
    /// The API server's refusal, unless an older token still works.
    pub async fn get(&self, pod: &Pod, wanted: &ServiceAccountTokenProjection) -> Result<Token, String> {
        let audience = wanted.audience.clone().unwrap_or_default();
        let seconds = wanted.expiration_seconds.unwrap_or(3600);
        let key = Key { pod_uid: pod_view::uid(pod).to_owned(), audience: audience.clone(), seconds };
        let now = Timestamp::now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(token) = held.clone().filter(|token| token.renew_at > now) {
            return Ok(token);
        }
        match self.request(pod, audience, seconds, now).await {
            Ok(token) => {
                self.held.lock().insert(key, token.clone());
                Ok(token)
            }
            // The old one is valid for a fifth of its life more.
            Err(error) => match held {
                Some(token) => {
                    tracing::warn!(
                        pod = pod_view::describe(pod),
                        error,
                        "cannot renew a service account token yet"
                    );
                    let renew_at = now.checked_add(SignedDuration::from_secs(10)).unwrap_or(now);
                    Ok(Token { renew_at, ..token })
                }
                None => Err(error),
            },
        }
    }

    async fn request(
        &self,
        pod: &Pod,
        audience: String,
        seconds: i64,
        now: Timestamp,
    ) -> Result<Token, String> {
        let account = pod_view::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: if audience.is_empty() { Vec::new() } else { vec![audience] },
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod_view::namespace(pod));
        let created =
            within(CALL_DEADLINE, api.create_token_request(account, &PostParams::default(), &request))
                .await
                .map_err(|error| format!("failed to fetch token: {error}"))?;
        let status = created.status.ok_or("failed to fetch token: the answer has no status")?;
        let life = status.expiration_timestamp.0.duration_since(now);
        let renew_at = now.checked_add(life * 4 / 5).unwrap_or(now);
        Ok(Token { text: status.token, renew_at })
    }

    /// Forgets the tokens of a pod.
    pub fn release(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}
