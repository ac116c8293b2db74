//! What is worked out of all objects of one resource: once a change, not once a request.

use std::ops::Bound;
use std::sync::Arc;

use coracle_api::meta;
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
        self.renewed(cache, |objects, _| make(objects))
    }

    /// The same, where `make` is given what it made before too.
    fn renewed(&self, cache: &Cache, make: impl FnOnce(Vec<Value>, Option<&T>) -> Arc<T>) -> Arc<T> {
        let Some(cache) = self.resource.and_then(|row| cache.of(row)) else { return make(Vec::new(), None) };
        let mut made = self.made.lock();
        if let Some((at, made)) = &*made
            && *at == cache.end()
        {
            return Arc::clone(made);
        }
        let listing = cache.list("", Bound::Unbounded);
        let newest = make(listing.values(), made.as_ref().map(|(_, before)| &**before));
        *made = Some((listing.cursor, Arc::clone(&newest)));
        newest
    }
}

/// What was made of one version of an object.
pub struct Made<T> {
    uid: String,
    version: String,
    /// What was made.
    pub of: T,
}

impl<T> Derived<[Arc<Made<T>>]> {
    /// What `make` makes of each object, in the order of their keys; what was made of a version that is still there is kept.
    pub fn each(&self, cache: &Cache, make: impl Fn(&Value) -> T) -> Arc<[Arc<Made<T>>]> {
        self.renewed(cache, |objects, before| {
            let one = |object: &Value| {
                let (uid, version) = (meta::uid(object), meta::resource_version(object));
                let kept = before.into_iter().flatten().find(|one| one.uid == uid && one.version == version);
                let made =
                    || Arc::new(Made { uid: uid.to_owned(), version: version.to_owned(), of: make(object) });
                kept.map_or_else(made, Arc::clone)
            };
            objects.iter().map(one).collect()
        })
    }
}
