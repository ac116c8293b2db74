//! What is worked out of all objects of one resource: once a change, not once a request.

use std::ops::Bound;
use std::sync::Arc;

use coracle_api::resource::Resource;
use parking_lot::Mutex;
use serde_json::Value;

use super::Cache;
use super::resource::Cursor;

/// What was worked out last.
pub struct Derived<T: ?Sized> {
    resource: Option<&'static Resource>,
    made: Mutex<Option<(Cursor, Arc<T>)>>,
}

impl<T: ?Sized> Derived<T> {
    /// Of a built-in resource's objects.
    pub fn of(group: &str, version: &str, plural: &str) -> Self {
        Self { resource: coracle_api::resource::lookup(group, version, plural), made: Mutex::default() }
    }

    /// The newest; `make` is given all objects in the order of their keys, if they have changed since it was last asked.
    pub fn current(&self, cache: &Cache, make: impl FnOnce(Vec<Value>) -> Arc<T>) -> Arc<T> {
        let Some(cache) = self.resource.and_then(|row| cache.of(row)) else { return make(Vec::new()) };
        let mut made = self.made.lock();
        if let Some((at, made)) = &*made
            && *at == cache.end()
        {
            return Arc::clone(made);
        }
        let listing = cache.list("", Bound::Unbounded);
        let objects = listing.objects.iter().filter_map(|object| object.value().ok()).collect();
        let (_, newest) = made.insert((listing.cursor, make(objects)));
        Arc::clone(newest)
    }
}
