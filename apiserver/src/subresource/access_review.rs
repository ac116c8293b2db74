//! SubjectAccessReview and its relatives: what somebody may do, by the server's own authorizer.

use std::collections::BTreeMap;

use coracle_api::field::{self, FieldError};
use coracle_api::meta::get;
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use crate::authz::{Attributes, Authorizer, ResourceAttributes};
use crate::registry::meta;
use crate::server::request_info::{RequestInfo, UserInfo};

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts(object: &Value, key: &str) -> Vec<String> {
    let list = object.get(key).and_then(Value::as_array);
    list.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
}

/// Fills in the status of a SubjectAccessReview, SelfSubjectAccessReview or LocalSubjectAccessReview.
///
/// # Errors
/// 422 for a review that makes no sense.
pub async fn review(
    authorizer: &Authorizer,
    info: &RequestInfo,
    mut review: Value,
) -> Result<Value, ApiError> {
    let of_self = info.resource.plural == "selfsubjectaccessreviews";
    let spec = review.get("spec").cloned().unwrap_or_default();
    let mut errors = check(&spec, of_self);
    if info.resource.plural == "localsubjectaccessreviews" {
        let namespace =
            get(&spec, &["resourceAttributes", "namespace"]).and_then(Value::as_str).unwrap_or_default();
        if namespace != info.namespace() {
            let problem = "must match metadata.namespace";
            errors.push(field::invalid("spec.resourceAttributes.namespace", namespace, problem));
        }
        if spec.get("nonResourceAttributes").is_some_and(|attributes| !attributes.is_null()) {
            let problem = "disallowed on this kind of request";
            errors.push(field::invalid(
                "spec.nonResourceAttributes",
                spec["nonResourceAttributes"].clone(),
                problem,
            ));
        }
        meta::set_text(&mut review, "namespace", info.namespace());
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(info.resource.group_kind(), "", errors));
    }
    let user = if of_self { info.user.clone() } else { subject(&spec) };
    let selectors = [selector(&spec, "fieldSelector"), selector(&spec, "labelSelector")];
    let decision = authorizer.decide(&user, &attributes(&spec, &selectors)).await;
    review["status"] = json!({"allowed": decision.allowed});
    if decision.denied {
        review["status"]["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        review["status"]["reason"] = decision.reason.into();
    }
    Ok(review)
}

fn check(spec: &Value, of_self: bool) -> Vec<FieldError> {
    let has = |key: &str| spec.get(key).is_some_and(Value::is_object);
    let mut errors = Vec::new();
    match (has("resourceAttributes"), has("nonResourceAttributes")) {
        (true, true) => errors.push(field::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => errors.push(field::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if !of_self && text(spec, "user").is_empty() && texts(spec, "groups").is_empty() {
        errors.push(field::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    errors
}

fn subject(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = spec
        .get("extra")
        .and_then(Value::as_object)
        .map(|extra| extra.keys().map(|key| (key.to_lowercase(), texts(&spec["extra"], key))).collect())
        .unwrap_or_default();
    UserInfo {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(spec, "groups"),
        extra,
    }
}

/// A selector asked about, as a request would have it.
fn selector(spec: &Value, which: &str) -> String {
    let Some(selector) = get(spec, &["resourceAttributes", which]) else { return String::new() };
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let requirements = selector.get("requirements").and_then(Value::as_array);
    let terms: Vec<String> = requirements
        .into_iter()
        .flatten()
        .filter_map(|requirement| {
            let (key, values) = (text(requirement, "key"), texts(requirement, "values"));
            match (text(requirement, "operator"), values.as_slice()) {
                ("In", [value]) => Some(format!("{key}={value}")),
                ("NotIn", [value]) => Some(format!("{key}!={value}")),
                // Only selectors of labels can say the rest; what a selector cannot say narrows nothing down.
                _ if which == "fieldSelector" => None,
                ("In", _) => Some(format!("{key} in ({})", values.join(","))),
                ("NotIn", _) => Some(format!("{key} notin ({})", values.join(","))),
                ("Exists", _) => Some(key.to_owned()),
                ("DoesNotExist", _) => Some(format!("!{key}")),
                _ => None,
            }
        })
        .collect();
    terms.join(",")
}

fn attributes<'a>(spec: &'a Value, selectors: &'a [String; 2]) -> Attributes<'a> {
    match spec.get("resourceAttributes").filter(|attributes| attributes.is_object()) {
        Some(wanted) => Attributes::Resource(ResourceAttributes {
            verb: text(wanted, "verb"),
            group: text(wanted, "group"),
            version: Some(text(wanted, "version")).filter(|version| !version.is_empty()).unwrap_or("*"),
            resource: text(wanted, "resource"),
            subresource: text(wanted, "subresource"),
            namespace: text(wanted, "namespace"),
            name: text(wanted, "name"),
            field_selector: &selectors[0],
            label_selector: &selectors[1],
        }),
        None => {
            let wanted = &spec["nonResourceAttributes"];
            Attributes::Path { verb: text(wanted, "verb"), path: text(wanted, "path") }
        }
    }
}

/// Lists the rules that say what the user may do in a namespace.
///
/// # Errors
/// 400 without a namespace.
pub fn rules(authorizer: &Authorizer, user: &UserInfo, mut review: Value) -> Result<Value, ApiError> {
    let namespace = get(&review, &["spec", "namespace"]).and_then(Value::as_str).unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let found = authorizer.rules(user, namespace);
    let about_resources: Vec<Value> = found
        .rules
        .iter()
        .filter(|rule| !rule.resources.is_empty())
        .map(|rule| {
            let mut shown =
                json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                shown["resourceNames"] = json!(rule.resource_names);
            }
            shown
        })
        .collect();
    let about_paths: Vec<Value> = found
        .rules
        .iter()
        .filter(|rule| !rule.non_resource_urls.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    let mut status = json!({
        "resourceRules": about_resources,
        "nonResourceRules": about_paths,
        "incomplete": found.incomplete,
    });
    if !found.errors.is_empty() {
        let errors = found.errors.join(", ");
        let errors = if found.errors.len() > 1 { format!("[{errors}]") } else { errors };
        status["evaluationError"] = errors.into();
    }
    review["status"] = status;
    Ok(review)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_speaks_of_one_thing_and_of_somebody() {
        let both = json!({"resourceAttributes": {}, "nonResourceAttributes": {}, "user": "a"});
        assert_eq!(check(&both, false).len(), 1);
        assert_eq!(check(&json!({}), false).len(), 2);
        assert_eq!(check(&json!({"resourceAttributes": {"verb": "get"}}), true), []);
    }

    #[test]
    fn requirements_read_as_a_selector() {
        let spec = json!({"resourceAttributes": {"fieldSelector": {"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n"]}, {"key": "a", "operator": "Exists"},
        ]}}});
        assert_eq!(selector(&spec, "fieldSelector"), "spec.nodeName=n");
    }
}
