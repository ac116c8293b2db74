//! The local copy of one resource: objects by key and by index. Owns the maps and the lock round them; it never talks to
//! the network (the [`crate::informer`] fills it) and hands out shared objects, never references under the lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::RwLock;

use crate::object_key::ObjectKey;

type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// A named way to find objects by a value taken from them.
pub struct Index<K> {
    /// The name to give to [`Store::indexed`].
    pub name: &'static str,
    values: IndexFn<K>,
}

impl<K> Index<K> {
    /// An index whose values for an object are what `values` returns (none, one or several).
    pub fn new(name: &'static str, values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self { name, values: Arc::new(values) }
    }
}

/// Index `ownerUid`: the uid of every owner reference.
pub fn index_by_owner_uid<K: Resource>() -> Index<K> {
    Index::new("ownerUid", |object: &K| {
        object.meta().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    })
}

/// Index `namespace`: the object's namespace.
pub fn index_by_namespace<K: Resource>() -> Index<K> {
    Index::new("namespace", |object: &K| object.meta().namespace.clone().into_iter().collect())
}

/// Index `label:NAME` for one label: `namespace/value`, so that equal values in two namespaces stay apart.
pub fn index_by_label<K: Resource>(index_name: &'static str, label: &'static str) -> Index<K> {
    Index::new(index_name, move |object: &K| {
        let meta = object.meta();
        let value = meta.labels.as_ref().and_then(|labels| labels.get(label));
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        value.map(|value| format!("{namespace}/{value}")).into_iter().collect()
    })
}

/// Index `nodeName`: the node a pod is bound to.
pub fn index_by_node() -> Index<k8s_openapi::api::core::v1::Pod> {
    Index::new("nodeName", |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).into_iter().collect()
    })
}

/// The key of the object's controlling owner if that is of this kind (in the object's own namespace).
pub fn controller_of_kind(meta: &ObjectMeta, kind: &str) -> Option<ObjectKey> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    (owner.kind == kind)
        .then(|| ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), owner.name.as_str()))
}

struct Maps<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, HashMap<String, BTreeSet<ObjectKey>>>,
}

/// Objects by key and by index, for many readers and one writer.
pub struct Store<K> {
    definitions: Vec<Index<K>>,
    maps: RwLock<Maps<K>>,
}

impl<K: Resource> Store<K> {
    /// An empty store with these indexes.
    pub fn new(definitions: Vec<Index<K>>) -> Self {
        let indexes = definitions.iter().map(|index| (index.name, HashMap::new())).collect();
        Self { definitions, maps: RwLock::new(Maps { objects: HashMap::new(), indexes }) }
    }

    /// The object of this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.maps.read().objects.get(key).cloned()
    }

    /// The object of this namespace (empty if cluster-scoped) and name.
    pub fn get_named(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.maps.read().objects.values().cloned().collect()
    }

    /// The keys of all objects, in no order.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.maps.read().objects.keys().cloned().collect()
    }

    /// The objects that index `name` files under `value`, ordered by key. An index that the store was not built with
    /// finds nothing.
    pub fn indexed(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let maps = self.maps.read();
        let Some(keys) = maps.indexes.get(name).and_then(|index| index.get(value)) else { return Vec::new() };
        keys.iter().filter_map(|key| maps.objects.get(key).cloned()).collect()
    }

    /// How many objects index `name` files under `value`.
    pub fn indexed_count(&self, name: &str, value: &str) -> usize {
        let maps = self.maps.read();
        maps.indexes.get(name).and_then(|index| index.get(value)).map_or(0, BTreeSet::len)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.maps.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an object in and returns the one it replaces. For the informer and for tests.
    pub fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(&*object);
        let mut maps = self.maps.write();
        let old = maps.objects.insert(key.clone(), Arc::clone(&object));
        self.reindex(&mut maps, &key, old.as_deref(), Some(&object));
        old
    }

    /// Takes an object out and returns it. For the informer and for tests.
    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let mut maps = self.maps.write();
        let old = maps.objects.remove(key);
        self.reindex(&mut maps, key, old.as_deref(), None);
        old
    }

    fn reindex(&self, maps: &mut Maps<K>, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        for definition in &self.definitions {
            let before = old.map(|object| (definition.values)(object)).unwrap_or_default();
            let after = new.map(|object| (definition.values)(object)).unwrap_or_default();
            if before == after {
                continue;
            }
            let Some(index) = maps.indexes.get_mut(definition.name) else { continue };
            for value in &before {
                if let Some(keys) = index.get_mut(value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.remove(value);
                    }
                }
            }
            for value in after {
                index.entry(value).or_default().insert(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, PodSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    fn pod(name: &str, node: Option<&str>, owner: &str) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: ObjectMeta {
                namespace: Some("default".into()),
                name: Some(name.into()),
                owner_references: Some(vec![OwnerReference {
                    uid: owner.into(),
                    kind: "ReplicaSet".into(),
                    name: "web".into(),
                    controller: Some(true),
                    ..Default::default()
                }]),
                ..Default::default()
            },
            spec: Some(PodSpec { node_name: node.map(Into::into), ..Default::default() }),
            ..Default::default()
        })
    }

    #[test]
    fn indexes_follow_inserts_moves_and_removals() {
        let store = Store::new(vec![index_by_node(), index_by_owner_uid()]);
        store.insert(pod("a", None, "u1"));
        store.insert(pod("b", Some("n1"), "u1"));
        assert_eq!(store.indexed("nodeName", "n1").len(), 1);
        assert_eq!(store.indexed_count("ownerUid", "u1"), 2);

        let old = store.insert(pod("a", Some("n1"), "u1"));
        assert!(old.is_some());
        assert_eq!(store.indexed_count("nodeName", "n1"), 2);

        store.remove(&ObjectKey::new("default", "b"));
        assert_eq!(store.indexed_count("nodeName", "n1"), 1);
        assert_eq!(store.indexed_count("ownerUid", "u1"), 1);
        assert!(store.indexed("noSuchIndex", "x").is_empty());
    }

    #[test]
    fn the_controller_is_found_by_kind() {
        let pod = pod("a", None, "u1");
        assert_eq!(controller_of_kind(&pod.metadata, "ReplicaSet"), Some(ObjectKey::new("default", "web")));
        assert_eq!(controller_of_kind(&pod.metadata, "Job"), None);
    }
}
