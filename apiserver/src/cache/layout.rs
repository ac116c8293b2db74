//! Which caches there are and what is served, at one moment. The custom resources change with their definitions; readers take the whole layout
//! once and are not disturbed by the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_api::custom;
use coracle_api::resource::{self, Hidden, Resource, Served};

use super::resource::ResourceCache;
use crate::storage::keys;
use crate::strategy;

/// Group and plural of the definitions of custom resources.
const DEFINITIONS: (&str, &str, &str) = ("apiextensions.k8s.io", "v1", "customresourcedefinitions");

/// The row of CustomResourceDefinitions.
pub fn definitions_resource() -> Option<&'static Resource> {
    resource::lookup(DEFINITIONS.0, DEFINITIONS.1, DEFINITIONS.2)
}

/// What one CustomResourceDefinition adds.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The revision of the definition that was looked at.
    pub(super) revision: i64,
    /// `None` while it is not established.
    pub(super) rows: Option<&'static custom::Rows>,
}

/// What custom resources there are, by the definition's name.
pub(super) type Definitions = BTreeMap<Box<str>, Known>;

/// Which caches there are, and what is served.
pub struct Layout {
    /// In order of their prefixes.
    pub(super) caches: Vec<Arc<ResourceCache>>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), usize>,
    pub(super) definitions: Definitions,
    served: Arc<Served>,
}

impl Layout {
    /// A layout with these definitions, of which some versions are kept but not served, and the caches in it that `before` does not have, which are still empty.
    pub(super) fn new(
        root: &str,
        events_min: usize,
        definitions: Definitions,
        unserved: &Hidden,
        before: Option<&Layout>,
    ) -> (Self, Vec<Arc<ResourceCache>>) {
        let custom = || definitions.values().filter_map(|known| known.rows);
        let served = Served::new(custom().flat_map(|rows| rows.served.iter().copied()));
        // A version that is stored need not be served.
        let hidden = custom().map(|rows| rows.storage).filter(|row| {
            served.custom().iter().any(|other| (other.group, other.plural) == (row.group, row.plural))
        });
        let rows: Vec<&'static Resource> =
            served.rows().chain(hidden).filter(|resource| resource.is_stored()).collect();
        let (mut caches, mut fresh): (Vec<Arc<ResourceCache>>, Vec<_>) = (Vec::new(), Vec::new());
        for resource in &rows {
            let strategy = strategy::for_resource(resource);
            let prefix = keys::resource_prefix(root, resource);
            if strategy.stored_as().is_some() || caches.iter().any(|cache| cache.prefix == prefix) {
                continue;
            }
            let kept = before.and_then(|before| {
                before.caches.iter().find(|cache| std::ptr::eq(cache.resource, *resource))
            });
            caches.push(kept.map_or_else(
                || {
                    let made = Arc::new(ResourceCache::new(resource, prefix, strategy, events_min));
                    fresh.push(Arc::clone(&made));
                    made
                },
                Arc::clone,
            ));
        }
        caches.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let mut by_resource = HashMap::new();
        for resource in &rows {
            let stored = strategy::for_resource(resource).stored_as().unwrap_or(resource);
            let prefix = keys::resource_prefix(root, stored);
            if let Ok(index) = caches.binary_search_by(|cache| cache.prefix.cmp(&prefix)) {
                by_resource.insert((resource.group, resource.version, resource.plural), index);
            }
        }
        let served = Arc::new(served.hiding(unserved));
        (Self { caches, by_resource, definitions, served }, fresh)
    }

    /// The cache a resource is read from; `None` for virtual resources.
    pub fn of(&self, resource: &Resource) -> Option<&Arc<ResourceCache>> {
        let index = self.by_resource.get(&(resource.group, resource.version, resource.plural))?;
        Some(&self.caches[*index])
    }

    /// The cache and the suffix that a store key belongs to.
    pub(super) fn locate<'k>(&self, key: &'k str) -> Option<(&Arc<ResourceCache>, &'k str)> {
        let after = self.caches.partition_point(|cache| cache.prefix.as_str() <= key);
        let cache = &self.caches[after.checked_sub(1)?];
        Some((cache, key.strip_prefix(cache.prefix.as_str())?))
    }

    /// What is served.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }
}
