//! Tokens that sign, tokens that do not, and tokens that end.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn secret(id: &str, fields: &[(&str, &str)]) -> Secret {
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    let mut data: BTreeMap<String, _> =
        [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), bytes(value)))
            .collect();
    data.extend(fields.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))));
    let mut secret = Secret { type_: Some(SECRET_TYPE.to_owned()), data: Some(data), ..Secret::default() };
    secret.metadata.name = Some(format!("bootstrap-token-{id}"));
    secret
}

#[test]
fn tokens_end_when_they_say() {
    assert_eq!(time_left(&secret("a", &[]), at(0)), None);
    let ends = secret("a", &[("expiration", "1970-01-01T00:01:00Z")]);
    assert_eq!(time_left(&ends, at(10)), Some(SignedDuration::from_secs(50)));
    assert_eq!(time_left(&ends, at(99)), Some(SignedDuration::ZERO));
    assert_eq!(time_left(&secret("a", &[("expiration", "soon")]), at(0)), Some(SignedDuration::ZERO));
}

#[test]
fn the_information_is_signed_by_every_token_that_signs() {
    let info: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": INFO_NAME, "namespace": INFO_NAMESPACE},
        "data": {"kubeconfig": "content", "jws-kubeconfig-gone": "x"}}))
        .expect("a ConfigMap");
    let secrets = [
        secret("abcdef", &[]),
        secret("silent", &[("usage-bootstrap-signing", "false")]),
        secret("ended", &[("expiration", "1970-01-01T00:00:01Z")]),
    ];
    let Some(Action::Patch { patch, .. }) = sign(&info, secrets.iter(), at(9)) else { panic!("a write") };
    let data = patch["data"].as_object().expect("data");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "jws-kubeconfig-gone"]);
    assert_eq!(data["jws-kubeconfig-gone"], Value::Null);
    let signed = data["jws-kubeconfig-abcdef"].as_str().expect("text");
    // {"alg":"HS256","kid":"abcdef"}
    let rest = signed
        .strip_prefix("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..")
        .expect("header and nothing behind it");
    assert_eq!(URL_SAFE_NO_PAD.decode(rest).map(|bytes| bytes.len()), Ok(32));
    let mut done = info;
    done.data = Some(
        [
            ("kubeconfig".to_owned(), "content".to_owned()),
            ("jws-kubeconfig-abcdef".to_owned(), signed.to_owned()),
        ]
        .into(),
    );
    assert_eq!(sign(&done, secrets.iter(), at(9)), None);
    assert_eq!(sign(&ConfigMap::default(), secrets.iter(), at(9)), None);
}
