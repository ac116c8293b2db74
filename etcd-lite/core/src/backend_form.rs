//! A version as etcd's backend stores it, the one form that hashes and snapshot files are made of.
//!
//! The key is the revision: `main` (8 bytes, big-endian), `_`, `sub` (8 bytes), and `t` behind it for a tombstone. The value is the protobuf
//! `mvccpb.KeyValue`, of a tombstone with the key alone.
//! Never here: where the pairs are kept.

use bytes::Bytes;
use coracle_proto::mvccpb::KeyValue;
use prost::Message;

use crate::error::LoadError;
use crate::version::{Revision, Version, encode_bytes};

/// Bytes of a revision without the mark.
const REVISION_BYTES: usize = 17;
const SEPARATOR: u8 = b'_';
const TOMBSTONE: u8 = b't';
/// Of `KeyValue.key`.
const KEY_TAG: u32 = 1;

/// The bytes of a revision, as of a key that is no tombstone.
pub fn revision_bytes(revision: Revision) -> [u8; REVISION_BYTES] {
    let mut bytes = [SEPARATOR; REVISION_BYTES];
    bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
    bytes[9..].copy_from_slice(&revision.sub.to_be_bytes());
    bytes
}

/// Reads a revision and whether it has the tombstone's mark. `None` when it has another shape.
pub fn parse_revision(bytes: &[u8]) -> Option<(Revision, bool)> {
    let (revision, mark) = bytes.split_at_checked(REVISION_BYTES)?;
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        Some(i64::from_be_bytes(revision[range].try_into().ok()?)).filter(|number| *number >= 0)
    };
    let tombstone = match mark {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    (revision[8] == SEPARATOR).then_some(())?;
    Some((Revision { main: number(0..8)?, sub: number(9..17)? }, tombstone))
}

impl Version {
    /// Appends the backend's key to `out`.
    pub fn encode_backend_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&revision_bytes(self.revision));
        if self.tombstone {
            out.push(TOMBSTONE);
        }
    }

    /// Appends the backend's value to `out`.
    pub fn encode_backend_value(&self, out: &mut Vec<u8>) {
        if self.tombstone {
            encode_bytes(KEY_TAG, self.key(), out);
        } else {
            self.encode(false, out);
        }
    }

    /// Reads a version back.
    ///
    /// # Errors
    /// Bytes that are no such pair.
    pub fn decode_backend(key: &[u8], value: Bytes) -> Result<Self, LoadError> {
        let (revision, tombstone) = parse_revision(key).ok_or_else(|| LoadError::UnknownKey(key.to_vec()))?;
        let pair =
            KeyValue::decode(value).map_err(|source| LoadError::Undecodable { key: key.to_vec(), source })?;
        if !tombstone && pair.mod_revision != revision.main {
            return Err(LoadError::Inconsistent("a version's revision is not that of its place"));
        }
        Ok(Self::of_key_value(revision, tombstone, &pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Life;

    #[test]
    fn versions_come_back_and_tombstones_are_marked() {
        let revision = Revision { main: 258, sub: 1 };
        let put = Version::put(revision, b"k", b"v", Life { create_revision: 3, version: 4, lease: -9 });
        let tombstone = Version::tombstone(revision, b"k");
        for (version, expected_key) in [
            (put, &b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01"[..]),
            (tombstone, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01t"),
        ] {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            version.encode_backend_key(&mut key);
            version.encode_backend_value(&mut value);
            assert_eq!(key, expected_key);
            assert_eq!(Version::decode_backend(&key, value.into()).expect("decodes"), version);
        }
    }

    #[test]
    fn keys_of_another_shape_are_refused() {
        let good = revision_bytes(Revision { main: 1, sub: 0 });
        let mut negative = good;
        negative[0] = 0x80;
        let mut separated = good;
        separated[8] = b'-';
        for key in [
            &good[..16],
            &[good.as_slice(), b"x"].concat(),
            &[good.as_slice(), b"tt"].concat(),
            &negative,
            &separated,
        ] {
            assert_eq!(parse_revision(key), None, "{key:?}");
        }
    }
}
