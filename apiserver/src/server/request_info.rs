//! What a request asks for, taken from its path, method and query: the same for every layer (authorization, admission, registry,
//! metrics). Pure: knows no connection and no store.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use coracle_api::resource::{Resource, Subresource};

use crate::audit::Trail;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, for instance `system:node:a`.
    pub name: String,
    /// Unique id; empty when the authenticator knows none.
    pub uid: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` included.
    pub groups: Vec<String>,
    /// Further facts, for instance `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The API verbs as authorization and metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// In lower case, as RBAC rules have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether the verb may change something.
    pub fn is_mutating(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// What to do about fields the schema does not know (query parameter `fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// A request for a resource, complete.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// What to do.
    pub verb: Verb,
    /// With what.
    pub resource: &'static Resource,
    /// With which part of it.
    pub subresource: Option<&'static Subresource>,
    /// Absent for cluster-wide resources and for requests over all namespaces.
    pub namespace: Option<String>,
    /// Absent for collections.
    pub name: Option<String>,
    /// What follows the subresource's name in the path (`proxy/a/b`), without the slash before it.
    pub rest: String,
    /// Who asks.
    pub user: UserInfo,
    /// Nothing is to be stored (`dryRun=All`).
    pub dry_run: bool,
    /// The name of the object to be made comes from its `generateName`.
    pub generated_name: bool,
    /// What a deletion asks for, as its `DeleteOptions` has it; null for all else.
    pub delete_options: Value,
    /// Part of a request that admission has let pass already: it is not asked again.
    pub admitted: bool,
    /// Who owns the fields set; never empty for writes.
    pub field_manager: String,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// The whole query, decoded, in the order sent.
    pub query: Query,
    /// Texts for `Warning` headers of the answer.
    pub warnings: Warnings,
    /// What the audit log keeps of the request.
    pub audit: Trail,
}

/// Collects texts for `Warning` headers while a request is worked on. Clones share the collection.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text, once, and only up to a limit.
    pub fn add(&self, text: impl Into<String>) {
        const WARNINGS_MAX: usize = 64;
        let (text, mut texts) = (text.into(), self.0.lock());
        if texts.len() < WARNINGS_MAX && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Takes the texts out.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl RequestInfo {
    /// The subresource's name.
    pub fn subresource(&self) -> Option<&'static str> {
        self.subresource.map(|s| s.name)
    }

    /// The namespace, empty when there is none.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The name, empty when there is none.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// A request of the server itself (bootstrap, allocators), that no user sent.
    pub fn internal(
        verb: Verb,
        resource: &'static Resource,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Self {
        Self {
            verb,
            resource,
            subresource: None,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            rest: String::new(),
            user: UserInfo {
                name: "system:apiserver".into(),
                groups: vec!["system:masters".into(), "system:authenticated".into()],
                ..UserInfo::default()
            },
            dry_run: false,
            generated_name: false,
            delete_options: Value::Null,
            admitted: false,
            field_manager: "kube-apiserver".into(),
            field_validation: FieldValidation::Ignore,
            query: Query::default(),
            warnings: Warnings::default(),
            audit: Trail::default(),
        }
    }
}

/// A decoded query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`.
    pub fn parse(raw: Option<&str>) -> Self {
        Self(
            raw.map_or_else(Vec::new, |raw| {
                url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect()
            }),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag as upstream decodes it: every value but `false` and `0` is true, also none.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }
}

/// How a path addresses a resource, before the resource is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    /// For instance `v1`.
    pub version: &'a str,
    /// Came by `/watch/`, the old form of watching.
    pub deprecated_watch: bool,
    /// From `/namespaces/NS/...`.
    pub namespace: Option<&'a str>,
    /// Plural.
    pub resource: &'a str,
    /// Object.
    pub name: Option<&'a str>,
    /// Part of the object.
    pub subresource: Option<&'a str>,
    /// What follows.
    pub rest: &'a str,
}

impl<'a> ResourcePath<'a> {
    /// Splits `/api/v1/...` and `/apis/GROUP/VERSION/...`; `None` for every other path, the group's own discovery path included.
    ///
    /// `/api/v1/namespaces/a` is the namespace `a`; `/api/v1/namespaces/a/pods` are its pods; `/api/v1/namespaces/a/status` and
    /// `.../finalize` are parts of the namespace.
    pub fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (group, rest) = if let Some(rest) = path.strip_prefix("api/") {
            ("", rest)
        } else {
            path.strip_prefix("apis/")?.split_once('/')?
        };
        let (version, rest) = rest.split_once('/')?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (deprecated_watch, rest) = match rest.strip_prefix("watch/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut found = Self {
            group,
            version,
            deprecated_watch,
            namespace: None,
            resource: "",
            name: None,
            subresource: None,
            rest: "",
        };
        let mut tail = rest;
        if let Some(inside) = rest.strip_prefix("namespaces/") {
            let (namespace, after) = split(inside);
            let first = split(after).0;
            if !after.is_empty() && !matches!(first, "status" | "finalize") {
                found.namespace = Some(namespace);
                tail = after;
            } else {
                found.namespace = Some(namespace);
            }
        }
        let (resource, after) = split(tail);
        if resource.is_empty() {
            return None;
        }
        found.resource = resource;
        let (name, after) = split(after);
        found.name = (!name.is_empty()).then_some(name);
        let (subresource, after) = split(after);
        found.subresource = (!subresource.is_empty()).then_some(subresource);
        found.rest = after;
        Some(found)
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> (String, Option<&str>, Option<&str>, Option<&str>, &str) {
        let p = ResourcePath::parse(path).expect("a resource path");
        (format!("{}/{}/{}", p.group, p.version, p.resource), p.namespace, p.name, p.subresource, p.rest)
    }

    #[test]
    fn paths_split_into_group_version_namespace_name_and_subresource() {
        assert_eq!(parts("/api/v1/pods"), ("/v1/pods".into(), None, None, None, ""));
        assert_eq!(
            parts("/apis/apps/v1/namespaces/a/deployments/web/scale"),
            ("apps/v1/deployments".into(), Some("a"), Some("web"), Some("scale"), "")
        );
        assert_eq!(parts("/api/v1/namespaces"), ("/v1/namespaces".into(), None, None, None, ""));
        assert_eq!(parts("/api/v1/namespaces/a"), ("/v1/namespaces".into(), Some("a"), Some("a"), None, ""));
        assert_eq!(
            parts("/api/v1/namespaces/a/finalize"),
            ("/v1/namespaces".into(), Some("a"), Some("a"), Some("finalize"), "")
        );
        assert_eq!(
            parts("/api/v1/namespaces/a/pods/b/proxy/x/y"),
            ("/v1/pods".into(), Some("a"), Some("b"), Some("proxy"), "x/y")
        );
    }

    #[test]
    fn the_old_watch_form_is_recognised_and_discovery_is_not_a_resource() {
        let p = ResourcePath::parse("/api/v1/watch/namespaces/a/pods").expect("watch");
        assert!(p.deprecated_watch && p.resource == "pods" && p.namespace == Some("a"));
        for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/api/v1/"] {
            assert_eq!(ResourcePath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn query_flags_follow_go() {
        let query = Query::parse(Some("watch=1&pretty&dryRun=All&labelSelector=a%3Db"));
        assert!(query.flag("watch") && query.flag("pretty") && !query.flag("other"));
        assert_eq!(query.get("labelSelector"), Some("a=b"));
    }
}
