//! One rule of a role: what it allows, what it covers of another rule, how it reads. Pure; knows no users.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Attributes, ResourceAttributes};

/// The wildcard of verbs, groups, resources and URLs.
const ALL: &str = "*";

/// A rule of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    /// API groups; the core group is empty.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `RESOURCE/SUBRESOURCE` or `*/SUBRESOURCE`.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Names of objects; none means all.
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths that are no resources; one that ends in `*` is a prefix.
    #[serde(rename = "nonResourceURLs", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    /// Verbs.
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
}

/// A list that may be null.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

/// Whether `rule` (as rules write resources) is `resource` or its `subresource`.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((parent, part)) => part == subresource && (parent == resource || parent == ALL),
        None => false,
    }
}

/// Whether the URL of a rule covers another one.
fn url_matches(rule: &str, url: &str) -> bool {
    rule == url || (rule.ends_with(ALL) && url.starts_with(rule.trim_end_matches(ALL)))
}

impl PolicyRule {
    /// Whether it allows what is asked for.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        match attributes {
            Attributes::Resource(asked) => self.allows_resource(asked),
            Attributes::Path { verb, path } => {
                has_or_all(&self.verbs, verb)
                    && self.non_resource_urls.iter().any(|url| url_matches(url, path))
            }
        }
    }

    fn allows_resource(&self, asked: &ResourceAttributes<'_>) -> bool {
        has_or_all(&self.verbs, asked.verb)
            && has_or_all(&self.api_groups, asked.group)
            && self.resources.iter().any(|rule| resource_matches(rule, asked.resource, asked.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, asked.name))
    }

    /// The rules with one value of each kind that this one is the sum of.
    pub fn broken_down(&self) -> Vec<PolicyRule> {
        let mut parts = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = PolicyRule {
                        api_groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        ..PolicyRule::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    let named = |name| PolicyRule { resource_names: one(name), ..part.clone() };
                    parts.extend(self.resource_names.iter().map(named));
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                parts.push(PolicyRule {
                    non_resource_urls: one(url),
                    verbs: one(verb),
                    ..PolicyRule::default()
                });
            }
        }
        parts
    }

    /// Whether everything that `part` allows is allowed by this rule.
    pub fn covers(&self, part: &PolicyRule) -> bool {
        let all =
            |own: &[String], wanted: &[String]| has(own, ALL) || wanted.iter().all(|item| has(own, item));
        let resource = |wanted: &String| {
            has(&self.resources, wanted)
                || wanted.split_once('/').is_some_and(|(_, subresource)| {
                    self.resources.iter().any(|own| own.strip_prefix("*/") == Some(subresource))
                })
        };
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && (has(&self.resources, ALL) || part.resources.iter().all(resource))
            && part
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|own| url_matches(own, url)))
            && (self.resource_names.is_empty()
                || !part.resource_names.is_empty()
                    && part.resource_names.iter().all(|name| has(&self.resource_names, name)))
    }

    /// As upstream's messages show it.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted_list(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// The group and resource of a rule about nothing but one resource of one group.
    fn simple_resource(&self) -> Option<(&str, &str)> {
        match (self.api_groups.as_slice(), self.resources.as_slice()) {
            ([group], [resource]) if self.resource_names.is_empty() && self.non_resource_urls.is_empty() => {
                Some((group, resource))
            }
            _ => None,
        }
    }
}

/// `["a" "b"]`, as Go prints a list of quoted texts.
pub(super) fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| coracle_api::field::go_quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// What of `wanted` no rule of `held` covers, in parts.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(PolicyRule::broken_down)
        .filter(|part| !held.iter().any(|rule| rule.covers(part)))
        .collect()
}

/// Parts of rules as upstream's messages list them: verbs for one resource in one line, sorted.
pub fn describe_all(parts: &[PolicyRule]) -> Vec<String> {
    let mut compact: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let wanted = part.simple_resource();
        match compact.iter_mut().find(|rule| wanted.is_some() && rule.simple_resource() == wanted) {
            Some(rule) => rule.verbs.extend_from_slice(&part.verbs),
            None => compact.push(part.clone()),
        }
    }
    let mut lines: Vec<String> = compact.iter().map(PolicyRule::describe).collect();
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: serde_json::Value) -> PolicyRule {
        serde_json::from_value(value).expect("a rule")
    }

    fn asked<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes::Resource(ResourceAttributes {
            verb,
            group,
            resource,
            subresource,
            name,
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn resources_subresources_names_and_wildcards_match_as_upstream() {
        let pods =
            rule(json!({"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get", "list"]}));
        assert!(pods.allows(&asked("get", "", "pods", "a")));
        assert!(
            !pods.allows(&asked("delete", "", "pods", "a"))
                && !pods.allows(&asked("get", "apps", "pods", ""))
        );
        assert!(!pods.allows(&asked("get", "", "pods/log", "a")), "a resource does not carry its parts");
        assert!(pods.allows(&asked("get", "", "things/scale", "a")));
        let all = rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        assert!(all.allows(&asked("approve", "x", "y/z", "")));
        assert!(!all.allows(&Attributes::Path { verb: "get", path: "/healthz" }));
        let named = rule(
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}),
        );
        assert!(named.allows(&asked("get", "", "secrets", "a")));
        assert!(
            !named.allows(&asked("get", "", "secrets", "b"))
                && !named.allows(&asked("get", "", "secrets", ""))
        );
    }

    #[test]
    fn paths_match_whole_or_by_prefix() {
        let urls = rule(json!({"nonResourceURLs": ["/api", "/openapi/*"], "verbs": ["get"]}));
        let get = |path| urls.allows(&Attributes::Path { verb: "get", path });
        assert!(get("/api") && get("/openapi/v2") && get("/openapi/"));
        assert!(!get("/api/v1") && !get("/openapi"));
        assert!(!urls.allows(&Attributes::Path { verb: "post", path: "/api" }));
    }

    #[test]
    fn what_is_not_held_is_named_in_upstreams_words() {
        let held = [
            rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]})),
            rule(json!({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]})),
            rule(json!({"nonResourceURLs": ["/a/*"], "verbs": ["get"]})),
            rule(
                json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}),
            ),
        ];
        let wanted = [
            rule(
                json!({"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get", "delete", "patch"]}),
            ),
            rule(json!({"nonResourceURLs": ["/a/b", "/c"], "verbs": ["get"]})),
            rule(
                json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["get"]}),
            ),
            rule(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})),
        ];
        assert_eq!(
            describe_all(&uncovered(&held, &wanted)),
            [
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}",
                "{APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"b\"], Verbs:[\"get\"]}",
                "{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}",
                "{NonResourceURLs:[\"/c\"], Verbs:[\"get\"]}",
            ]
        );
        assert!(uncovered(&held, &held).is_empty());
    }
}
