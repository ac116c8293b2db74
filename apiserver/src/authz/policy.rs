//! Roles and bindings as lookups: which bindings speak of a user or a group, and which rules a role has. Pure; follows no cache.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::rule::{PolicyRule, list};

/// What a stored role is read for.
#[derive(Deserialize)]
pub(super) struct RoleBody {
    #[serde(default, deserialize_with = "list")]
    pub(super) rules: Vec<PolicyRule>,
}

/// What a stored binding is read for.
#[derive(Deserialize)]
pub(super) struct BindingBody {
    #[serde(default, deserialize_with = "list")]
    subjects: Vec<Subject>,
    #[serde(rename = "roleRef")]
    role: RoleRef,
}

/// The role that a binding gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RoleRef {
    pub(super) kind: String,
    pub(super) name: String,
}

/// Who a binding gives its role to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// A binding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) role: RoleRef,
    subjects: Vec<Subject>,
}

/// A user's name or a group's, as the users of requests have them.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    User(String),
    Group(String),
}

impl Binding {
    pub(super) fn new(namespace: &str, name: &str, body: BindingBody) -> Self {
        Self { namespace: namespace.into(), name: name.into(), role: body.role, subjects: body.subjects }
    }

    /// Who a subject is; `None` for one that is nobody.
    fn key(&self, subject: &Subject) -> Option<Key> {
        match subject.kind.as_str() {
            "User" => Some(Key::User(subject.name.clone())),
            "Group" => Some(Key::Group(subject.name.clone())),
            "ServiceAccount" => {
                let namespace = self.home(subject);
                let user = || format!("system:serviceaccount:{namespace}:{}", subject.name);
                (!namespace.is_empty()).then(|| Key::User(user()))
            }
            _ => None,
        }
    }

    /// The namespace of a ServiceAccount: its own or the binding's.
    fn home<'a>(&'a self, subject: &'a Subject) -> &'a str {
        if subject.namespace.is_empty() { &self.namespace } else { &subject.namespace }
    }

    /// How upstream tells that the binding is why `user` or one of `groups` is allowed something.
    pub(super) fn describe(&self, user: &str, groups: &[String]) -> String {
        let applies = |subject: &&Subject| match self.key(subject) {
            Some(Key::User(name)) => name == user,
            Some(Key::Group(name)) => groups.contains(&name),
            None => false,
        };
        let subject = self.subjects.iter().find(applies).map(|subject| {
            let whole = match subject.kind.as_str() {
                "ServiceAccount" => format!("{}/{}", subject.name, self.home(subject)),
                _ => subject.name.clone(),
            };
            format!("{} {whole:?}", subject.kind)
        });
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.to_string())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.namespace))
        };
        let subject = subject.unwrap_or_default();
        format!("{kind} {name:?} of {} {:?} to {subject}", self.role.kind, self.role.name)
    }
}

/// Roles and bindings of one namespace, or the cluster-wide ones.
#[derive(Default)]
struct Scope {
    roles: HashMap<Box<str>, Arc<[PolicyRule]>>,
    bindings: HashMap<Box<str>, Arc<Binding>>,
    by_user: HashMap<Box<str>, Vec<Arc<Binding>>>,
    by_group: HashMap<Box<str>, Vec<Arc<Binding>>>,
}

impl Scope {
    fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.bindings.is_empty()
    }

    fn lookup(&mut self, key: Key) -> &mut Vec<Arc<Binding>> {
        let (table, name) = match key {
            Key::User(name) => (&mut self.by_user, name),
            Key::Group(name) => (&mut self.by_group, name),
        };
        table.entry(name.into()).or_default()
    }

    fn add(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Arc::new(binding);
        for key in binding.subjects.iter().filter_map(|subject| binding.key(subject)) {
            let known = self.lookup(key);
            if !known.iter().any(|other| Arc::ptr_eq(other, &binding)) {
                known.push(Arc::clone(&binding));
            }
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else { return };
        for key in binding.subjects.iter().filter_map(|subject| binding.key(subject)) {
            self.lookup(key).retain(|other| !Arc::ptr_eq(other, &binding));
        }
        self.by_user.retain(|_, bindings| !bindings.is_empty());
        self.by_group.retain(|_, bindings| !bindings.is_empty());
    }
}

/// All roles and bindings.
#[derive(Default)]
pub(super) struct Policy {
    /// The cluster-wide ones have no namespace.
    scopes: HashMap<Box<str>, Scope>,
}

impl Policy {
    pub(super) fn set_role(&mut self, namespace: &str, name: &str, rules: Vec<PolicyRule>) {
        self.scopes.entry(namespace.into()).or_default().roles.insert(name.into(), rules.into());
    }

    pub(super) fn remove_role(&mut self, namespace: &str, name: &str) {
        if let Some(scope) = self.scopes.get_mut(namespace) {
            scope.roles.remove(name);
            self.tidy(namespace);
        }
    }

    pub(super) fn set_binding(&mut self, binding: Binding) {
        self.scopes.entry(binding.namespace.clone()).or_default().add(binding);
    }

    pub(super) fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(scope) = self.scopes.get_mut(namespace) {
            scope.remove(name);
            self.tidy(namespace);
        }
    }

    /// Drops all roles of namespaces, or all cluster-wide ones.
    pub(super) fn forget_roles(&mut self, namespaced: bool) {
        for (namespace, scope) in &mut self.scopes {
            if namespace.is_empty() != namespaced {
                scope.roles.clear();
            }
        }
        self.scopes.retain(|_, scope| !scope.is_empty());
    }

    /// Drops all bindings of namespaces, or all cluster-wide ones.
    pub(super) fn forget_bindings(&mut self, namespaced: bool) {
        for (namespace, scope) in &mut self.scopes {
            if namespace.is_empty() != namespaced {
                *scope = Scope { roles: std::mem::take(&mut scope.roles), ..Scope::default() };
            }
        }
        self.scopes.retain(|_, scope| !scope.is_empty());
    }

    fn tidy(&mut self, namespace: &str) {
        if self.scopes.get(namespace).is_some_and(Scope::is_empty) {
            self.scopes.remove(namespace);
        }
    }

    /// The rules of the role that a binding in `namespace` (or cluster-wide, without) gives; `None`: there is no such role.
    pub(super) fn rules(&self, namespace: &str, role: &RoleRef) -> Option<&Arc<[PolicyRule]>> {
        let scope = match role.kind.as_str() {
            "ClusterRole" => "",
            "Role" if !namespace.is_empty() => namespace,
            _ => return None,
        };
        self.scopes.get(scope)?.roles.get(role.name.as_str())
    }

    /// Calls `visit` with every binding that gives the user something in `namespace`, cluster-wide ones first, until it answers with something.
    pub(super) fn find<'a, T>(
        &'a self,
        user: &str,
        groups: &[String],
        namespace: &str,
        mut visit: impl FnMut(&'a Binding) -> Option<T>,
    ) -> Option<T> {
        let namespaces = [Some(""), (!namespace.is_empty()).then_some(namespace)];
        for scope in namespaces.into_iter().flatten().filter_map(|namespace| self.scopes.get(namespace)) {
            let of_user = scope.by_user.get(user).into_iter().flatten();
            let of_groups = groups.iter().filter_map(|group| scope.by_group.get(group.as_str())).flatten();
            for binding in of_user.chain(of_groups) {
                if let Some(found) = visit(binding) {
                    return Some(found);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(namespace: &str, name: &str, body: serde_json::Value) -> Binding {
        Binding::new(namespace, name, serde_json::from_value(body).expect("a binding"))
    }

    fn found(policy: &Policy, user: &str, groups: &[&str], namespace: &str) -> Vec<String> {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let mut names = Vec::new();
        policy.find(user, &groups, namespace, |binding| {
            names.push(binding.describe(user, &groups));
            None::<()>
        });
        names
    }

    #[test]
    fn users_groups_and_accounts_find_their_bindings_until_they_go() {
        let mut policy = Policy::default();
        let role = json!({"kind": "ClusterRole", "name": "view"});
        policy.set_binding(binding(
            "",
            "all",
            json!({"roleRef": role, "subjects": [
                {"kind": "User", "name": "bob"}, {"kind": "Group", "name": "dev"},
                {"kind": "ServiceAccount", "name": "homeless"}, {"kind": "ServiceAccount", "name": "x", "namespace": "ns"},
            ]}),
        ));
        policy.set_binding(binding(
            "ns",
            "here",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "x"}]}),
        ));
        let cluster = "ClusterRoleBinding \"all\" of ClusterRole \"view\" to";
        assert_eq!(found(&policy, "bob", &[], ""), [format!("{cluster} User \"bob\"")]);
        assert_eq!(found(&policy, "eve", &["dev"], ""), [format!("{cluster} Group \"dev\"")]);
        assert_eq!(found(&policy, "eve", &["ops"], "ns"), [""; 0]);
        assert_eq!(
            found(&policy, "system:serviceaccount:ns:x", &[], "ns"),
            [
                format!("{cluster} ServiceAccount \"x/ns\""),
                "RoleBinding \"here/ns\" of Role \"r\" to ServiceAccount \"x/ns\"".to_owned()
            ]
        );
        assert_eq!(found(&policy, "system:serviceaccount:ns:x", &[], "other").len(), 1);
        policy.set_role("ns", "r", Vec::new());
        let role = RoleRef { kind: "Role".into(), name: "r".into() };
        assert!(policy.rules("ns", &role).is_some() && policy.rules("", &role).is_none());
        policy.remove_binding("", "all");
        assert_eq!(found(&policy, "bob", &["dev"], ""), [""; 0]);
        policy.remove_binding("ns", "here");
        policy.remove_role("ns", "r");
        assert!(policy.scopes.is_empty());
    }
}
