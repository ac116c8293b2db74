//! The audit policy (`audit.k8s.io/v1`, `Policy`): at which level and at which stages a request is recorded. Pure but for reading the file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::authz::Attributes;
use crate::server::request_info::UserInfo;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what when.
    Metadata,
    /// The object sent too.
    Request,
    /// The object answered with too.
    RequestResponse,
}

/// Where in its life a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// As soon as it is known who sends it.
    RequestReceived,
    /// The head of the answer is on its way; only of requests that run long, and of those nobody is known to have sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler failed.
    Panic,
}

/// What the policy says about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// Where not.
    pub omit_stages: Vec<Stage>,
    /// Objects are recorded without `metadata.managedFields`.
    pub omit_managed_fields: bool,
}

/// A policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[serde(rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy of YAML or JSON.
    ///
    /// # Errors
    /// A text naming the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("failed to read file path {:?}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{error}: from file {}", path.display()))
    }

    /// The same of its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self =
            serde_yaml_ng::from_str(text).map_err(|error| format!("failed decoding: {error}"))?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "unknown group version field {:?} kind {:?} in policy; audit.k8s.io/v1, Policy is understood",
                policy.api_version, policy.kind
            ));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|error| format!("rules[{index}].{error}"))?;
        }
        Ok(policy)
    }

    /// What is to be recorded of a request. The first rule that matches decides; without one, nothing is.
    pub fn of(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, attributes)) else {
            return Verdict::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(&rule.omit_stages);
        Verdict {
            level: rule.level,
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            return Err(format!(
                "nonResourceURLs: Invalid value: {:?}: rules cannot apply to both regular resources and non-resource URLs",
                self.non_resource_urls
            ));
        }
        for (index, url) in self.non_resource_urls.iter().enumerate() {
            if url == "*" {
                continue;
            }
            let invalid = |why| Err(format!("nonResourceURLs[{index}]: Invalid value: {url:?}: {why}"));
            if !url.starts_with('/') {
                return invalid("non-resource URL rules must begin with a '/' character");
            }
            if url.trim_end_matches('*').len() + 1 < url.len() || url[..url.len() - 1].contains('*') {
                return invalid("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        for (index, kinds) in self.resources.iter().enumerate() {
            if !kinds.resource_names.is_empty() && kinds.resources.is_empty() {
                return Err(format!(
                    "resources[{index}].resourceNames: Invalid value: {:?}: using resourceNames requires at least one resource",
                    kinds.resource_names
                ));
            }
        }
        Ok(())
    }

    fn matches(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        let named = |list: &[String], wanted: &str| list.iter().any(|one| one == wanted);
        let verb = match attributes {
            Attributes::Resource(asked) => asked.verb,
            Attributes::Path { verb, .. } => verb,
        };
        if !self.users.is_empty() && !named(&self.users, &user.name)
            || !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.in_group(group))
            || !self.verbs.is_empty() && !named(&self.verbs, verb)
        {
            return false;
        }
        let of_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match attributes {
            Attributes::Resource(asked) if of_resources => {
                (self.namespaces.is_empty() || named(&self.namespaces, asked.namespace))
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|kinds| {
                            kinds.matches(asked.group, asked.resource, asked.subresource, asked.name)
                        }))
            }
            Attributes::Path { path, .. } if !of_resources && !self.non_resource_urls.is_empty() => {
                self.non_resource_urls.iter().any(|wanted| path_matches(path, wanted))
            }
            _ => !of_resources && self.non_resource_urls.is_empty(),
        }
    }
}

impl GroupResources {
    fn matches(&self, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        if self.group != group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|one| one == name) {
            return false;
        }
        self.resources.iter().any(|wanted| {
            if wanted == "*" {
                return true;
            }
            match wanted.split_once('/') {
                None => subresource.is_empty() && wanted == resource,
                Some((of, part)) => {
                    !subresource.is_empty()
                        && (of == "*" || of == resource)
                        && (part == "*" || part == subresource)
                        // `*/*` is not a form that matches anything.
                        && !(of == "*" && part == "*")
                }
            }
        })
    }
}

/// Whether a path is one of those that a pattern of audit and flow rules means.
pub(crate) fn path_matches(path: &str, wanted: &str) -> bool {
    wanted == "*" || path == wanted || wanted.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::ResourceAttributes;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: Request, omitStages: [ResponseStarted], resources: [{group: "", resources: ["pods/*", "*/status"]}], namespaces: [a]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: "", resources: [configmaps], resourceNames: [one]}]}
- {level: Metadata, userGroups: ["system:authenticated"]}
"#;

    fn level(user: &str, attributes: &Attributes<'_>) -> Level {
        let policy = Policy::parse(POLICY).expect("a policy");
        let groups = if user.is_empty() { Vec::new() } else { vec!["system:authenticated".to_owned()] };
        policy.of(&UserInfo { name: user.into(), groups, ..UserInfo::default() }, attributes).level
    }

    fn on<'a>(verb: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Attributes<'a> {
        Attributes::Resource(ResourceAttributes {
            verb,
            resource,
            subresource,
            name,
            namespace: "a",
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(level("system:kube-proxy", &on("watch", "services", "", "")), Level::None);
        assert_eq!(level("system:kube-proxy", &on("list", "services", "", "")), Level::Metadata);
        assert_eq!(level("u", &on("create", "pods", "exec", "x")), Level::Request);
        assert_eq!(level("u", &on("update", "nodes", "status", "x")), Level::Request);
        assert_eq!(level("u", &on("create", "pods", "", "x")), Level::Metadata);
        assert_eq!(level("u", &on("get", "configmaps", "", "one")), Level::RequestResponse);
        assert_eq!(level("u", &on("get", "configmaps", "", "two")), Level::Metadata);
        let path = |path| Attributes::Path { verb: "get", path };
        assert_eq!(level("u", &path("/healthz/etcd")), Level::None);
        assert_eq!(level("u", &path("/apis")), Level::Metadata);
        assert_eq!(level("", &path("/apis")), Level::None);
    }

    #[test]
    fn stages_add_up_and_managed_fields_are_for_the_rule_to_say() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let verdict = policy.of(&UserInfo::default(), &on("get", "pods", "log", "x"));
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(policy.of(&UserInfo::default(), &on("get", "configmaps", "", "one")).omit_managed_fields);
    }

    #[test]
    fn policies_that_make_no_sense_are_refused_with_the_reason() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (rules, text) in [
            ("rules: []", "loaded illegal policy with 0 rules"),
            ("rules: [{level: Much}]", "failed decoding: rules[0].level: unknown variant `Much`"),
            ("rules: [{level: None, nonsense: 1}]", "unknown field `nonsense`"),
            (
                "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
                "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both",
            ),
            ("rules: [{level: None, nonResourceURLs: [/*/b]}]", "must be the final character"),
        ] {
            let error = Policy::parse(&format!("{head}{rules}")).expect_err(rules);
            assert!(error.contains(text), "{error}");
        }
        assert!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: [{level: None}]").is_err());
    }
}
