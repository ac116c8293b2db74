//! SubjectAccessReview and its relatives: what somebody may do, by the server's own authorizer.

use std::collections::BTreeMap;

use coracle_api::field::{self, FieldError};
use coracle_api::meta::get;
use coracle_api::resource;
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use crate::authz::{Attributes, Authorizer};
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
pub fn review(authorizer: &Authorizer, info: &RequestInfo, mut review: Value) -> Result<Value, ApiError> {
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
    let allowed = authorizer.allows(&user, &attributes(&spec));
    review["status"] = json!({"allowed": allowed});
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

fn attributes(spec: &Value) -> Attributes<'_> {
    match spec.get("resourceAttributes").filter(|attributes| attributes.is_object()) {
        Some(wanted) => Attributes::Resource {
            verb: text(wanted, "verb"),
            group: text(wanted, "group"),
            resource: text(wanted, "resource"),
            subresource: text(wanted, "subresource"),
            namespace: text(wanted, "namespace"),
            name: text(wanted, "name"),
        },
        None => {
            let wanted = &spec["nonResourceAttributes"];
            Attributes::Path { verb: text(wanted, "verb"), path: text(wanted, "path") }
        }
    }
}

/// Lists what the user may do in a namespace, asked of the authorizer for every resource and verb that is served.
///
/// # Errors
/// 400 without a namespace.
pub fn rules(authorizer: &Authorizer, user: &UserInfo, mut review: Value) -> Result<Value, ApiError> {
    let namespace =
        get(&review, &["spec", "namespace"]).and_then(Value::as_str).unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let mut found: Vec<(&str, Vec<&str>, Vec<String>)> = Vec::new();
    let mut add = |group: &'static str, verbs: &'static [&'static str], resource: &str, subresource: &str| {
        let allowed: Vec<&str> = verbs
            .iter()
            .copied()
            .filter(|verb| {
                let asked = Attributes::Resource {
                    verb,
                    group,
                    resource,
                    subresource,
                    namespace: &namespace,
                    name: "",
                };
                authorizer.allows(user, &asked)
            })
            .collect();
        if allowed.is_empty() {
            return;
        }
        let whole =
            if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        match found.iter_mut().find(|(g, v, _)| *g == group && *v == allowed) {
            Some((_, _, resources)) => resources.push(whole),
            None => found.push((group, allowed, vec![whole])),
        }
    };
    for row in resource::table() {
        add(row.group, row.verbs, row.plural, "");
        for part in row.subresources {
            add(row.group, part.verbs, row.plural, part.name);
        }
    }
    let resource_rules: Vec<Value> = found
        .into_iter()
        .map(
            |(group, verbs, resources)| json!({"apiGroups": [group], "verbs": verbs, "resources": resources}),
        )
        .collect();
    let paths: Vec<&str> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi", "/readyz", "/version"]
            .into_iter()
            .filter(|path| authorizer.allows(user, &Attributes::Path { verb: "get", path }))
            .collect();
    let other: Vec<Value> =
        if paths.is_empty() { Vec::new() } else { vec![json!({"verbs": ["get"], "nonResourceURLs": paths})] };
    // Rules for single objects by name do not show in the answers of the authorizer.
    review["status"] = json!({
        "resourceRules": resource_rules,
        "nonResourceRules": other,
        "incomplete": true,
        "evaluationError": "rules that name single objects are not listed",
    });
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
    fn administrators_may_everything_that_is_served() {
        let authorizer = Authorizer::new(&["RBAC".into()]);
        let user = UserInfo { groups: vec!["system:masters".into()], ..UserInfo::default() };
        let answer = rules(&authorizer, &user, json!({"spec": {"namespace": "a"}})).expect("rules");
        let all = answer["status"]["resourceRules"].as_array().expect("rules");
        assert!(all.iter().any(|rule| rule["apiGroups"] == json!(["apps"])));
    }
}
