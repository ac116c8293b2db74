//! Attribute-based access control: a file with one policy a line, of which the first that matches allows. Read once at start.

use std::path::Path;

use serde::Deserialize;

use super::Attributes;
use super::rule::PolicyRule;
use crate::server::request_info::UserInfo;

const ANY: &str = "*";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    api_version: String,
    kind: String,
    spec: Policy,
}

/// Who may do what. An empty field matches nothing but emptiness.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    #[serde(rename = "nonResourcePath")]
    path: String,
}

/// The policies of a file.
pub(super) struct Abac(Vec<Policy>);

impl Abac {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line makes no sense.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        Self::parse(&text).map_err(named)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut policies = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |error: String| format!("line {}: {error}", number + 1);
            let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            if (line.api_version.as_str(), line.kind.as_str())
                != ("abac.authorization.kubernetes.io/v1beta1", "Policy")
            {
                return Err(wrong(
                    "it has to be a Policy of abac.authorization.kubernetes.io/v1beta1".to_owned(),
                ));
            }
            policies.push(line.spec);
        }
        Ok(Self(policies))
    }

    /// Whether a policy allows it.
    pub(super) fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        self.0.iter().any(|policy| policy.is_about(user) && policy.allows(attributes))
    }

    /// What the policies say as rules for a user in a namespace.
    pub(super) fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let one = |text: &str| vec![text.to_owned()];
        let of_user = self.0.iter().filter(|policy| policy.is_about(user));
        let mut rules = Vec::new();
        for policy in of_user {
            let verbs =
                if policy.readonly { ["get", "list", "watch"].map(str::to_owned).to_vec() } else { one(ANY) };
            if !policy.resource.is_empty() && (policy.namespace == ANY || policy.namespace == namespace) {
                rules.push(PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: one(&policy.api_group),
                    resources: one(&policy.resource),
                    resource_names: Vec::new(),
                    non_resource_urls: Vec::new(),
                });
            }
            if !policy.path.is_empty() {
                rules.push(PolicyRule {
                    verbs,
                    api_groups: Vec::new(),
                    resources: Vec::new(),
                    resource_names: Vec::new(),
                    non_resource_urls: one(&policy.path),
                });
            }
        }
        rules
    }
}

impl Policy {
    fn is_about(&self, user: &UserInfo) -> bool {
        let user_fits = self.user == ANY || self.user == user.name;
        let group_fits = self.group == ANY || user.in_group(&self.group);
        match (self.user.is_empty(), self.group.is_empty()) {
            (true, true) => false,
            (by_group, by_user) => (by_group || user_fits) && (by_user || group_fits),
        }
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let fits = |pattern: &str, value: &str| pattern == ANY || pattern == value;
        match attributes {
            Attributes::Resource(asked) => {
                (!self.readonly || matches!(asked.verb, "get" | "list" | "watch"))
                    && fits(&self.namespace, asked.namespace)
                    && fits(&self.resource, asked.resource)
                    && fits(&self.api_group, asked.group)
            }
            Attributes::Path { verb, path } => {
                let below = self.path.strip_suffix(ANY).is_some_and(|start| path.starts_with(start));
                (!self.readonly || matches!(*verb, "get" | "list" | "watch")) && (below || self.path == *path)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::ResourceAttributes;

    #[test]
    fn a_line_allows_what_all_its_fields_fit() {
        let abac = Abac::parse(
            r#"# comment
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "bob", "namespace": "n", "resource": "pods", "apiGroup": "*", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "ops", "nonResourcePath": "/logs/*"}}"#,
        )
        .expect("reads");
        let bob = UserInfo { name: "bob".into(), groups: vec!["ops".into()], ..UserInfo::default() };
        let eve = UserInfo { name: "eve".into(), ..UserInfo::default() };
        let pods = |verb, namespace| {
            Attributes::Resource(ResourceAttributes {
                verb,
                namespace,
                resource: "pods",
                ..Default::default()
            })
        };
        let logs = Attributes::Path { verb: "post", path: "/logs/a" };
        assert!(abac.allows(&bob, &pods("get", "n")) && abac.allows(&bob, &logs));
        assert!(!abac.allows(&bob, &pods("create", "n")) && !abac.allows(&bob, &pods("get", "m")));
        assert!(!abac.allows(&eve, &pods("get", "n")) && !abac.allows(&eve, &logs));
        assert_eq!((abac.rules(&bob, "n").len(), abac.rules(&bob, "m").len()), (2, 1));
        assert!(Abac::parse(r#"{"kind": "Policy", "apiVersion": "v1", "spec": {}}"#).is_err());
    }
}
