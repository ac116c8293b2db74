//! ValidatingWebhookConfigurations and MutatingWebhookConfigurations, and where webhooks are called.

use serde_json::{Map, Value};

use super::access::{default_to, each_mut, integer, items, present, text};
use super::{admission_rule, check, label_selector, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// Upstream's defaults of a ValidatingWebhookConfiguration.
pub fn default_validating(object: &mut Value) {
    each_mut(object, "webhooks", default_webhook);
}

/// Upstream's defaults of a MutatingWebhookConfiguration.
pub fn default_mutating(object: &mut Value) {
    each_mut(object, "webhooks", |webhook| {
        default_webhook(webhook);
        default_to(webhook, "reinvocationPolicy", "Never");
    });
}

fn default_webhook(webhook: &mut Value) {
    default_to(webhook, "failurePolicy", "Fail");
    default_to(webhook, "matchPolicy", "Equivalent");
    default_to(webhook, "namespaceSelector", Map::new());
    default_to(webhook, "objectSelector", Map::new());
    default_to(webhook, "timeoutSeconds", 10);
    each_mut(webhook, "rules", |rule| default_to(rule, "scope", "*"));
    if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|service| service.is_object())
    {
        default_to(service, "port", 443);
    }
}

/// Everything wrong with a new configuration of either kind.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, false, names::dns1123_subdomain);
    webhooks(object, &mut errors);
    errors
}

/// Everything wrong with a changed configuration of either kind.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    webhooks(new, &mut errors);
    errors
}

fn webhooks(object: &Value, errors: &mut Vec<FieldError>) {
    let list = items(object, "webhooks");
    for (index, one) in list.iter().enumerate() {
        let path = FieldPath::new("webhooks").index(index);
        webhook(one, &path, errors);
        review_versions(one, &path.child("admissionReviewVersions"), errors);
        let name = text(one, "name");
        if !name.is_empty() && list[..index].iter().any(|earlier| text(earlier, "name") == name) {
            errors.push(field::duplicate(path.child("name"), name));
        }
    }
}

fn review_versions(webhook: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let versions = items(webhook, "admissionReviewVersions");
    if versions.is_empty() {
        errors.push(field::required(path, format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.push(field::duplicate(path.index(index), version.clone()));
        }
        check::name(version.as_str().unwrap_or_default(), names::dns1035_label, &path.index(index), errors);
    }
    if !versions.iter().filter_map(Value::as_str).any(|version| REVIEW_VERSIONS.contains(&version)) {
        let text = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(field::invalid(path, Value::Array(versions.to_vec()), text));
    }
}

fn webhook(webhook: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    fully_qualified(text(webhook, "name"), &path.child("name"), errors);
    for (index, rule) in items(webhook, "rules").iter().enumerate() {
        admission_rule::validate(rule, &path.child("rules").index(index), errors);
    }
    for (name, allowed) in [
        ("failurePolicy", &["Fail", "Ignore"][..]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
        ("sideEffects", SIDE_EFFECTS),
    ] {
        if let Some(value) = present(webhook, name).and_then(Value::as_str) {
            check::one_of(value, allowed, &path.child(name), errors);
        }
    }
    if present(webhook, "sideEffects").is_none() {
        let text = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        errors.push(field::required(path.child("sideEffects"), text));
    }
    if let Some(seconds) = integer(webhook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let text = "the timeout value must be between 1 and 30 seconds";
        errors.push(field::invalid(path.child("timeoutSeconds"), seconds, text));
    }
    for name in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = present(webhook, name) {
            label_selector::validate(selector, &path.child(name), errors);
        }
    }
    client_config(webhook.get("clientConfig").unwrap_or(&Value::Null), &path.child("clientConfig"), errors);
    admission_rule::match_conditions(webhook, path, false, errors);
}

/// A name with at least three parts.
fn fully_qualified(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let problems = names::dns1123_subdomain(name);
    if !problems.is_empty() {
        errors.push(field::invalid(path, name, problems.join(",")));
    } else if name.split('.').count() < 3 {
        errors.push(field::invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

/// Everything wrong with where a webhook is called.
pub fn client_config(config: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (present(config, "url").and_then(Value::as_str), present(config, "service")) {
        (Some(url), None) => webhook_url(url, &path.child("url"), errors),
        (None, Some(service)) => webhook_service(service, &path.child("service"), errors),
        _ => errors.push(field::required(path, "exactly one of url or service is required")),
    }
}

fn webhook_url(url: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        errors.push(field::invalid(path, "", format!("'https' is the only allowed URL scheme{FORM}")));
        return;
    };
    if scheme != "https" {
        errors.push(field::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(field::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(field::invalid(path, user, "user information is not permitted in the URL"));
    }
    let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    if !fragment.is_empty() {
        errors.push(field::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if let Some((_, query)) = before.split_once('?').filter(|(_, query)| !query.is_empty()) {
        errors.push(field::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn webhook_service(service: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if text(service, "name").is_empty() {
        errors.push(field::required(path.child("name"), "service name is required"));
    }
    if text(service, "namespace").is_empty() {
        errors.push(field::required(path.child("namespace"), "service namespace is required"));
    }
    if let Some(port) = integer(service, "port") {
        let problems = names::port_number(port);
        if !problems.is_empty() {
            let text = format!("port is not valid: {}", problems.join(","));
            errors.push(field::invalid(path.child("port"), port, text));
        }
    }
    let url_path = text(service, "path");
    if matches!(url_path, "" | "/") {
        return;
    }
    let at = path.child("path");
    let Some(rest) = url_path.strip_prefix('/') else {
        errors.push(field::invalid(at, url_path, "must start with a '/'"));
        return;
    };
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(field::invalid(&at, url_path, format!("segment[{index}] may not be empty")));
        } else {
            for problem in names::dns1123_subdomain(step) {
                errors.push(field::invalid(&at, url_path, format!("segment[{index}]: {problem}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_webhook_is_filled_in_and_checked() {
        let mut object = json!({"metadata": {"name": "w"}, "webhooks": [{
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/a"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]});
        default_mutating(&mut object);
        assert_eq!(texts(&validate(&object)), Vec::<String>::new());
        let webhook = &object["webhooks"][0];
        assert_eq!(
            (&webhook["failurePolicy"], &webhook["timeoutSeconds"], &webhook["rules"][0]["scope"]),
            (&json!("Fail"), &json!(10), &json!("*"))
        );
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
        let bad = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.b", "sideEffects": "Some", "timeoutSeconds": 31,
            "clientConfig": {"url": "http://h?x=1"}}]});
        assert_eq!(
            texts(&validate(&bad)),
            [
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"x=1\": query parameters are not permitted in the URL",
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ]
        );
    }
}
