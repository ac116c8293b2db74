//! The state of the store after a change, with the indexes that the invariants ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::change::{Change, Key};
use crate::object::{controller, uid};

/// From when to when an object lived.
#[derive(Clone, Debug)]
pub struct Life {
    /// When it was made.
    pub born: Duration,
    /// When it was removed.
    pub gone: Option<Duration>,
}

/// All objects as of one revision.
#[derive(Debug, Default)]
pub struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    /// Objects by the uid of their controller.
    controlled: HashMap<String, BTreeSet<Key>>,
    lives: HashMap<String, Life>,
}

impl State {
    /// Goes on to the change; the object before it.
    pub fn apply(&mut self, change: &Change) -> Option<Arc<Value>> {
        let old = match &change.object {
            Some(object) => {
                self.lives.entry(uid(object).to_owned()).or_insert(Life { born: change.at, gone: None });
                self.objects.insert(change.key.clone(), Arc::new(object.clone()))
            }
            None => self.objects.remove(&change.key),
        };
        let owner = |object: &Value| controller(object).map(|(_, uid)| uid.to_owned());
        if let Some(old) = &old {
            if let Some(owner) = owner(old)
                && let Some(all) = self.controlled.get_mut(&owner)
            {
                all.remove(&change.key);
            }
            if change.object.is_none()
                && let Some(life) = self.lives.get_mut(uid(old))
            {
                life.gone = Some(change.at);
            }
        }
        if let Some(owner) = change.object.as_ref().and_then(owner) {
            self.controlled.entry(owner).or_default().insert(change.key.clone());
        }
        old
    }

    /// The object at a place.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&Key::new(resource, namespace, name)).map(|object| &**object)
    }

    /// All objects of a resource, of one namespace or (with the empty one) of all.
    pub fn list<'a>(&'a self, resource: &'a str, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        let first = Key::new(resource, namespace, "");
        self.objects
            .range(first..)
            .take_while(move |(key, _)| {
                key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
            })
            .map(|(_, object)| &**object)
    }

    /// The objects of a resource that the object with this uid controls.
    pub fn controlled<'a>(&'a self, resource: &'a str, owner: &str) -> impl Iterator<Item = &'a Value> {
        let keys = self.controlled.get(owner).into_iter().flatten();
        keys.filter(move |key| key.resource == resource).filter_map(|key| self.objects.get(key)).map(|o| &**o)
    }

    /// The life of the object with this uid, if there ever was one.
    pub fn life(&self, uid: &str) -> Option<&Life> {
        self.lives.get(uid)
    }
}
