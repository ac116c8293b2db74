//! Tokens that live in Secrets of type `kubernetes.io/service-account-token`: good as long as the Secret holds them. Says what is wrong with one, and which
//! label says that it was used. Pure.

use coracle_api::meta;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::secret_text;

/// Who made such tokens.
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// The day on which the Secret's token was used last.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Since when the Secret's token has not been good.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What such a token states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LegacyClaims {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub sub: String,
    /// The namespace of Secret and account.
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret.
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The account.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// The account's uid.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
}

/// What is wrong with the claims themselves.
pub fn check(claims: &LegacyClaims) -> Result<(), String> {
    for (value, name) in [
        (&claims.sub, "sub"),
        (&claims.namespace, "namespace"),
        (&claims.secret, "secretName"),
        (&claims.account, "serviceAccountName"),
        (&claims.uid, "serviceAccountUID"),
    ] {
        if value.is_empty() {
            return Err(format!("{name} claim is missing"));
        }
    }
    if claims.sub != format!("system:serviceaccount:{}:{}", claims.namespace, claims.account) {
        return Err("sub claim is invalid".to_owned());
    }
    Ok(())
}

/// What speaks against the token in the Secret and the account it names, as they are now.
pub fn look_up(
    claims: &LegacyClaims,
    token: &str,
    secret: Option<&Value>,
    account: Option<&Value>,
) -> Result<(), String> {
    let invalidated = || "service account token has been invalidated".to_owned();
    let secret = secret.filter(|secret| !meta::is_being_deleted(secret)).ok_or_else(invalidated)?;
    if secret_text(secret, "token").as_deref() != Some(token) {
        return Err("service account token does not match server's copy".to_owned());
    }
    let LegacyClaims { namespace, account: name, .. } = claims;
    let account = account.filter(|account| !meta::is_being_deleted(account));
    let account = account.ok_or_else(|| format!("service account {namespace}/{name} has been deleted"))?;
    if meta::uid(account) != claims.uid {
        return Err(format!(
            "service account UID ({}) does not match claim ({})",
            meta::uid(account),
            claims.uid
        ));
    }
    if label(secret, INVALID_SINCE).is_some() {
        return Err(format!(
            "the token in secret {namespace}/{} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
            claims.secret
        ));
    }
    Ok(())
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta::labels(object)?.get(key)?.as_str()
}

/// The day to note as that of the last use; `None`: it is noted. A day ahead is noted by a server whose clock is.
pub fn day_to_note(secret: &Value, now: Timestamp) -> Option<String> {
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let today = day(now);
    let tomorrow = day(now.saturating_add(jiff::SignedDuration::from_hours(24)).unwrap_or(now));
    match label(secret, LAST_USED) {
        Some(noted) if noted == today || noted == tomorrow => None,
        _ => Some(today),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_good_while_its_secret_holds_it_and_its_account_is_the_same() {
        let claims: LegacyClaims = serde_json::from_value(json!({
            "iss": ISSUER, "sub": "system:serviceaccount:n:a", "kubernetes.io/serviceaccount/namespace": "n",
            "kubernetes.io/serviceaccount/secret.name": "s", "kubernetes.io/serviceaccount/service-account.name": "a",
            "kubernetes.io/serviceaccount/service-account.uid": "u"}))
        .expect("reads");
        assert_eq!(check(&claims), Ok(()));
        assert!(check(&LegacyClaims { account: "b".into(), ..claims.clone() }).is_err());
        let (mut secret, account) =
            (json!({"metadata": {}, "data": {"token": "dG9rZW4="}}), json!({"metadata": {"uid": "u"}}));
        let said =
            |secret: Option<&Value>, account: Option<&Value>| look_up(&claims, "token", secret, account);
        assert_eq!(said(Some(&secret), Some(&account)), Ok(()));
        assert!(said(None, Some(&account)).is_err());
        assert!(said(Some(&secret), None).is_err());
        assert!(said(Some(&secret), Some(&json!({"metadata": {"uid": "v"}}))).is_err());
        assert!(said(Some(&json!({"data": {"token": "b3RoZXI="}})), Some(&account)).is_err());
        secret["metadata"]["labels"] = json!({INVALID_SINCE: "2026-01-01"});
        assert!(said(Some(&secret), Some(&account)).is_err_and(|text| text.contains("marked invalid")));
    }

    #[test]
    fn the_day_is_noted_once() {
        let now: Timestamp = "2026-01-31T23:00:00Z".parse().expect("time");
        let noted = |day: &str| json!({"metadata": {"labels": {LAST_USED: day}}});
        assert_eq!(day_to_note(&json!({}), now).as_deref(), Some("2026-01-31"));
        assert_eq!(day_to_note(&noted("2026-01-31"), now), None);
        assert_eq!(day_to_note(&noted("2026-02-01"), now), None);
        assert_eq!(day_to_note(&noted("2026-01-30"), now).as_deref(), Some("2026-01-31"));
    }
}
