//! Tables of Secrets and accounts.

use super::*;

fn secret(extra: Value) -> Secret {
    let mut secret = json!({"metadata": {"name": "s", "namespace": "n", "uid": "su", "resourceVersion": "3",
        "annotations": {ACCOUNT_NAME: "robot"}}, "type": SECRET_TYPE});
    for (key, value) in extra.as_object().into_iter().flatten() {
        secret[key] = value.clone();
    }
    serde_json::from_value(secret).expect("a Secret")
}

fn account() -> ServiceAccount {
    let account = json!({"metadata": {"name": "robot", "namespace": "n", "uid": "au", "resourceVersion": "5"},
        "secrets": [{"name": "s"}, {"name": "other"}]});
    serde_json::from_value(account).expect("an account")
}

fn stub(claims: &Value) -> Result<String, String> {
    Ok(format!("token for {}", claims["sub"].as_str().unwrap_or_default()))
}

fn text(secret: &Secret, key: &str) -> String {
    let found = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
    String::from_utf8(found.unwrap_or_default()).expect("text")
}

#[test]
fn what_is_missing_is_filled_in_once() {
    let account = account().metadata;
    let full = complete(&secret(json!({})), &account, Some("CA"), stub).expect("signed").expect("a change");
    assert_eq!(text(&full, "token"), "token for system:serviceaccount:n:robot");
    assert_eq!((text(&full, "namespace"), text(&full, "ca.crt")), ("n".to_owned(), "CA".to_owned()));
    assert_eq!(annotation(&full.metadata, ACCOUNT_UID), Some("au"));
    assert_eq!(complete(&full, &account, Some("CA"), stub), Ok(None), "all is there");
    let newer = complete(&full, &account, Some("CA2"), stub).expect("signed").expect("a change");
    assert_eq!(
        (text(&newer, "ca.crt"), text(&newer, "token")),
        ("CA2".to_owned(), text(&full, "token")),
        "a new authority needs no new token"
    );
    let refused = complete(&secret(json!({})), &account, None, |_| Err("no key"));
    assert_eq!(refused, Err("no key"));
}

#[test]
fn a_token_is_for_the_account_of_its_name_and_uid() {
    let account = account().metadata;
    assert!(is_for(&secret(json!({})), &account));
    let with =
        |uid: &str| secret(json!({"metadata": {"annotations": {ACCOUNT_NAME: "robot", ACCOUNT_UID: uid}}}));
    assert!(is_for(&with("au"), &account));
    assert!(!is_for(&with("another"), &account), "an account made anew is another");
    assert!(!is_for(&secret(json!({"type": "Opaque"})), &account));
}

#[test]
fn claims_are_those_of_all_such_tokens() {
    let claims = claims(&secret(json!({})).metadata, &account().metadata);
    assert_eq!(
        claims,
        json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:n:robot",
            "kubernetes.io/serviceaccount/namespace": "n", "kubernetes.io/serviceaccount/secret.name": "s",
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": "au"})
    );
}

#[test]
fn only_the_reference_to_what_is_gone_goes() {
    let Some(Action::Patch { patch, .. }) = forget(&account(), "s") else { panic!("a write") };
    assert_eq!(patch["secrets"], json!([{"name": "other"}]));
    assert_eq!(patch["metadata"]["resourceVersion"], "5");
    assert_eq!(forget(&account(), "unknown"), None);
}

#[test]
fn both_numbers_of_a_signature_have_their_full_width() {
    // SEQUENCE of 1 and of a number whose first bit is set.
    let der = [0x30, 7, 0x02, 1, 1, 0x02, 2, 0, 0x80];
    let token = signed(Algorithm::Es256, "h.c", &der).expect("a token");
    let raw = URL_SAFE_NO_PAD.decode(token.strip_prefix("h.c.").expect("the parts")).expect("base64");
    assert_eq!((raw.len(), raw[31], raw[63]), (64, 1, 0x80));
    assert_eq!(raw.iter().filter(|byte| **byte != 0).count(), 2);
    assert!(signed(Algorithm::Es256, "h.c", b"nonsense").is_err());
    assert_eq!(signed(Algorithm::Rs256, "h.c", &[1, 2, 3]), Ok("h.c.AQID".to_owned()));
}

#[test]
fn the_header_names_algorithm_and_key() {
    let text = unsigned(Algorithm::Rs256, &key_id(b"public"), &json!({"sub": "x"}));
    let header = URL_SAFE_NO_PAD.decode(text.split('.').next().expect("a header")).expect("base64");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!((&header["alg"], header["kid"].as_str().map(str::len)), (&json!("RS256"), Some(43)));
}
