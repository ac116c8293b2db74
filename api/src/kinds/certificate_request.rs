//! CertificateSigningRequests.

use base64::Engine;
use serde_json::{Value, json};

use super::access::{each_mut, integer, items, present, set, struct_mut, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SECONDS_MIN: i64 = 600;
const SIGNER_BYTES_MAX: usize = 571;
const BLOCK: &str = "-----BEGIN CERTIFICATE REQUEST-----";

/// Who asks, as the request was authenticated.
pub fn set_requester(object: &mut Value, name: &str, uid: &str, groups: &[String], extra: Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    for key in ["username", "uid", "groups", "extra"] {
        super::access::remove(spec, key);
    }
    set(spec, "username", name);
    if !uid.is_empty() {
        set(spec, "uid", uid);
    }
    if !groups.is_empty() {
        set(spec, "groups", json!(groups));
    }
    if extra.as_object().is_some_and(|extra| !extra.is_empty()) {
        set(spec, "extra", extra);
    }
}

/// Everything wrong with a new request.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let request = base64::engine::general_purpose::STANDARD.decode(text(spec, "request")).unwrap_or_default();
    if !String::from_utf8_lossy(&request).contains(BLOCK) {
        errors.push(field::invalid(
            path.child("request"),
            text(spec, "request"),
            "PEM block type must be CERTIFICATE REQUEST",
        ));
    }
    let usages = items(spec, "usages");
    if usages.is_empty() {
        errors.push(field::required(path.child("usages"), "usages must be provided"));
    }
    for (index, usage) in usages.iter().enumerate() {
        let at = path.child("usages").index(index);
        check::one_of(usage.as_str().unwrap_or_default(), USAGES, &at, &mut errors);
        if usages[..index].contains(usage) {
            errors.push(field::duplicate(at, usage.clone()));
        }
    }
    signer(text(spec, "signerName"), &path.child("signerName"), &mut errors);
    if let Some(seconds) = integer(spec, "expirationSeconds").filter(|seconds| *seconds < SECONDS_MIN) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(field::invalid(path.child("expirationSeconds"), seconds, text));
    }
    conditions(object, &mut errors);
    errors
}

fn signer(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts[..] else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(field::invalid(path, name, text));
        return;
    };
    for problem in names::dns1123_subdomain(domain) {
        errors.push(field::invalid(
            path,
            domain,
            format!("validating label {}: {problem}", field::go_quote(domain)),
        ));
    }
    if !domain.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        errors.push(field::invalid(path, domain, text));
    }
    for label in rest.split('.') {
        for problem in names::dns1123_label(label) {
            errors.push(field::invalid(
                path,
                label,
                format!("validating label {}: {problem}", field::go_quote(label)),
            ));
        }
    }
    if name.len() > SIGNER_BYTES_MAX {
        errors.push(field::too_long(path, SIGNER_BYTES_MAX));
    }
}

fn all_conditions(object: &Value) -> &[Value] {
    object.get("status").map(|status| items(status, "conditions")).unwrap_or_default()
}

fn conditions(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("status").child("conditions");
    let list = all_conditions(object);
    let has = |kind: &str| list.iter().any(|condition| text(condition, "type") == kind);
    for (index, condition) in list.iter().enumerate() {
        let (at, kind, status) = (path.index(index), text(condition, "type"), text(condition, "status"));
        check::required(condition, "type", &at, errors);
        if status.is_empty() {
            errors.push(field::required(at.child("status"), ""));
        } else if matches!(kind, "Approved" | "Denied" | "Failed") {
            if status != "True" {
                errors.push(field::not_supported(at.child("status"), status, &["True"]));
            }
        } else {
            check::one_of(status, &["False", "True", "Unknown"], &at.child("status"), errors);
        }
        if list[..index].iter().any(|earlier| text(earlier, "type") == kind) {
            errors.push(field::duplicate(at.child("type"), kind));
        }
    }
    if has("Approved") && has("Denied") {
        let index =
            list.iter().rposition(|one| matches!(text(one, "type"), "Approved" | "Denied")).unwrap_or(0);
        let text = "Approved and Denied conditions are mutually exclusive";
        errors.push(field::invalid(path.index(index).child("type"), self::text(&list[index], "type"), text));
    }
}

/// Everything wrong with a request that a write changed: which of the parts may differ is `may_approve` and `may_issue`.
pub fn validate_update(new: &Value, old: &Value, may_approve: bool, may_issue: bool) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    conditions(new, &mut errors);
    let path = FieldPath::new("status").child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |object: &Value| -> Vec<Value> {
            let all = all_conditions(object).iter();
            all.filter(|condition| text(condition, "type") == kind).cloned().collect()
        };
        let (after, before) = (of(new), of(old));
        if after.len() < before.len() && kind != "Failed" {
            errors.push(field::forbidden(
                &path,
                format!("updates may not remove a condition of type {}", field::go_quote(kind)),
            ));
        }
        let is_approval = kind != "Failed";
        if after.len() > before.len() && (is_approval && !may_approve || !is_approval && !may_issue) {
            errors.push(field::forbidden(
                &path,
                format!("updates may not add a condition of type {}", field::go_quote(kind)),
            ));
        }
    }
    let certificate =
        |object: &Value| object.get("status").map(|status| text(status, "certificate").to_owned());
    let (after, before) = (certificate(new).unwrap_or_default(), certificate(old).unwrap_or_default());
    if after != before && (!may_issue || !before.is_empty()) {
        let text = "updates may not set certificate content";
        let text =
            if before.is_empty() { text } else { "updates may not change existing certificate content" };
        errors.push(field::forbidden(FieldPath::new("status").child("certificate"), text));
    }
    errors
}

/// Dates conditions that have no dates.
pub fn date_conditions(object: &mut Value, now: &str) {
    let Some(status) = object.get_mut("status") else { return };
    each_mut(status, "conditions", |condition| {
        for name in ["lastUpdateTime", "lastTransitionTime"] {
            if present(condition, name).is_none() {
                set(condition, name, now);
            }
        }
    });
}

/// What became of a request, as `kubectl get` shows it.
pub fn state(object: &Value) -> String {
    let has = |kind: &str| all_conditions(object).iter().any(|condition| text(condition, "type") == kind);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if object.get("status").is_some_and(|status| !text(status, "certificate").is_empty()) {
        state.push_str(",Issued");
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_request(status: Value) -> Value {
        let request = base64::engine::general_purpose::STANDARD.encode(BLOCK);
        json!({"metadata": {"name": "c"}, "status": status,
            "spec": {"request": request, "signerName": "example.com/s", "usages": ["client auth"]}})
    }

    #[test]
    fn signer_usages_and_conditions_are_checked() {
        let texts = |errors: Vec<FieldError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(validate(&a_request(json!({})))), Vec::<String>::new());
        let mut bad = a_request(json!({}));
        bad["spec"]["signerName"] = "s".into();
        bad["spec"]["usages"] = json!([]);
        assert_eq!(
            texts(validate(&bad)),
            [
                "spec.usages: Required value: usages must be provided",
                "spec.signerName: Invalid value: \"s\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ]
        );
        let approved = a_request(json!({"conditions": [{"type": "Approved", "status": "True"}]}));
        assert!(validate_update(&approved, &a_request(json!({})), true, false).is_empty());
        assert_eq!(
            texts(validate_update(&approved, &a_request(json!({})), false, true)),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(state(&approved), "Approved");
        let issued = a_request(json!({"certificate": "eA=="}));
        assert_eq!(validate_update(&issued, &a_request(json!({})), false, true), []);
        assert_eq!(validate_update(&issued, &a_request(json!({})), true, false).len(), 1);
    }
}
