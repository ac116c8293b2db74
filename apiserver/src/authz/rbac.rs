//! The RBAC authorizer: follows the watch caches of roles and bindings, event by event, at the moment it is asked, so it knows exactly what the caches
//! know and costs nothing in between.

use std::ops::Bound;
use std::sync::Arc;

use coracle_api::resource::lookup;
use coracle_api::status::{ApiError, GroupResource};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde_json::Value;

use super::policy::{Binding, BindingBody, Policy, RoleBody, RoleRef};
use super::rule::PolicyRule;
use super::{Attributes, Decision, UserRules};
use crate::cache::Cache;
use crate::cache::object::{CachedObject, EventType};
use crate::cache::resource::{Cursor, ResourceCache};
use crate::server::request_info::UserInfo;

const GROUP: &str = "rbac.authorization.k8s.io";
/// Events taken over at a time.
const BATCH: usize = 1024;

/// What a cache holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Roles,
    Bindings,
}

struct Source {
    kind: Kind,
    cache: Arc<ResourceCache>,
}

#[derive(Default)]
struct State {
    policy: Policy,
    /// How far each source has been read.
    cursors: Vec<Option<Cursor>>,
}

/// The RBAC authorizer.
pub struct Rbac {
    sources: Vec<Source>,
    state: RwLock<State>,
}

impl Rbac {
    /// Over the caches of roles and bindings.
    pub fn new(cache: &Cache) -> Self {
        let source = |(plural, kind)| {
            let cache = cache.of(lookup(GROUP, "v1", plural)?)?;
            Some(Source { kind, cache })
        };
        let sources: Vec<Source> = [
            ("clusterroles", Kind::Roles),
            ("roles", Kind::Roles),
            ("clusterrolebindings", Kind::Bindings),
            ("rolebindings", Kind::Bindings),
        ]
        .into_iter()
        .filter_map(source)
        .collect();
        let state = State { cursors: vec![None; sources.len()], ..State::default() };
        Self { sources, state: RwLock::new(state) }
    }

    /// The policy as of now.
    fn policy(&self) -> RwLockReadGuard<'_, State> {
        let state = self.state.read();
        let is_current = |(source, read): (&Source, &Option<Cursor>)| *read == Some(source.cache.end());
        if self.sources.iter().zip(&state.cursors).all(is_current) {
            return state;
        }
        drop(state);
        let mut state = self.state.write();
        let State { policy, cursors } = &mut *state;
        for (source, cursor) in self.sources.iter().zip(cursors) {
            source.follow(policy, cursor);
        }
        RwLockWriteGuard::downgrade(state)
    }

    /// Whether a rule of a role of the user allows it.
    pub(super) fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        let state = self.policy();
        grant(&state.policy, user, attributes).is_some()
    }

    /// The same with the reason that upstream gives.
    pub(super) fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let state = self.policy();
        if let Some(binding) = grant(&state.policy, user, attributes) {
            let reason = format!("RBAC: allowed by {}", binding.describe(&user.name, &user.groups));
            return Decision { allowed: true, denied: false, reason };
        }
        let errors = collect(&state.policy, user, attributes.namespace()).errors;
        let reason = match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        };
        Decision { allowed: false, denied: false, reason }
    }

    /// All rules of the user's roles in `namespace`.
    pub(super) fn rules(&self, user: &UserInfo, namespace: &str) -> UserRules {
        collect(&self.policy().policy, user, namespace)
    }

    /// The rules of the role that the binding object in `namespace` (or cluster-wide, without) names.
    ///
    /// # Errors
    /// 404.
    pub(super) fn rules_of_binding(
        &self,
        namespace: &str,
        binding: &Value,
    ) -> Result<Arc<[PolicyRule]>, ApiError> {
        let text = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default().to_owned();
        let role = RoleRef { kind: text("kind"), name: text("name") };
        let state = self.policy();
        state.policy.rules(namespace, &role).map(Arc::clone).ok_or_else(|| missing(&role))
    }
}

/// Upstream's error for a role that is not there; it calls the resource by its singular.
fn missing(role: &RoleRef) -> ApiError {
    let resource = if role.kind == "Role" { "role" } else { "clusterrole" };
    ApiError::not_found(GroupResource { group: GROUP, resource }, &role.name)
}

/// The binding that allows it.
fn grant<'a>(policy: &'a Policy, user: &UserInfo, attributes: &Attributes<'_>) -> Option<&'a Binding> {
    policy.find(&user.name, &user.groups, attributes.namespace(), |binding| {
        let rules = policy.rules(&binding.namespace, &binding.role)?;
        rules.iter().any(|rule| rule.allows(attributes)).then_some(binding)
    })
}

fn collect(policy: &Policy, user: &UserInfo, namespace: &str) -> UserRules {
    let mut found = UserRules::default();
    let mut seen: Vec<*const Binding> = Vec::new();
    policy.find(&user.name, &user.groups, namespace, |binding| {
        // A binding that names the user and a group of the user counts once.
        if !seen.contains(&std::ptr::from_ref(binding)) {
            seen.push(binding);
            match policy.rules(&binding.namespace, &binding.role) {
                Some(rules) => found.rules.extend_from_slice(rules),
                None => found.errors.push(missing(&binding.role).message().to_owned()),
            }
        }
        None::<()>
    });
    found.errors.sort();
    found.errors.dedup();
    found
}

impl Source {
    /// Takes over what has happened since `cursor`, or everything.
    fn follow(&self, policy: &mut Policy, cursor: &mut Option<Cursor>) {
        let mut events = Vec::new();
        if let Some(read) = cursor {
            loop {
                events.clear();
                match self.cache.read(read, (BATCH, usize::MAX), &mut events) {
                    Ok(_) if events.is_empty() => return,
                    Ok(_) => {
                        for event in &events {
                            self.apply(policy, &event.object, event.event_type);
                        }
                    }
                    Err(_) => break,
                }
            }
        }
        // Objects that went away unseen are among those known.
        let listing = self.cache.list("", Bound::Unbounded);
        self.forget(policy);
        for object in &listing.objects {
            self.apply(policy, object, EventType::Added);
        }
        *cursor = Some(listing.cursor);
    }

    fn forget(&self, policy: &mut Policy) {
        match (self.kind, self.cache.resource.namespaced) {
            (Kind::Roles, namespaced) => policy.forget_roles(namespaced),
            (Kind::Bindings, namespaced) => policy.forget_bindings(namespaced),
        }
    }

    fn apply(&self, policy: &mut Policy, object: &CachedObject, event: EventType) {
        let (namespace, name) = (object.namespace(), object.name());
        let unreadable = |error: serde_json::Error| {
            tracing::warn!(%error, resource = self.cache.resource.plural, namespace, name, "grants nothing: cannot be read");
        };
        // What cannot be read grants nothing, like what is gone.
        match self.kind {
            Kind::Roles => {
                policy.remove_role(namespace, name);
                if event != EventType::Deleted {
                    match serde_json::from_slice::<RoleBody>(object.json_bytes()) {
                        Ok(body) => policy.set_role(namespace, name, body.rules),
                        Err(error) => unreadable(error),
                    }
                }
            }
            Kind::Bindings => {
                policy.remove_binding(namespace, name);
                if event != EventType::Deleted {
                    match serde_json::from_slice::<BindingBody>(object.json_bytes()) {
                        Ok(body) => policy.set_binding(Binding::new(namespace, name, body)),
                        Err(error) => unreadable(error),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::ResourceAttributes;
    use serde_json::json;

    struct World {
        cache: Cache,
        rbac: Rbac,
        revision: i64,
    }

    impl World {
        fn new() -> Self {
            let cache = Cache::new("/registry", 4);
            let rbac = Rbac::new(&cache);
            Self { cache, rbac, revision: 1 }
        }

        fn source(&self, plural: &str) -> Arc<ResourceCache> {
            let row = lookup(GROUP, "v1", plural).expect("is served");
            self.cache.of(row).expect("is stored")
        }

        fn put(&mut self, plural: &str, suffix: &str, mut object: Value) {
            object["metadata"] = json!({"name": suffix});
            self.revision += 1;
            let bytes = object.to_string().into_bytes();
            self.source(plural).put(suffix, &bytes, self.revision).expect("JSON");
        }

        fn may_get_pods(&self, user: &str, namespace: &str) -> bool {
            let user = UserInfo { name: user.into(), ..UserInfo::default() };
            let asked = ResourceAttributes {
                verb: "get",
                resource: "pods",
                namespace,
                ..ResourceAttributes::default()
            };
            self.rbac.allows(&user, &Attributes::Resource(asked))
        }
    }

    #[test]
    fn decisions_follow_the_caches_through_changes_deletions_and_new_snapshots() {
        let mut world = World::new();
        let subjects = json!([{"kind": "User", "name": "bob"}]);
        let role = json!({"kind": "ClusterRole", "name": "pods"});
        world.put("rolebindings", "a/here", json!({"subjects": subjects, "roleRef": role}));
        assert!(!world.may_get_pods("bob", "a"));
        let bob = UserInfo { name: "bob".into(), ..UserInfo::default() };
        let asked = ResourceAttributes {
            verb: "get",
            resource: "pods",
            namespace: "a",
            ..ResourceAttributes::default()
        };
        let decision = world.rbac.decide(&bob, &Attributes::Resource(asked));
        assert_eq!(decision.reason, "RBAC: clusterrole.rbac.authorization.k8s.io \"pods\" not found");
        world.put(
            "clusterroles",
            "pods",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        );
        assert!(
            world.may_get_pods("bob", "a")
                && !world.may_get_pods("bob", "b")
                && !world.may_get_pods("eve", "a")
        );
        let decision = world.rbac.decide(&bob, &Attributes::Resource(asked));
        assert_eq!(
            decision.reason,
            "RBAC: allowed by RoleBinding \"here/a\" of ClusterRole \"pods\" to User \"bob\""
        );
        world.put("clusterrolebindings", "all", json!({"subjects": subjects, "roleRef": role}));
        assert!(world.may_get_pods("bob", "b"));
        world.source("clusterrolebindings").delete("all", 100).expect("is known");
        assert!(!world.may_get_pods("bob", "b") && world.may_get_pods("bob", "a"));
        world.put("clusterroles", "pods", json!({"rules": null}));
        assert!(!world.may_get_pods("bob", "a"));
        world.source("rolebindings").replace(Vec::new(), 200);
        assert_eq!(world.rbac.rules(&bob, "a"), UserRules::default());
    }
}
