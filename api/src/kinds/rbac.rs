//! Roles, ClusterRoles and their bindings. What the rules in them allow is the server's authorizer's matter.

use serde_json::{Value, json};

use super::access::{default_text, each_mut, items, present, same, struct_mut, text};
use super::{label_selector, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// The API group of roles, and of users and groups as subjects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

const ROLE: &str = "Role";
const CLUSTER_ROLE: &str = "ClusterRole";
const SERVICE_ACCOUNT: &str = "ServiceAccount";
const USER: &str = "User";
const USER_GROUP: &str = "Group";

/// Upstream has no defaults for roles.
pub fn default_role(_object: &mut Value) {}

/// Upstream's defaults: the API groups of the role and of the subjects.
pub fn default_binding(object: &mut Value) {
    if let Some(role) = struct_mut(object, "roleRef") {
        default_text(role, "apiGroup", GROUP);
    }
    each_mut(object, "subjects", |subject| {
        if matches!(text(subject, "kind"), USER | USER_GROUP) {
            default_text(subject, "apiGroup", GROUP);
        }
    });
}

/// Everything wrong with a new Role.
pub fn validate_role(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::path_segment);
    rules(object, true, &mut errors);
    errors
}

/// Everything wrong with a changed Role.
pub fn validate_role_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_role(new);
    errors.extend(object_meta::validate_update(new, old));
    errors
}

/// Everything wrong with a new ClusterRole.
pub fn validate_cluster_role(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::path_segment);
    rules(object, false, &mut errors);
    if let Some(aggregation) = present(object, "aggregationRule") {
        let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = items(aggregation, "clusterRoleSelectors");
        if selectors.is_empty() {
            let problem = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(field::required(&path, problem));
        }
        for (index, selector) in selectors.iter().enumerate() {
            label_selector::validate(selector, &path.index(index), &mut errors);
        }
    }
    errors
}

/// Everything wrong with a changed ClusterRole.
pub fn validate_cluster_role_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_cluster_role(new);
    errors.extend(object_meta::validate_update(new, old));
    errors
}

fn rules(object: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    for (index, rule) in items(object, "rules").iter().enumerate() {
        validate_rule(rule, namespaced, &FieldPath::new("rules").index(index), errors);
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let empty = |key: &str| items(rule, key).is_empty();
    if empty("verbs") {
        errors.push(field::required(path.child("verbs"), "verbs must contain at least one value"));
    }
    if !empty("nonResourceURLs") {
        let mut refuse = |problem: &str| {
            let urls = rule["nonResourceURLs"].clone();
            errors.push(field::invalid(path.child("nonResourceURLs"), urls, problem));
        };
        if namespaced {
            refuse("namespaced rules cannot apply to non-resource URLs");
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            refuse("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if empty("apiGroups") {
        let problem = "resource rules must supply at least one api group";
        errors.push(field::required(path.child("apiGroups"), problem));
    }
    if empty("resources") {
        errors.push(field::required(
            path.child("resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

/// Everything wrong with a new RoleBinding.
pub fn validate_role_binding(object: &Value) -> Vec<FieldError> {
    validate_binding(object, true)
}

/// Everything wrong with a changed RoleBinding.
pub fn validate_role_binding_update(new: &Value, old: &Value) -> Vec<FieldError> {
    validate_binding_update(new, old, true)
}

/// Everything wrong with a new ClusterRoleBinding.
pub fn validate_cluster_role_binding(object: &Value) -> Vec<FieldError> {
    validate_binding(object, false)
}

/// Everything wrong with a changed ClusterRoleBinding.
pub fn validate_cluster_role_binding_update(new: &Value, old: &Value) -> Vec<FieldError> {
    validate_binding_update(new, old, false)
}

fn validate_binding(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, namespaced, names::path_segment);
    let role = object.get("roleRef").unwrap_or(&Value::Null);
    let path = FieldPath::new("roleRef");
    if text(role, "apiGroup") != GROUP {
        errors.push(field::not_supported(path.child("apiGroup"), text(role, "apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &[ROLE, CLUSTER_ROLE] } else { &[CLUSTER_ROLE] };
    if !kinds.contains(&text(role, "kind")) {
        errors.push(field::not_supported(path.child("kind"), text(role, "kind"), kinds));
    }
    let name = text(role, "name");
    if name.is_empty() {
        errors.push(field::required(path.child("name"), ""));
    }
    let problems = names::path_segment(name);
    errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("name"), name, problem)));
    for (index, subject) in items(object, "subjects").iter().enumerate() {
        validate_subject(subject, namespaced, &FieldPath::new("subjects").index(index), &mut errors);
    }
    errors
}

fn validate_binding_update(new: &Value, old: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = validate_binding(new, namespaced);
    errors.extend(object_meta::validate_update(new, old));
    if !same(new.get("roleRef"), old.get("roleRef")) {
        let role = &new["roleRef"];
        // Upstream prints its internal type, whose fields have Go's names.
        let printed = json!({"APIGroup": text(role, "apiGroup"), "Kind": text(role, "kind"), "Name": text(role, "name")});
        errors.push(field::invalid("roleRef", printed, "cannot change roleRef"));
    }
    errors
}

fn validate_subject(subject: &Value, namespaced: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(field::required(path.child("name"), ""));
    }
    let kind = text(subject, "kind");
    match kind {
        SERVICE_ACCOUNT => {
            if !name.is_empty() {
                let problems = names::dns1123_subdomain(name);
                let named = |problem| field::invalid(path.child("name"), name, problem);
                errors.extend(problems.into_iter().map(named));
            }
            if !group.is_empty() {
                errors.push(field::not_supported(path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(field::required(path.child("namespace"), ""));
            }
        }
        USER | USER_GROUP => {
            if name.is_empty() {
                let problem = format!("{} name cannot be empty", kind.to_lowercase());
                errors.push(field::invalid(path.child("name"), name, problem));
            }
            if group != GROUP {
                errors.push(field::not_supported(path.child("apiGroup"), group, &[GROUP]));
            }
        }
        _ => {
            errors.push(field::not_supported(path.child("kind"), kind, &[SERVICE_ACCOUNT, USER, USER_GROUP]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_about_resources_or_about_urls() {
        let role = |rule: Value| json!({"metadata": {"name": "a:b", "namespace": "x"}, "rules": [rule]});
        let good = role(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}));
        assert!(validate_role(&good).is_empty());
        assert_eq!(
            texts(&validate_role(&role(json!({})))),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        let both = role(json!({"nonResourceURLs": ["/a"], "apiGroups": [""], "verbs": ["get"]}));
        assert_eq!(
            texts(&validate_role(&both)),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs",
            ]
        );
        let urls = json!({"metadata": {"name": "a"}, "rules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}], "aggregationRule": {}});
        assert_eq!(
            texts(&validate_cluster_role(&urls)),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
    }

    #[test]
    fn bindings_name_a_role_for_ever_and_known_kinds_of_subjects() {
        let mut binding = json!({"metadata": {"name": "a", "namespace": "x"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "default"}]});
        default_binding(&mut binding);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert!(binding["subjects"][1].get("apiGroup").is_none());
        assert!(validate_role_binding(&binding).is_empty());
        let mut other = binding.clone();
        other["roleRef"]["name"] = "edit".into();
        assert_eq!(
            texts(&validate_role_binding_update(&other, &binding)),
            [
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: cannot change roleRef"
            ]
        );
        let cluster = json!({"metadata": {"name": "a"}, "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "."},
            "subjects": [{"kind": "ServiceAccount", "name": "A"}, {"kind": "Dog", "name": "x"}, {"kind": "Group", "apiGroup": GROUP}]});
        let errors = texts(&validate_cluster_role_binding(&cluster));
        assert_eq!(errors[0], "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"");
        assert_eq!(errors[1], "roleRef.name: Invalid value: \".\": may not be '.'");
        assert!(errors[2].starts_with("subjects[0].name: Invalid value: \"A\": a lowercase RFC 1123"));
        assert_eq!(
            errors[3..],
            [
                "subjects[0].namespace: Required value",
                "subjects[1].kind: Unsupported value: \"Dog\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "subjects[2].name: Required value",
                "subjects[2].name: Invalid value: \"\": group name cannot be empty",
            ]
        );
    }
}
