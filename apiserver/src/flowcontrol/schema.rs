//! A FlowSchema, read once: which requests it is about, and how it tells their flows apart. Pure.

use std::hash::{Hash, Hasher};

use coracle_api::kinds::access::{boolean, integer, items, present, text};
use coracle_api::meta;
use serde_json::Value;

use crate::authz::Attributes;
use crate::server::request_info::UserInfo;

const ALL: &str = "*";

/// How requests of one schema are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    ByUser,
    ByNamespace,
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// A FlowSchema.
pub struct FlowSchema {
    /// Its name.
    pub name: String,
    /// Its uid; empty until it is known.
    pub uid: String,
    /// The lowest that matches decides.
    pub precedence: i64,
    /// The priority level of its requests.
    pub level: String,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

fn strings(object: &Value, field: &str) -> Vec<String> {
    items(object, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ALL || one == wanted)
}

impl FlowSchema {
    /// Reads an object that has been validated.
    pub fn of(object: &Value) -> Self {
        let none = Value::Null;
        let spec = object.get("spec").unwrap_or(&none);
        let method = present(spec, "distinguisherMethod").map_or("", |method| text(method, "type"));
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            precedence: integer(spec, "matchingPrecedence").unwrap_or(1000),
            level: present(spec, "priorityLevelConfiguration")
                .map_or("", |level| text(level, "name"))
                .to_owned(),
            distinguisher: match method {
                "ByUser" => Distinguisher::ByUser,
                "ByNamespace" => Distinguisher::ByNamespace,
                _ => Distinguisher::Nothing,
            },
            rules: items(spec, "rules").iter().map(Rule::of).collect(),
        }
    }

    /// Whether a request is of this schema.
    pub fn matches(&self, user: &UserInfo, asked: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, asked))
    }

    /// What tells the request's flow apart from the schema's others.
    pub fn distinguisher<'a>(&self, user: &'a UserInfo, asked: &Attributes<'a>) -> &'a str {
        match (self.distinguisher, asked) {
            (Distinguisher::ByUser, _) => &user.name,
            (Distinguisher::ByNamespace, Attributes::Resource(asked)) => asked.namespace,
            _ => "",
        }
    }

    /// The flow's hash: what its hand of queues is dealt by.
    pub fn hash(&self, distinguisher: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (&self.name, distinguisher).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let subject = |subject: &Value| {
            let named = |field: &str, key: &str| {
                present(subject, field).map_or("", |inner| text(inner, key)).to_owned()
            };
            match text(subject, "kind") {
                "User" => Some(Subject::User(named("user", "name"))),
                "Group" => Some(Subject::Group(named("group", "name"))),
                "ServiceAccount" => Some(Subject::ServiceAccount {
                    namespace: named("serviceAccount", "namespace"),
                    name: named("serviceAccount", "name"),
                }),
                _ => None,
            }
        };
        let resource = |rule: &Value| ResourceRule {
            verbs: strings(rule, "verbs"),
            groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            namespaces: strings(rule, "namespaces"),
            cluster_scope: boolean(rule, "clusterScope"),
        };
        let path = |rule: &Value| PathRule {
            verbs: strings(rule, "verbs"),
            paths: strings(rule, "nonResourceURLs"),
        };
        Self {
            subjects: items(rule, "subjects").iter().filter_map(subject).collect(),
            resources: items(rule, "resourceRules").iter().map(resource).collect(),
            paths: items(rule, "nonResourceRules").iter().map(path).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, asked: &Attributes<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.matches(user)) {
            return false;
        }
        match asked {
            Attributes::Path { verb, path } => self.paths.iter().any(|rule| {
                has(&rule.verbs, verb)
                    && rule.paths.iter().any(|wanted| crate::audit::policy::path_matches(path, wanted))
            }),
            Attributes::Resource(asked) => self.resources.iter().any(|rule| {
                has(&rule.verbs, asked.verb)
                    && has(&rule.groups, asked.group)
                    && rule.resources.iter().any(|wanted| names(wanted, asked.resource, asked.subresource))
                    && if asked.namespace.is_empty() {
                        rule.cluster_scope
                    } else {
                        has(&rule.namespaces, asked.namespace)
                    }
            }),
        }
    }
}

/// Whether a rule's `resources` entry means a resource or a part of one.
fn names(wanted: &str, resource: &str, subresource: &str) -> bool {
    match wanted.split_once('/') {
        None => wanted == ALL || (subresource.is_empty() && wanted == resource),
        Some((of, part)) => of == resource && part == subresource,
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == ALL || *name == user.name,
            Self::Group(name) => name == ALL || user.in_group(name),
            Self::ServiceAccount { namespace, name } => {
                let account = user.name.strip_prefix("system:serviceaccount:");
                account
                    .and_then(|account| account.split_once(':'))
                    .is_some_and(|(of, account)| of == namespace && (name == ALL || account == name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::ResourceAttributes;
    use crate::flowcontrol::defaults;

    fn schema_of(name: &str, groups: &[&str], asked: &Attributes<'_>) -> String {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
        let mut schemas: Vec<FlowSchema> =
            defaults::flow_schemas().iter().map(|(_, object)| FlowSchema::of(object)).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        schemas.into_iter().find(|schema| schema.matches(&user, asked)).expect("catch-all is there").name
    }

    #[test]
    fn the_default_schemas_find_their_requests() {
        let on = |verb, group, resource, subresource, namespace| {
            Attributes::Resource(ResourceAttributes {
                verb,
                group,
                resource,
                subresource,
                namespace,
                ..ResourceAttributes::default()
            })
        };
        let known = "system:authenticated";
        let lease = on("update", "coordination.k8s.io", "leases", "", "kube-system");
        let pods = on("list", "", "pods", "", "");
        for (user, groups, asked, schema) in [
            ("admin", &["system:masters", known][..], &pods, "exempt"),
            ("system:kube-scheduler", &[known][..], &lease, "system-leader-election"),
            ("system:kube-scheduler", &[known][..], &pods, "kube-scheduler"),
            ("system:node:a", &["system:nodes", known][..], &lease, "system-node-high"),
            (
                "system:node:a",
                &["system:nodes", known][..],
                &on("patch", "", "nodes", "status", ""),
                "system-node-high",
            ),
            ("system:node:a", &["system:nodes", known][..], &pods, "system-nodes"),
            (
                "system:serviceaccount:kube-system:x",
                &["system:serviceaccounts", known][..],
                &lease,
                "system-leader-election",
            ),
            (
                "system:serviceaccount:kube-system:x",
                &["system:serviceaccounts", known][..],
                &pods,
                "kube-system-service-accounts",
            ),
            ("system:serviceaccount:a:x", &["system:serviceaccounts", known][..], &pods, "service-accounts"),
            ("somebody", &[known][..], &pods, "global-default"),
            (
                "system:anonymous",
                &["system:unauthenticated"][..],
                &Attributes::Path { verb: "get", path: "/livez" },
                "probes",
            ),
            (
                "system:anonymous",
                &["system:unauthenticated"][..],
                &Attributes::Path { verb: "get", path: "/version" },
                "global-default",
            ),
        ] {
            assert_eq!(schema_of(user, groups, asked), schema, "{user} {asked:?}");
        }
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let user = UserInfo { name: "u".into(), ..UserInfo::default() };
        let asked =
            Attributes::Resource(ResourceAttributes { namespace: "n", ..ResourceAttributes::default() });
        let by = |name: &str| {
            let all = defaults::flow_schemas();
            let (_, object) = all.iter().find(|(_, object)| meta::name(object) == name).expect("is there");
            FlowSchema::of(object).distinguisher(&user, &asked).to_owned()
        };
        assert_eq!(
            (by("global-default"), by("kube-scheduler"), by("exempt")),
            ("u".into(), "n".into(), String::new())
        );
    }
}
