//! Bootstrap tokens (`abcdef.0123456789abcdef`): Secrets in kube-system that let a new node ask for its certificate.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AUTHENTICATED, core, secret_text};
use crate::cache::Cache;
use crate::server::request_info::UserInfo;

/// The user of a token that a Secret in the cache vouches for.
pub fn user(token: &str, cache: &Cache, now: jiff::Timestamp) -> Option<UserInfo> {
    let (id, secret) = split(token)?;
    let object =
        cache.get(core("secrets")?, "kube-system", &format!("bootstrap-token-{id}"))?.value().ok()?;
    user_of(id, secret, &object, now)
}

fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let letters = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && letters(id) && letters(secret)).then_some((id, secret))
}

fn user_of(id: &str, secret: &str, object: &Value, now: jiff::Timestamp) -> Option<UserInfo> {
    let text = |key: &str| secret_text(object, key).unwrap_or_default();
    let alive = match text("expiration").as_str() {
        "" => true,
        time => time.parse::<jiff::Timestamp>().is_ok_and(|time| time > now),
    };
    let valid = object["type"] == "bootstrap.kubernetes.io/token"
        && object["metadata"].get("deletionTimestamp").is_none()
        && text("token-id") == id
        && same(text("token-secret").as_bytes(), secret.as_bytes())
        && text("usage-bootstrap-authentication") == "true"
        && alive;
    if !valid {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    groups.extend(
        text("auth-extra-groups")
            .split(',')
            .filter(|group| group.starts_with("system:bootstrappers:"))
            .map(str::to_owned),
    );
    groups.push(AUTHENTICATED.into());
    Some(UserInfo {
        name: format!("system:bootstrap:{id}"),
        uid: String::new(),
        groups,
        extra: BTreeMap::new(),
    })
}

/// Takes the same time wherever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use serde_json::json;

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().expect("time");
        let mut secret = json!({"type": "bootstrap.kubernetes.io/token", "metadata": {}, "data": {
            "token-id": b64("abcdef"), "token-secret": b64("0123456789abcdef"),
            "usage-bootstrap-authentication": b64("true"), "expiration": b64("2026-01-03T00:00:00Z"),
        }});
        let (id, word) = split("abcdef.0123456789abcdef").expect("well-formed");
        assert_eq!(user_of(id, word, &secret, now).expect("user").name, "system:bootstrap:abcdef");
        assert!(user_of(id, "0123456789abcdee", &secret, now).is_none());
        secret["data"]["expiration"] = json!(b64("2026-01-01T00:00:00Z"));
        assert!(user_of(id, word, &secret, now).is_none());
        assert_eq!(split("ABCDEF.0123456789abcdef"), None);
    }
}
