//! Bootstrap tokens: the signatures by which who joins a cluster knows that `kube-public/cluster-info` is from somebody who has the token, and
//! the end of tokens that have expired.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::action::{Action, CONFIG_MAPS, SECRETS, Target};
use crate::object_meta::{name, namespace, preconditions};

/// The type of the Secrets.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where the Secrets are.
pub const SECRETS_NAMESPACE: &str = "kube-system";
/// Where the ConfigMap is.
pub const INFO_NAMESPACE: &str = "kube-public";
/// Its name.
pub const INFO_NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

fn field<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

/// How long the token is still good for; `None` if it never ends. One whose end cannot be read has ended.
pub fn time_left(secret: &Secret, now: Timestamp) -> Option<SignedDuration> {
    let text = field(secret, "expiration");
    if text.is_empty() {
        return None;
    }
    let end: Timestamp = text.parse().unwrap_or(Timestamp::MIN);
    Some(end.duration_since(now).max(SignedDuration::ZERO))
}

fn has_expired(secret: &Secret, now: Timestamp) -> bool {
    time_left(secret, now).is_some_and(|left| left.is_zero())
}

/// Takes an expired token away.
pub fn remove(secret: &Secret) -> Action {
    let meta = &secret.metadata;
    Action::Delete {
        target: Target::new(&SECRETS, namespace(meta), name(meta)),
        uid: meta.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}

/// The identifier and the secret part of a token that signs.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (field(secret, "token-id"), field(secret, "token-secret"));
    let is_named = name(&secret.metadata).strip_prefix("bootstrap-token-") == Some(id);
    let signs = field(secret, "usage-bootstrap-signing") == "true";
    let is_type = secret.type_.as_deref() == Some(SECRET_TYPE);
    (is_type && is_named && signs && !id.is_empty() && !key.is_empty() && !has_expired(secret, now))
        .then_some((id, key))
}

/// A detached JWS of `content` by a token: header and signature, nothing between them.
fn signature(content: &str, id: &str, key: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    Some(format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

/// The write that gives the ConfigMap the signatures of all tokens that sign, and no others.
pub fn sign<'a>(
    info: &ConfigMap,
    secrets: impl Iterator<Item = &'a Secret>,
    now: Timestamp,
) -> Option<Action> {
    let data = info.data.clone().unwrap_or_default();
    let content = data.get(KUBECONFIG)?;
    let wanted: BTreeMap<String, String> = secrets
        .filter_map(|secret| signing_token(secret, now))
        .filter_map(|(id, key)| Some((format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, key)?)))
        .collect();
    let mut change = serde_json::Map::new();
    for key in data.keys().filter(|key| key.starts_with(SIGNATURE_PREFIX) && !wanted.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted.into_iter().filter(|(key, value)| data.get(key) != Some(value)) {
        change.insert(key, value.into());
    }
    if change.is_empty() {
        return None;
    }
    Some(Action::Patch {
        target: Target::new(&CONFIG_MAPS, namespace(&info.metadata), name(&info.metadata)),
        subresource: "",
        patch: json!({ "metadata": preconditions(&info.metadata, true), "data": change }),
    })
}
