//! One rule of a webhook or policy: operations, groups, versions, resources with their subresources, scope, names. Pure.

use coracle_api::kinds::access::{items, text};
use coracle_api::resource::Resource;
use serde_json::Value;

use super::Attributes;

const ANY: &str = "*";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

/// One rule. An empty list matches nothing, but names: no names are all of them.
#[derive(Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// `pods`, `pods/status`, `*/scale`, `pods/*`, `*/*`.
    resources: Vec<String>,
    names: Vec<String>,
    scope: Scope,
}

impl Rule {
    pub(super) fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            items(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            names: list("resourceNames"),
            scope: match text(rule, "scope") {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::Any,
            },
        }
    }

    /// Whether the write, seen as one of `resource`, is what the rule is about.
    pub(super) fn matches(&self, attributes: &Attributes<'_>, resource: &Resource) -> bool {
        let in_namespace = resource.namespaced && !attributes.namespace().is_empty();
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == ANY || one == wanted);
        (match self.scope {
            Scope::Any => true,
            Scope::Cluster => !in_namespace,
            Scope::Namespaced => in_namespace,
        }) && has(&self.operations, attributes.operation.as_str())
            && has(&self.groups, resource.group)
            && has(&self.versions, resource.version)
            && self.resources.iter().any(|one| {
                let (plural, part) = one.split_once('/').unwrap_or((one, ""));
                (plural == ANY || plural == resource.plural)
                    && (part == ANY || part == attributes.request.subresource().unwrap_or_default())
            })
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::{RequestInfo, Verb};
    use coracle_api::resource::lookup;
    use serde_json::json;

    fn matches(rule: Value, plural: &str, subresource: Option<&str>) -> bool {
        let mut whole =
            json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let fields = rule.as_object().expect("an object").clone();
        whole.as_object_mut().expect("an object").extend(fields);
        let row = lookup("", "v1", plural).expect("in the table");
        let mut request = RequestInfo::internal(Verb::Update, row, row.namespaced.then_some("a"), Some("x"));
        request.subresource = subresource.and_then(|name| row.subresource(name));
        let object = json!({});
        Rule::of(&whole).matches(&Attributes::new(&request, Some(&object), Some(&object)), row)
    }

    #[test]
    fn every_part_of_a_rule_counts() {
        for (rule, plural, subresource, expected) in [
            (json!({}), "pods", None, true),
            (json!({}), "pods", Some("status"), false),
            (json!({"resources": ["*/*"]}), "pods", Some("status"), true),
            (json!({"resources": ["*/*"]}), "pods", None, true),
            (json!({"resources": ["pods/*"]}), "nodes", Some("status"), false),
            (json!({"resources": ["*/status"]}), "nodes", Some("status"), true),
            (json!({"resources": ["pods/exec"]}), "pods", Some("exec"), true),
            (json!({"operations": ["CONNECT"]}), "pods", None, false),
            (json!({"operations": ["UPDATE"]}), "pods", None, true),
            (json!({"apiGroups": [""], "apiVersions": ["v1"]}), "pods", None, true),
            (json!({"apiGroups": ["apps"]}), "pods", None, false),
            (json!({"scope": "Cluster"}), "pods", None, false),
            (json!({"scope": "Cluster"}), "nodes", None, true),
            (json!({"scope": "Namespaced"}), "nodes", None, false),
            (json!({"scope": "Cluster"}), "namespaces", None, true),
            (json!({"resourceNames": ["y"]}), "pods", None, false),
            (json!({"resourceNames": ["y", "x"]}), "pods", None, true),
        ] {
            assert_eq!(
                matches(rule.clone(), plural, subresource),
                expected,
                "{rule} {plural} {subresource:?}"
            );
        }
    }
}
