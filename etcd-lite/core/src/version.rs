//! One stored version of a key, and the event its storing is.

use std::sync::Arc;

use bytes::Bytes;
use coracle_proto::mvccpb;

/// A place in the store's one history: `main` counts changing requests, `sub` the writes inside one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store revision clients see.
    pub main: i64,
    /// 0 for the first write of that revision, then 1, 2, …
    pub sub: i64,
}

/// One version of a key: a put, or the tombstone of a deletion. Shared, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it was written; `revision.main` is the key's `mod_revision`.
    pub revision: Revision,
    /// The key; the index and all versions of the key share one buffer.
    pub key: Bytes,
    /// Empty for a tombstone.
    pub value: Bytes,
    /// Revision of the put that began the key's present life; 0 for a tombstone.
    pub create_revision: i64,
    /// Puts since then, this one included; 0 for a tombstone.
    pub version: i64,
    /// Lease the key is attached to; 0 is none.
    pub lease: i64,
    /// Whether this is the mark of a deletion.
    pub tombstone: bool,
}

impl Version {
    /// The API's form. A tombstone has only key and `mod_revision`, as etcd sends it.
    pub fn to_key_value(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease,
        }
    }

    /// The API's form without the value.
    pub fn to_key_only(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue { value: Bytes::new(), ..self.to_key_value() }
    }

    /// Bytes that key, value and all the rest occupy, about; the same on every member.
    pub fn size_bytes(&self) -> usize {
        const REST: usize = 64;
        REST + self.key.len() + self.value.len()
    }
}

/// A change as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was written.
    pub version: Arc<Version>,
    /// What the key was before this revision; `None` when it did not exist, or when that is compacted.
    pub previous: Option<Arc<Version>>,
}

impl Event {
    /// The API's form, with the previous key-value when `with_previous`.
    pub fn to_proto(&self, with_previous: bool) -> mvccpb::Event {
        let r#type = if self.version.tombstone {
            mvccpb::event::EventType::Delete
        } else {
            mvccpb::event::EventType::Put
        };
        mvccpb::Event {
            r#type: r#type.into(),
            kv: Some(self.version.to_key_value()),
            prev_kv: self.previous.as_ref().filter(|_| with_previous).map(|v| v.to_key_value()),
        }
    }
}
