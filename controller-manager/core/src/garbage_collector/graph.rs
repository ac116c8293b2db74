//! Objects and their owners by uid, from what watches report. Owners that were only heard of are in it as virtual nodes. Owns
//! the maps; it tells which objects a change makes worth deciding about.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{FOREGROUND, ORPHAN};
use crate::action::ResourceId;
use crate::object_meta::{name, namespace, uid};

/// What is known of one object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its resource; of a virtual one only group, version and kind are known.
    pub resource: Arc<ResourceId>,
    /// Its namespace; empty for cluster-scoped objects. Of a virtual one: that of the dependent which named it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version last seen.
    pub resource_version: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether only its dependents told of it.
    pub is_virtual: bool,
}

impl Object {
    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Whether it waits for its dependents to go.
    pub fn is_deleting_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Whether it waits for its dependents to be let go.
    pub fn is_orphaning(&self) -> bool {
        self.deleting && self.has(ORPHAN)
    }

    /// An owner lives in the dependent's namespace or in none.
    pub fn may_own(&self, dependent: &Object) -> bool {
        self.namespace.is_empty() || self.namespace == dependent.namespace
    }
}

/// An object worth deciding about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// It may have to go, or to be let go: [`super::decide`].
    Decide(String),
    /// Its dependents are to stay: [`super::orphan`].
    Orphan(String),
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// One object.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Object> + Clone + use<'a> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|dependent| self.objects.get(dependent))
    }

    /// How many objects there are, virtual ones among them.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The uids of all real objects of one resource.
    pub fn uids_of(&self, resource: &ResourceId) -> Vec<String> {
        let of = |object: &&Object| !object.is_virtual && *object.resource == *resource;
        self.objects.values().filter(of).map(|object| object.uid.clone()).collect()
    }

    /// Takes in an object as a watch reports it.
    pub fn observe(&mut self, resource: &Arc<ResourceId>, meta: &ObjectMeta) -> Vec<Work> {
        let object = Object {
            resource: Arc::clone(resource),
            namespace: namespace(meta).to_owned(),
            name: name(meta).to_owned(),
            uid: uid(meta).to_owned(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            is_virtual: false,
        };
        if object.uid.is_empty() {
            return Vec::new();
        }
        let id = object.uid.clone();
        let old = self.objects.insert(id.clone(), object);
        let mut work = self.relink(&id, old.as_ref());
        let Some(object) = self.objects.get(&id) else { return work };
        if object.is_orphaning() {
            work.push(Work::Orphan(id));
        } else if object.is_deleting_dependents() {
            // Also its blocking dependents, for it may have seen none of their events before.
            work.push(Work::Decide(id));
        } else if !object.deleting && !object.owners.is_empty() {
            // One that is being deleted needs no decision: whoever waits for it is told when it is gone.
            let changed = old.as_ref().is_none_or(|old| old.is_virtual || old.owners != object.owners);
            work.extend(changed.then_some(Work::Decide(id)));
        }
        work
    }

    /// Updates who depends on whom; owners nobody has seen become virtual.
    fn relink(&mut self, id: &str, old: Option<&Object>) -> Vec<Work> {
        let Some(object) = self.objects.get(id) else { return Vec::new() };
        let (owners, resource_namespace) = (object.owners.clone(), object.namespace.clone());
        let mut work = Vec::new();
        for gone in old.iter().flat_map(|old| &old.owners).filter(|o| owners.iter().all(|n| n.uid != o.uid)) {
            self.unlink(id, &gone.uid);
            work.extend(self.waiting_owner(&gone.uid));
        }
        for owner in &owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(id.to_owned());
            let unblocked = |was: &OwnerReference| {
                was.uid == owner.uid && was.block_owner_deletion != owner.block_owner_deletion
            };
            if old.is_some_and(|old| old.owners.iter().any(unblocked)) {
                work.extend(self.waiting_owner(&owner.uid));
            }
            if !self.objects.contains_key(&owner.uid) {
                self.objects.insert(owner.uid.clone(), virtual_object(owner, &resource_namespace));
                work.push(Work::Decide(owner.uid.clone()));
            }
        }
        work
    }

    fn unlink(&mut self, dependent: &str, owner: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
                if self.objects.get(owner).is_some_and(|owner| owner.is_virtual) {
                    self.objects.remove(owner);
                }
            }
        }
    }

    fn waiting_owner(&self, owner: &str) -> Option<Work> {
        let object = self.objects.get(owner).filter(|object| object.is_deleting_dependents())?;
        Some(Work::Decide(object.uid.clone()))
    }

    /// The object is gone: its dependents and the owners that waited for it are worth a look.
    pub fn forget(&mut self, uid: &str) -> Vec<Work> {
        let Some(object) = self.objects.remove(uid) else { return Vec::new() };
        let mut work = Vec::new();
        for owner in &object.owners {
            self.unlink(uid, &owner.uid);
            work.extend(self.waiting_owner(&owner.uid));
        }
        let dependents: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        work.extend(dependents.into_iter().map(Work::Decide));
        work
    }
}

fn virtual_object(owner: &OwnerReference, namespace: &str) -> Object {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default().to_owned();
    Object {
        resource: Arc::new(ResourceId {
            group: ResourceId::group_of(&owner.api_version).to_owned().into(),
            version: version.into(),
            kind: owner.kind.clone().into(),
            plural: "".into(),
            namespaced: true,
        }),
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        resource_version: String::new(),
        owners: Vec::new(),
        finalizers: Vec::new(),
        deleting: false,
        is_virtual: true,
    }
}
