//! Decides what a user may do: the authorizers of the flags in order, of which the first that has an opinion decides; who is in `system:masters` may
//! everything. Answers from the watch caches, never from the store; webhooks are asked where the flags name some.

mod abac;
mod config;
pub mod defaults;
pub mod escalation;
pub mod node;
pub(crate) mod node_graph;
mod policy;
mod question;
pub mod rbac;
pub mod rule;
mod webhook;

use std::sync::Arc;

use coracle_api::names;
use coracle_api::status::{ApiError, GroupResource};
use futures::FutureExt;
use tokio::runtime::Handle;

use crate::extension::kubeconfig::Remote;
use crate::options::Options;
use crate::registry::Registry;
use crate::server::request_info::{RequestInfo, UserInfo, Verb};
use abac::Abac;
use config::Choice;
use node::NodeAuthorizer;
use rbac::Rbac;
use rule::PolicyRule;
use webhook::Webhook;

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
    /// API version, for those who ask elsewhere: rules say nothing of it.
    pub version: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Empty: the object itself.
    pub subresource: &'a str,
    /// Empty: none, or all.
    pub namespace: &'a str,
    /// Empty: the collection.
    pub name: &'a str,
    /// The selector of fields of a request for a collection.
    pub field_selector: &'a str,
    /// The selector of labels of a request for a collection.
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// Of a request.
    pub fn of(request: &'a RequestInfo) -> Self {
        let resource = request.resource;
        // A collection restricted to one name is that object; a namespace lies in itself.
        let collection = matches!(request.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let selector = |name| request.query.get(name).filter(|_| collection).unwrap_or_default();
        let field_selector = selector("fieldSelector");
        let selected = || field_selector.split(',').find_map(named).unwrap_or_default();
        let name = request.name.as_deref().unwrap_or_else(selected);
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        Self::Resource(ResourceAttributes {
            verb: request.verb.as_str(),
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            subresource: request.subresource().unwrap_or_default(),
            namespace: if is_namespace { name } else { request.namespace() },
            name,
            field_selector,
            label_selector: selector("labelSelector"),
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
    /// Whether it is refused whatever others say.
    pub denied: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
}

impl Decision {
    /// The decision about what was asked for, as an error with upstream's text.
    ///
    /// # Errors
    /// 403.
    pub fn enforce(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.allowed { Ok(()) } else { Err(forbidden(user, attributes, &self.reason)) }
    }
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

/// What one authorizer says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// It is allowed.
    Allow(String),
    /// It is not, whatever others say.
    Deny(String),
    /// Others may allow it.
    None(String),
}

enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node(NodeAuthorizer),
    Rbac,
    Abac(Abac),
    Webhook(Box<Webhook>),
}

/// The authorizers of the flags, in order.
pub struct Authorizer {
    modes: Vec<Mode>,
    /// Who has which rules; also there when no mode asks it, for the checks on changed roles.
    rbac: Rbac,
}

const ADMINISTRATORS: &str = "system:masters";

impl Authorizer {
    /// Of the flags' values, which have been checked, over the registry's watch caches.
    ///
    /// # Errors
    /// A file that a flag names makes no sense; the text names it.
    pub fn new(options: &Options, registry: &Arc<Registry>) -> Result<Self, String> {
        let cache = &registry.cache;
        let mode = |choice| {
            Ok(match choice {
                Choice::AlwaysAllow => Mode::AlwaysAllow,
                Choice::AlwaysDeny => Mode::AlwaysDeny,
                Choice::Node => Mode::Node(NodeAuthorizer::new(Arc::clone(cache))),
                Choice::Rbac => Mode::Rbac,
                Choice::Abac(path) => {
                    let abac = Abac::load(&path);
                    Mode::Abac(abac.map_err(|error| format!("--authorization-policy-file: {error}"))?)
                }
                Choice::Webhook { settings, kubeconfig, conditions } => {
                    let named = |error: String| format!("authorization webhook {:?}: {error}", kubeconfig);
                    let remote = Remote::load(&kubeconfig, registry).map_err(named)?;
                    Mode::Webhook(Box::new(Webhook::new(settings, remote, &conditions).map_err(named)?))
                }
            })
        };
        let modes = config::of(options)?.into_iter().map(mode).collect::<Result<_, String>>()?;
        Ok(Self { modes, rbac: Rbac::new(cache) })
    }

    /// Whether it is allowed.
    pub async fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        if user.in_group(ADMINISTRATORS) {
            return true;
        }
        for mode in &self.modes {
            // Reasons cost more than decisions: they are looked for when something is refused.
            let allowed = match mode {
                Mode::Rbac => self.rbac.allows(user, attributes),
                mode => match self.opinion(mode, user, attributes).await {
                    Opinion::Deny(_) => return false,
                    opinion => matches!(opinion, Opinion::Allow(_)),
                },
            };
            if allowed {
                return true;
            }
        }
        false
    }

    /// The same with the reasons that upstream gives.
    pub async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if user.in_group(ADMINISTRATORS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let mut reasons: Vec<String> = Vec::new();
        for mode in &self.modes {
            match self.opinion(mode, user, attributes).await {
                Opinion::Allow(reason) => return Decision { allowed: true, denied: false, reason },
                Opinion::Deny(reason) => {
                    reasons.push(reason);
                    reasons.retain(|reason| !reason.is_empty());
                    return Decision { allowed: false, denied: true, reason: reasons.join("\n") };
                }
                Opinion::None(reason) => reasons.push(reason),
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision { reason: reasons.join("\n"), ..Decision::default() }
    }

    /// The same for callers that cannot wait elsewhere, such as expressions: where others have to be asked, the thread waits for them.
    pub fn decide_here(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let decision = self.decide(user, attributes);
        if self.modes.iter().any(|mode| matches!(mode, Mode::Webhook(_))) {
            return tokio::task::block_in_place(|| Handle::current().block_on(decision));
        }
        // Nobody is waited for.
        decision.now_or_never().unwrap_or_default()
    }

    async fn opinion(&self, mode: &Mode, user: &UserInfo, attributes: &Attributes<'_>) -> Opinion {
        match mode {
            Mode::AlwaysAllow => Opinion::Allow(String::new()),
            Mode::AlwaysDeny => Opinion::None("Everything is forbidden.".to_owned()),
            Mode::Node(node) => node.decide(user, attributes),
            Mode::Rbac => match self.rbac.decide(user, attributes) {
                Decision { allowed: true, reason, .. } => Opinion::Allow(reason),
                Decision { reason, .. } => Opinion::None(reason),
            },
            Mode::Abac(abac) if abac.allows(user, attributes) => Opinion::Allow(String::new()),
            Mode::Abac(_) => Opinion::None("No policy matched.".to_owned()),
            Mode::Webhook(webhook) => webhook.decide(user, attributes).await,
        }
    }

    /// The same, as an error with upstream's text.
    ///
    /// # Errors
    /// 403.
    pub async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.allows(user, attributes).await {
            return Ok(());
        }
        self.decide(user, attributes).await.enforce(user, attributes)
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
                Mode::Abac(abac) => found.rules.extend(abac.rules(user, namespace)),
                Mode::Webhook(_) => {
                    found.incomplete = true;
                    found.errors.push("webhook authorizer does not support user rule resolution".into());
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
    use crate::cache::Cache;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn authorizer(modes: &[&str]) -> Authorizer {
        let cache = Arc::new(Cache::new("/registry", 1));
        let mode = |mode: &&str| match *mode {
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Node" => Mode::Node(NodeAuthorizer::new(Arc::clone(&cache))),
            _ => Mode::Rbac,
        };
        Authorizer { modes: modes.iter().map(mode).collect(), rbac: Rbac::new(&cache) }
    }

    fn list_pods<'a>() -> Attributes<'a> {
        Attributes::Resource(ResourceAttributes {
            verb: "list",
            resource: "pods",
            namespace: "default",
            ..ResourceAttributes::default()
        })
    }

    #[tokio::test]
    async fn administrators_pass_everywhere_and_others_get_upstreams_text() {
        let admin = user("admin", &["system:masters", AUTHENTICATED]);
        let robot = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", AUTHENTICATED]);
        let rbac = authorizer(&["Node", "RBAC"]);
        assert!(rbac.allows(&admin, &list_pods()).await);
        let error = rbac.authorize(&robot, &list_pods()).await.expect_err("is refused");
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"system:serviceaccount:kube-system:x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let path = Attributes::Path { verb: "get", path: "/" };
        let error = rbac.authorize(&user("system:anonymous", &[]), &path).await.expect_err("is refused");
        assert_eq!(error.message(), "forbidden: User \"system:anonymous\" cannot get path \"/\"");
        assert!(authorizer(&["AlwaysAllow"]).allows(&robot, &list_pods()).await);
        let deny = authorizer(&["AlwaysDeny"]);
        assert!(deny.allows(&admin, &list_pods()).await);
        let error = deny.authorize(&robot, &list_pods()).await.expect_err("is refused");
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
