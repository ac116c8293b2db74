//! Decides what a user may do: the authorizers of `--authorization-mode` in order, of which the first that allows decides; who is in `system:masters` may
//! everything. Answers from the watch caches, never from the store.

pub mod defaults;
pub mod escalation;
pub mod node;
pub(crate) mod node_graph;
mod policy;
pub mod rbac;
pub mod rule;

use std::sync::Arc;

use coracle_api::names;
use coracle_api::status::{ApiError, GroupResource};

use crate::cache::Cache;
use crate::server::request_info::{RequestInfo, UserInfo, Verb};
use node::NodeAuthorizer;
use rbac::Rbac;
use rule::PolicyRule;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes<'a> {
    /// Something with a resource.
    Resource(ResourceAttributes<'a>),
    /// A path that is no resource.
    Path {
        /// HTTP method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// What is asked for of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes<'a> {
    /// In lower case.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Empty: the object itself.
    pub subresource: &'a str,
    /// Empty: none, or all.
    pub namespace: &'a str,
    /// Empty: the collection.
    pub name: &'a str,
    /// The selector of a request for a collection.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// Of a request.
    pub fn of(request: &'a RequestInfo) -> Self {
        let resource = request.resource;
        // A collection restricted to one name is that object; a namespace lies in itself.
        let collection = matches!(request.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let field_selector = request.query.get("fieldSelector").filter(|_| collection).unwrap_or_default();
        let selected = || field_selector.split(',').find_map(named).unwrap_or_default();
        let name = request.name.as_deref().unwrap_or_else(selected);
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        Self::Resource(ResourceAttributes {
            verb: request.verb.as_str(),
            group: resource.group,
            resource: resource.plural,
            subresource: request.subresource().unwrap_or_default(),
            namespace: if is_namespace { name } else { request.namespace() },
            name,
            field_selector,
        })
    }

    fn namespace(&self) -> &'a str {
        match self {
            Self::Resource(asked) => asked.namespace,
            Self::Path { .. } => "",
        }
    }
}

/// The name that a term of a field selector asks for.
fn named(term: &str) -> Option<&str> {
    let value = term.strip_prefix("metadata.name=")?;
    let name = value.strip_prefix('=').unwrap_or(value);
    names::path_segment(name).is_empty().then_some(name)
}

/// What the authorizers say, for reviews and refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
}

/// What a user may do in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    /// Rules about resources and paths.
    pub rules: Vec<PolicyRule>,
    /// What kept rules from being found.
    pub errors: Vec<String>,
    /// There is more that the user may do.
    pub incomplete: bool,
}

enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node(NodeAuthorizer),
    Rbac,
}

/// The authorizers of --authorization-mode, in order.
pub struct Authorizer {
    modes: Vec<Mode>,
    /// Who has which rules; also there when no mode asks it, for the checks on changed roles.
    rbac: Rbac,
}

const ADMINISTRATORS: &str = "system:masters";

impl Authorizer {
    /// Of the flag's values, which have been checked, over the watch caches.
    pub fn new(modes: &[String], cache: &Arc<Cache>) -> Self {
        let modes = modes
            .iter()
            .map(|mode| match mode.as_str() {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "Node" => Mode::Node(NodeAuthorizer::new(Arc::clone(cache))),
                _ => Mode::Rbac,
            })
            .collect();
        Self { modes, rbac: Rbac::new(cache) }
    }

    /// Whether one of the authorizers allows it.
    pub fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        user.in_group(ADMINISTRATORS)
            || self.modes.iter().any(|mode| match mode {
                Mode::AlwaysAllow => true,
                Mode::AlwaysDeny => false,
                Mode::Node(node) => node.decide(user, attributes) == node::Opinion::Allow,
                Mode::Rbac => self.rbac.allows(user, attributes),
            })
    }

    /// The same with the reasons that upstream gives.
    pub fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let allow = |reason| Decision { allowed: true, reason };
        if user.in_group(ADMINISTRATORS) {
            return allow(String::new());
        }
        let mut reasons: Vec<String> = Vec::new();
        for mode in &self.modes {
            match mode {
                Mode::AlwaysAllow => return allow(String::new()),
                Mode::AlwaysDeny => reasons.push("Everything is forbidden.".into()),
                Mode::Node(node) => match node.decide(user, attributes) {
                    node::Opinion::Allow => return allow(String::new()),
                    node::Opinion::None(reason) => reasons.push(reason),
                },
                Mode::Rbac => match self.rbac.decide(user, attributes) {
                    Decision { allowed: true, reason } => return allow(reason),
                    Decision { reason, .. } => reasons.push(reason),
                },
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision { allowed: false, reason: reasons.join("\n") }
    }

    /// The same, as an error with upstream's text.
    ///
    /// # Errors
    /// 403.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.allows(user, attributes) {
            return Ok(());
        }
        let decision = self.decide(user, attributes);
        if decision.allowed { Ok(()) } else { Err(forbidden(user, attributes, &decision.reason)) }
    }

    /// All that a user may do in a namespace, as far as it is written down in rules.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut found = UserRules::default();
        for mode in &self.modes {
            match mode {
                Mode::AlwaysAllow => found.rules.push(PolicyRule {
                    api_groups: vec!["*".into()],
                    resources: vec!["*".into()],
                    non_resource_urls: vec!["*".into()],
                    verbs: vec!["*".into()],
                    resource_names: Vec::new(),
                }),
                Mode::AlwaysDeny => {}
                Mode::Node(_) => {
                    if node::is_node(user) {
                        found.incomplete = true;
                        found.errors.push("node authorizer does not support user rule resolution".into());
                    }
                }
                Mode::Rbac => {
                    let rules = self.rbac.rules(user, namespace);
                    found.rules.extend(rules.rules);
                    found.errors.extend(rules.errors);
                }
            }
        }
        found
    }
}

fn forbidden(user: &UserInfo, attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let user = &user.name;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match attributes {
        Attributes::Path { verb, path } => ApiError::forbidden(
            GroupResource { group: "", resource: "" },
            "",
            format_args!("User {user:?} cannot {verb} path {path:?}{reason}"),
        ),
        Attributes::Resource(asked) => {
            let ResourceAttributes { verb, group, resource, subresource, namespace, name, .. } = asked;
            let whole = if subresource.is_empty() {
                (*resource).to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            ApiError::forbidden(
                GroupResource { group, resource },
                name,
                format_args!(
                    "User {user:?} cannot {verb} resource {whole:?} in API group {group:?} {scope}{reason}"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::AUTHENTICATED;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn authorizer(modes: &[&str]) -> Authorizer {
        let modes: Vec<String> = modes.iter().map(|mode| (*mode).to_owned()).collect();
        Authorizer::new(&modes, &Arc::new(Cache::new("/registry", 1)))
    }

    fn list_pods<'a>() -> Attributes<'a> {
        Attributes::Resource(ResourceAttributes {
            verb: "list",
            resource: "pods",
            namespace: "default",
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn administrators_pass_everywhere_and_others_get_upstreams_text() {
        let admin = user("admin", &["system:masters", AUTHENTICATED]);
        let robot = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", AUTHENTICATED]);
        let rbac = authorizer(&["Node", "RBAC"]);
        assert!(rbac.allows(&admin, &list_pods()));
        let error = rbac.authorize(&robot, &list_pods()).expect_err("is refused");
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"system:serviceaccount:kube-system:x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let path = Attributes::Path { verb: "get", path: "/" };
        let error = rbac.authorize(&user("system:anonymous", &[]), &path).expect_err("is refused");
        assert_eq!(error.message(), "forbidden: User \"system:anonymous\" cannot get path \"/\"");
        assert!(authorizer(&["AlwaysAllow"]).allows(&robot, &list_pods()));
        let deny = authorizer(&["AlwaysDeny"]);
        assert!(deny.allows(&admin, &list_pods()));
        let error = deny.authorize(&robot, &list_pods()).expect_err("is refused");
        assert!(error.message().ends_with("in the namespace \"default\": Everything is forbidden."));
    }

    #[test]
    fn a_collection_of_one_name_is_that_object() {
        assert_eq!(named("metadata.name=a"), Some("a"));
        assert_eq!(named("metadata.name==a"), Some("a"));
        assert_eq!(named("metadata.name!=a"), None);
        assert_eq!(named("metadata.name=a/b"), None);
    }
}
