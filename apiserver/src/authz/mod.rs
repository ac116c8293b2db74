//! Decides what a user may do. RBAC rules are not evaluated yet: until they are, administrators, the components' own identities and what upstream grants
//! to everybody are allowed, and everything else is refused.

use coracle_api::status::{ApiError, GroupResource};

use crate::authn::AUTHENTICATED;
use crate::server::request_info::{RequestInfo, UserInfo, Verb};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes<'a> {
    /// Something with a resource.
    Resource {
        /// In lower case.
        verb: &'a str,
        /// API group.
        group: &'a str,
        /// Plural.
        resource: &'a str,
        /// Empty: the object itself.
        subresource: &'a str,
        /// Empty: none, or all.
        namespace: &'a str,
        /// Empty: the collection.
        name: &'a str,
    },
    /// A path that is no resource.
    Path {
        /// HTTP method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

impl<'a> Attributes<'a> {
    /// Of a request.
    pub fn of(request: &'a RequestInfo) -> Self {
        let resource = request.resource;
        // A collection restricted to one name is that object; a namespace lies in itself.
        let collection = matches!(request.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let selected = request
            .query
            .get("fieldSelector")
            .filter(|_| collection)
            .and_then(|selector| selector.strip_prefix("metadata.name="))
            .filter(|name| !name.contains([',', '!', '=']));
        let name = request.name.as_deref().or(selected).unwrap_or_default();
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        Self::Resource {
            verb: request.verb.as_str(),
            group: resource.group,
            resource: resource.plural,
            subresource: request.subresource().unwrap_or_default(),
            namespace: if is_namespace { name } else { request.namespace() },
            name,
        }
    }
}

/// The authorizers of --authorization-mode, in order.
#[derive(Clone, Debug)]
pub struct Authorizer {
    modes: Vec<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Identities,
}

const ADMINISTRATORS: &str = "system:masters";
/// Users with all rights until RBAC rules say which ones they need.
const COMPONENTS: &[&str] = &[
    "system:apiserver",
    "system:kube-scheduler",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "kube-apiserver-kubelet-client",
];
/// Paths that upstream lets everybody read.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// Paths that every known user may read.
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi"];
/// Reviews that every known user may create about themselves.
const SELF_REVIEWS: &[(&str, &str)] = &[
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];
/// Paths that every ServiceAccount may read.
const ISSUER: &[&str] = &["/.well-known/openid-configuration", "/openid/v1/jwks"];

impl Authorizer {
    /// Of the flag's values, which have been checked.
    pub fn new(modes: &[String]) -> Self {
        let mut found: Vec<Mode> = modes
            .iter()
            .map(|mode| match mode.as_str() {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                _ => Mode::Identities,
            })
            .collect();
        found.dedup();
        if found.contains(&Mode::Identities) {
            tracing::warn!(
                "RBAC rules and the Node authorizer's limits are not evaluated yet: system:masters and the components' own identities are allowed, everyone else is refused"
            );
        }
        Self { modes: found }
    }

    /// Whether one of the authorizers allows it.
    pub fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        self.modes.iter().any(|mode| match mode {
            Mode::AlwaysAllow => true,
            Mode::AlwaysDeny => false,
            Mode::Identities => identity_allows(user, attributes),
        }) || user.in_group(ADMINISTRATORS)
    }

    /// The same, as an error with upstream's text.
    ///
    /// # Errors
    /// 403.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.allows(user, attributes) { Ok(()) } else { Err(forbidden(user, attributes)) }
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn identity_allows(user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let node = user.name.starts_with("system:node:") && user.in_group("system:nodes");
    if node || COMPONENTS.contains(&user.name.as_str()) {
        return true;
    }
    match attributes {
        Attributes::Path { verb: "get", path } => {
            PUBLIC.contains(path)
                || ["/healthz", "/livez", "/readyz"].iter().any(|root| is_below(path, root))
                    && user.in_group(AUTHENTICATED)
                || user.in_group(AUTHENTICATED) && DISCOVERY.iter().any(|root| is_below(path, root))
                || user.in_group("system:serviceaccounts") && ISSUER.contains(path)
        }
        Attributes::Resource { verb: "create", group, resource, .. } => {
            user.in_group(AUTHENTICATED) && SELF_REVIEWS.contains(&(group, resource))
        }
        _ => false,
    }
}

fn forbidden(user: &UserInfo, attributes: &Attributes<'_>) -> ApiError {
    let user = &user.name;
    match attributes {
        Attributes::Path { verb, path } => ApiError::forbidden(
            GroupResource { group: "", resource: "" },
            "",
            format_args!("User {user:?} cannot {verb} path {path:?}"),
        ),
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
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
                format_args!("User {user:?} cannot {verb} resource {whole:?} in API group {group:?} {scope}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn list_pods<'a>() -> Attributes<'a> {
        Attributes::Resource {
            verb: "list",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "default",
            name: "",
        }
    }

    #[test]
    fn administrators_and_components_pass_and_others_get_upstreams_text() {
        let rbac = Authorizer::new(&["Node".into(), "RBAC".into()]);
        for (name, groups) in [
            ("admin", &["system:masters", AUTHENTICATED][..]),
            ("system:kube-scheduler", &[AUTHENTICATED]),
            ("system:node:a", &["system:nodes", AUTHENTICATED]),
        ] {
            assert!(rbac.allows(&user(name, groups), &list_pods()), "{name}");
        }
        let robot = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", AUTHENTICATED]);
        let error = rbac.authorize(&robot, &list_pods()).expect_err("is refused");
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"system:serviceaccount:kube-system:x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        assert!(!rbac.allows(&user("system:node:a", &[AUTHENTICATED]), &list_pods()), "the name alone");
    }

    #[test]
    fn anonymous_reads_health_and_version_only_and_known_users_discovery() {
        let rbac = Authorizer::new(&["RBAC".into()]);
        let path = |path| Attributes::Path { verb: "get", path };
        let anonymous = user("system:anonymous", &["system:unauthenticated"]);
        let known = user("bob", &[AUTHENTICATED]);
        assert!(rbac.allows(&anonymous, &path("/livez")) && rbac.allows(&anonymous, &path("/version")));
        assert!(!rbac.allows(&anonymous, &path("/api")) && rbac.allows(&known, &path("/api/v1")));
        assert!(!rbac.allows(&known, &path("/metrics")) && !rbac.allows(&known, &path("/apishops")));
        let error = rbac.authorize(&anonymous, &path("/")).expect_err("is refused");
        assert_eq!(error.message(), "forbidden: User \"system:anonymous\" cannot get path \"/\"");
    }
}
