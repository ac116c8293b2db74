//! One stored version of a key, and the event its storing is.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use coracle_proto::mvccpb;
use prost::encoding::{self, WireType};

/// A place in the store's one history: `main` counts changing requests, `sub` the writes inside one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store revision clients see.
    pub main: i64,
    /// 0 for the first write of that revision, then 1, 2, …
    pub sub: i64,
}

/// What a put is beside its key and value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// Revision of the put that began the key's present life.
    pub create_revision: i64,
    /// Puts since then, this one included.
    pub version: i64,
    /// Lease the key is attached to; 0 is none.
    pub lease: i64,
}

/// One version of a key: a put, or the tombstone of a deletion. Shared, never changed.
///
/// Memory is full of these, so key and value lie in one allocation that is theirs alone: a slice of the request they came with costs a second
/// handle each and keeps the whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it was written; `revision.main` is the key's `mod_revision`.
    pub revision: Revision,
    /// Revision of the put that began the key's present life; 0 for a tombstone.
    pub create_revision: i64,
    /// Puts since then, this one included; 0 for a tombstone.
    pub version: i64,
    /// Lease the key is attached to; 0 is none.
    pub lease: i64,
    /// Whether this is the mark of a deletion.
    pub tombstone: bool,
    /// Requests are far below 4 GiB.
    key_length: u32,
    /// The key, then the value.
    bytes: Box<[u8]>,
}

impl Version {
    /// A put.
    pub fn put(revision: Revision, key: &[u8], value: &[u8], life: Life) -> Self {
        let Life { create_revision, version, lease } = life;
        Self {
            revision,
            create_revision,
            version,
            lease,
            tombstone: false,
            key_length: key.len() as u32,
            bytes: [key, value].concat().into(),
        }
    }

    /// The mark of a deletion.
    pub fn tombstone(revision: Revision, key: &[u8]) -> Self {
        Self { tombstone: true, ..Self::put(revision, key, &[], Life::default()) }
    }

    /// A version as some record tells it.
    pub(crate) fn of_key_value(revision: Revision, tombstone: bool, kv: &mvccpb::KeyValue) -> Self {
        let life = Life { create_revision: kv.create_revision, version: kv.version, lease: kv.lease };
        Self { tombstone, ..Self::put(revision, &kv.key, &kv.value, life) }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key_length as usize]
    }

    /// The value; empty for a tombstone.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_length as usize..]
    }

    /// The API's form. A tombstone has only key and `mod_revision`, as etcd sends it.
    pub fn to_key_value(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue { value: Bytes::copy_from_slice(self.value()), ..self.to_key_only() }
    }

    /// The API's form without the value.
    pub fn to_key_only(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::copy_from_slice(self.key()),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value: Bytes::new(),
            lease: self.lease,
        }
    }

    /// Length of the encoded API's form.
    pub fn encoded_len(&self, keys_only: bool) -> usize {
        let numbers =
            [(2, self.create_revision), (3, self.revision.main), (4, self.version), (6, self.lease)];
        let mut length = bytes_len(1, self.key());
        if !keys_only {
            length += bytes_len(5, self.value());
        }
        for (tag, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            length += encoding::int64::encoded_len(tag, &number);
        }
        length
    }

    /// Adds the encoded API's form ([`Self::to_key_value`], or [`Self::to_key_only`]) to a buffer.
    pub fn encode(&self, keys_only: bool, buffer: &mut impl BufMut) {
        encode_bytes(1, self.key(), buffer);
        encode_number(2, self.create_revision, buffer);
        encode_number(3, self.revision.main, buffer);
        encode_number(4, self.version, buffer);
        if !keys_only {
            encode_bytes(5, self.value(), buffer);
        }
        encode_number(6, self.lease, buffer);
    }

    /// Length of the saved record.
    pub(crate) fn record_len(&self) -> usize {
        let mark = if self.tombstone { encoding::bool::encoded_len(1, &true) } else { 0 };
        mark + field_len(2, self.encoded_len(false))
    }

    /// Adds the saved record, a `VersionRecord`, to a buffer.
    pub(crate) fn encode_record(&self, buffer: &mut impl BufMut) {
        if self.tombstone {
            encoding::bool::encode(1, &true, buffer);
        }
        encode_message_head(2, self.encoded_len(false), buffer);
        self.encode(false, buffer);
    }

    /// Bytes that key, value and all the rest occupy, about; the same on every member.
    pub fn size_bytes(&self) -> usize {
        const REST: usize = 64;
        REST + self.bytes.len()
    }
}

fn encode_number(tag: u32, number: i64, buffer: &mut impl BufMut) {
    if number != 0 {
        encoding::int64::encode(tag, &number, buffer);
    }
}

/// As [`encoding::bytes::encode`], for what is not owned by the buffer's own type.
pub(crate) fn encode_bytes(tag: u32, bytes: &[u8], buffer: &mut impl BufMut) {
    if !bytes.is_empty() {
        encoding::encode_key(tag, WireType::LengthDelimited, buffer);
        encoding::encode_varint(bytes.len() as u64, buffer);
        buffer.put_slice(bytes);
    }
}

fn bytes_len(tag: u32, bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { field_len(tag, bytes.len()) }
}

/// Length of a field with so many bytes in it.
fn field_len(tag: u32, length: usize) -> usize {
    encoding::key_len(tag) + encoding::encoded_len_varint(length as u64) + length
}

/// Adds a message of so many bytes as a field; whoever calls adds the bytes.
fn encode_message_head(tag: u32, length: usize, buffer: &mut impl BufMut) {
    encoding::encode_key(tag, WireType::LengthDelimited, buffer);
    encoding::encode_varint(length as u64, buffer);
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
    fn kind(&self) -> mvccpb::event::EventType {
        if self.version.tombstone { mvccpb::event::EventType::Delete } else { mvccpb::event::EventType::Put }
    }

    fn previous_if(&self, wanted: bool) -> Option<&Version> {
        self.previous.as_deref().filter(|_| wanted)
    }

    /// Length of the encoded API's form.
    pub fn encoded_len(&self, with_previous: bool) -> usize {
        let kind = if self.version.tombstone { encoding::int32::encoded_len(1, &1) } else { 0 };
        let previous = self.previous_if(with_previous).map_or(0, |v| field_len(3, v.encoded_len(false)));
        kind + field_len(2, self.version.encoded_len(false)) + previous
    }

    /// Adds the encoded API's form ([`Self::to_proto`]) to a buffer as the field `tag` of another message.
    pub fn encode_field(&self, tag: u32, with_previous: bool, buffer: &mut impl BufMut) {
        encode_message_head(tag, self.encoded_len(with_previous), buffer);
        if self.version.tombstone {
            encoding::int32::encode(1, &self.kind().into(), buffer);
        }
        for (tag, version) in [(2, Some(&*self.version)), (3, self.previous_if(with_previous))] {
            if let Some(version) = version {
                encode_message_head(tag, version.encoded_len(false), buffer);
                version.encode(false, buffer);
            }
        }
    }

    /// The API's form, with the previous key-value when `with_previous`.
    pub fn to_proto(&self, with_previous: bool) -> mvccpb::Event {
        mvccpb::Event {
            r#type: self.kind().into(),
            kv: Some(self.version.to_key_value()),
            prev_kv: self.previous_if(with_previous).map(Version::to_key_value),
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
            let life = Life { create_revision, version: count, lease };
            let version = Version::put(Revision { main, sub }, &key, &value, life);
            let message = if keys_only { version.to_key_only() } else { version.to_key_value() };
            let mut encoded = Vec::new();
            version.encode(keys_only, &mut encoded);
            prop_assert_eq!(&encoded, &message.encode_to_vec());
            prop_assert_eq!(encoded.len(), version.encoded_len(keys_only));
        }

        #[test]
        fn an_encoded_event_is_the_api_message(value: Vec<u8>, lengths in (0..300_usize, 0..300_usize), tag in 1..40_u32, with_previous: bool) {
            let key = vec![b'k'; lengths.0];
            let put = Version::put(Revision { main: 7, sub: 1 }, &key, &value, Life { create_revision: 3, version: 2, lease: 0 });
            let before = Version::put(Revision { main: 5, sub: 0 }, &key, &vec![1; lengths.1], Life { create_revision: 3, version: 1, lease: 4 });
            for version in [put, Version::tombstone(Revision { main: 7, sub: 1 }, &key)] {
                let event = Event { version: Arc::new(version), previous: Some(Arc::new(before.clone())) };
                let mut encoded = Vec::new();
                event.encode_field(tag, with_previous, &mut encoded);
                let mut expected = Vec::new();
                encoding::message::encode(tag, &event.to_proto(with_previous), &mut expected);
                prop_assert_eq!(encoded, expected);
                prop_assert_eq!(event.encoded_len(with_previous), event.to_proto(with_previous).encoded_len());
            }
        }
    }
}
