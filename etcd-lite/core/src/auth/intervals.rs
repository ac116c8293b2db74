//! Sets of keys as sorted intervals, and a user's permissions as two of them. Permissions that touch or overlap count as one.

use bytes::Bytes;
use coracle_proto::authpb::permission::Type;
use coracle_proto::authpb::{Permission, Role};

/// What a user may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    /// Everything is allowed.
    pub(crate) is_root: bool,
    pub(crate) read: KeySet,
    pub(crate) write: KeySet,
}

impl Permissions {
    pub(crate) fn of_roles<'a>(is_root: bool, roles: impl Iterator<Item = &'a Role>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in roles.flat_map(|role| &role.key_permission) {
            let interval = Interval::of(permission);
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(interval),
                Ok(Type::Write) => write.push(interval),
                Ok(Type::Readwrite) => {
                    read.push(interval.clone());
                    write.push(interval);
                }
                // A kind of permission that this version does not know allows nothing.
                Err(_) => {}
            }
        }
        Self { is_root, read: KeySet::new(read), write: KeySet::new(write) }
    }
}

/// Where an interval ends. Ordered: every key is before `Never`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// At this key, which is not part of it.
    Before(Bytes),
    /// Not at all.
    Never,
}

/// Keys from `start` up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    start: Bytes,
    end: End,
}

impl Interval {
    /// As the API gives a range: no end is the single key, the end `"\0"` is no bound.
    pub(crate) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => End::Before(key_after(key)),
            [0] => End::Never,
            _ => End::Before(range_end.clone()),
        };
        Self { start: key.clone(), end }
    }

    fn of(permission: &Permission) -> Self {
        Self::new(&permission.key, &permission.range_end)
    }

    fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }
}

/// The next key in byte order.
fn key_after(key: &Bytes) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// A union of intervals, kept sorted, apart from each other and not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<Interval>);

impl KeySet {
    pub(crate) fn new(mut intervals: Vec<Interval>) -> Self {
        intervals.retain(|interval| !interval.is_empty());
        intervals.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for interval in intervals {
            match merged.last_mut() {
                Some(last) if last.end >= End::Before(interval.start.clone()) => {
                    if last.end < interval.end {
                        last.end = interval.end;
                    }
                }
                _ => merged.push(interval),
            }
        }
        Self(merged)
    }

    /// Whether one key is in the set.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.around(key).is_some_and(|found| match &found.end {
            End::Before(end) => key < end.as_ref(),
            End::Never => true,
        })
    }

    /// Whether every key of the range is in the set. A range without keys is if it lies within one of the intervals.
    pub(crate) fn covers(&self, key: &Bytes, range_end: &Bytes) -> bool {
        if range_end.is_empty() {
            return self.contains(key);
        }
        let wanted = Interval::new(key, range_end);
        self.contains(key) && self.around(key).is_some_and(|found| wanted.end <= found.end)
    }

    /// The last interval that does not begin after the key.
    fn around(&self, key: &[u8]) -> Option<&Interval> {
        let after = self.0.partition_point(|interval| interval.start.as_ref() <= key);
        self.0[..after].last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(key: &'static str, end: &'static str) -> Interval {
        Interval::new(&Bytes::from_static(key.as_bytes()), &Bytes::from_static(end.as_bytes()))
    }

    fn covers(set: &KeySet, key: &'static str, end: &'static str) -> bool {
        set.covers(&Bytes::from_static(key.as_bytes()), &Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn ranges_are_covered_by_the_union_of_permissions() {
        for (permissions, key, end, expected) in [
            (vec![("a", "")], "a", "", true),
            (vec![("a", "")], "aa", "", false),
            (vec![("a", "")], "a", "b", false),
            (vec![("a", "c")], "a", "c", true),
            (vec![("a", "c")], "b", "", true),
            (vec![("a", "c")], "c", "", false),
            (vec![("a", "c")], "b", "d", false),
            (vec![("a", "c"), ("c", "e")], "b", "d", true),
            (vec![("a", "b"), ("c", "e")], "a", "d", false),
            (vec![("d", "e"), ("a", "e"), ("b", "c")], "a", "e", true),
            (vec![("a", ""), ("a\0", "b")], "a", "b", true),
            (vec![("a", "\0")], "zzz", "\0", true),
            (vec![("a", "zzz")], "b", "\0", false),
            (vec![("b", "\0")], "a", "\0", false),
            (vec![("\0", "\0")], "\0", "\0", true),
            (vec![("", "\0")], "\0", "\0", true),
            (vec![("c", "a")], "b", "", false),
            (vec![], "a", "", false),
        ] {
            let set = KeySet::new(permissions.iter().map(|(key, end)| interval(key, end)).collect());
            assert_eq!(covers(&set, key, end), expected, "{permissions:?} and {key:?}..{end:?}");
        }
    }

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0u8..4, 1..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = (Bytes, Bytes)> {
        let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key(), key()];
        (key(), end)
    }

    /// All keys of up to three bytes below 4, and one beyond all ends.
    fn all_keys() -> Vec<Bytes> {
        let mut keys = vec![Bytes::from_static(&[9])];
        for length in 1..=3u32 {
            for number in 0..4u32.pow(length) {
                keys.push((0..length).map(|i| (number / 4u32.pow(i) % 4) as u8).collect::<Vec<u8>>().into());
            }
        }
        keys
    }

    proptest! {
        #[test]
        fn a_key_is_in_the_set_when_it_is_in_one_of_the_ranges(ranges in prop::collection::vec(range(), 0..8)) {
            let set = KeySet::new(ranges.iter().map(|(key, end)| Interval::new(key, end)).collect());
            for key in all_keys() {
                let expected = ranges.iter().any(|(k, e)| crate::KeyRange::new(k, e).contains(&key));
                prop_assert_eq!(set.contains(&key), expected, "{:?}", key);
            }
        }

        #[test]
        fn a_range_is_covered_when_all_its_keys_are_in_the_set(
            ranges in prop::collection::vec(range(), 0..8),
            (key, end) in range(),
        ) {
            let set = KeySet::new(ranges.iter().map(|(key, end)| Interval::new(key, end)).collect());
            let wanted = crate::KeyRange::new(&key, &end);
            let inside: Vec<Bytes> = all_keys().into_iter().filter(|k| wanted.contains(k)).collect();
            if set.covers(&key, &end) {
                prop_assert!(inside.iter().all(|k| set.contains(k)));
            } else {
                // Keys longer than three bytes lie between, so that not all of them need show it.
                let deep = |k: &Bytes| { let mut k = k.to_vec(); k.push(0); set.contains(&k) };
                let ends_open = end.as_ref() == [0] && !set.contains(&[0xff; 8]);
                prop_assert!(
                    wanted.is_empty()
                        || ends_open
                        || inside.iter().any(|k| !set.contains(k) || (!end.is_empty() && !deep(k) && k.as_ref() < end.as_ref()))
                );
            }
        }

        #[test]
        fn intervals_are_sorted_apart_and_not_empty(ranges in prop::collection::vec(range(), 0..8)) {
            let set = KeySet::new(ranges.iter().map(|(key, end)| Interval::new(key, end)).collect());
            prop_assert!(set.0.iter().all(|interval| !interval.is_empty()));
            for pair in set.0.windows(2) {
                prop_assert!(pair[0].end < End::Before(pair[1].start.clone()));
            }
        }
    }
}
