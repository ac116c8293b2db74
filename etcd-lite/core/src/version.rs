//! One stored version of a key, and the event its storing is.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use coracle_proto::mvccpb;
use prost::encoding;

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

    /// Length of the encoded API's form.
    pub fn encoded_len(&self, keys_only: bool) -> usize {
        let numbers =
            [(2, self.create_revision), (3, self.revision.main), (4, self.version), (6, self.lease)];
        let mut length = bytes_len(1, &self.key);
        if !keys_only {
            length += bytes_len(5, &self.value);
        }
        for (tag, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            length += encoding::int64::encoded_len(tag, &number);
        }
        length
    }

    /// Adds the encoded API's form ([`Self::to_key_value`], or [`Self::to_key_only`]) to a buffer.
    pub fn encode(&self, keys_only: bool, buffer: &mut impl BufMut) {
        if !self.key.is_empty() {
            encoding::bytes::encode(1, &self.key, buffer);
        }
        encode_number(2, self.create_revision, buffer);
        encode_number(3, self.revision.main, buffer);
        encode_number(4, self.version, buffer);
        if !keys_only && !self.value.is_empty() {
            encoding::bytes::encode(5, &self.value, buffer);
        }
        encode_number(6, self.lease, buffer);
    }

    /// Bytes that key, value and all the rest occupy, about; the same on every member.
    pub fn size_bytes(&self) -> usize {
        const REST: usize = 64;
        REST + self.key.len() + self.value.len()
    }
}

fn encode_number(tag: u32, number: i64, buffer: &mut impl BufMut) {
    if number != 0 {
        encoding::int64::encode(tag, &number, buffer);
    }
}

fn bytes_len(tag: u32, bytes: &Bytes) -> usize {
    if bytes.is_empty() { 0 } else { encoding::bytes::encoded_len(tag, bytes) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn encoding_is_that_of_the_api_message(
            numbers in prop::array::uniform5(prop_oneof![Just(0_i64), any::<i64>()]),
            key in prop::collection::vec(any::<u8>(), 0..300),
            value in prop::collection::vec(any::<u8>(), 0..300),
            keys_only: bool,
        ) {
            let [main, create_revision, count, lease, sub] = numbers;
            let version = Version {
                revision: Revision { main, sub },
                key: key.into(),
                value: value.into(),
                create_revision,
                version: count,
                lease,
                tombstone: false,
            };
            let message = if keys_only { version.to_key_only() } else { version.to_key_value() };
            let mut encoded = Vec::new();
            version.encode(keys_only, &mut encoded);
            prop_assert_eq!(&encoded, &message.encode_to_vec());
            prop_assert_eq!(encoded.len(), version.encoded_len(keys_only));
        }
    }
}
