//! Which version of an object a controller has written last: as long as its watch shows an older one it must not decide
//! from it, or it would decide the same again. Owns the versions only.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object_meta::uid;

/// Last written versions by key (`namespace/name`).
#[derive(Debug, Default)]
pub struct OwnWrites {
    by_key: HashMap<String, (String, u64)>,
}

fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}

impl OwnWrites {
    /// The server answered a write with this metadata.
    pub fn wrote(&mut self, key: &str, meta: &ObjectMeta) {
        if let Some(version) = version(meta) {
            self.by_key.insert(key.to_owned(), (uid(meta).to_owned(), version));
        }
    }

    /// Whether this copy is older than what was written. Another object of the same name never is.
    pub fn is_stale(&self, key: &str, meta: &ObjectMeta) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|(of, written)| of == uid(meta) && version(meta).is_some_and(|seen| seen < *written))
    }

    /// The object is gone.
    pub fn forget(&mut self, key: &str) {
        self.by_key.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.into()), resource_version: Some(version.into()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_copy_from_before_the_last_write_is_stale() {
        let mut writes = OwnWrites::default();
        assert!(!writes.is_stale("a", &meta("u", "5")));
        writes.wrote("a", &meta("u", "10"));
        assert!(writes.is_stale("a", &meta("u", "9")), "compared as numbers");
        assert!(!writes.is_stale("a", &meta("u", "10")));
        assert!(!writes.is_stale("a", &meta("another", "9")));
        writes.forget("a");
        assert!(!writes.is_stale("a", &meta("u", "9")));
    }
}
