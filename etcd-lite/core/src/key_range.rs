//! A range of keys as the API gives it: `key` and `range_end`.

use std::ops::Bound;

use bytes::Bytes;

/// Keys from `start` on. Never contains the empty key, which cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The range is the single key `start`.
    Single,
    /// Up to this key, not included.
    Before(Bytes),
    /// Every key from `start` on.
    Unbounded,
}

impl KeyRange {
    /// Reads `key` and `range_end`: an empty end is the single key, the end `"\0"` is no bound.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end.clone()),
        };
        Self { start: key.clone(), end }
    }

    /// Whether a key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => self.start <= key && key < end.as_ref(),
            RangeEnd::Unbounded => self.start <= key,
        }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Bounds for an ordered map; meaningless (and refused by the map) when [`Self::is_empty`].
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            RangeEnd::Single => Bound::Included(self.start.as_ref()),
            RangeEnd::Before(end) => Bound::Excluded(end.as_ref()),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        (Bound::Included(self.start.as_ref()), end)
    }

    /// The prefix that exactly the keys of this range begin with, if the range is of that shape.
    pub fn as_prefix(&self) -> Option<&[u8]> {
        match &self.end {
            RangeEnd::Single => None,
            // "\0" on is every key there can be, as is the empty start.
            RangeEnd::Unbounded => (self.start.is_empty() || self.start.as_ref() == [0]).then_some(&[]),
            RangeEnd::Before(end) => {
                (prefix_end(&self.start)? == end.as_ref()).then_some(self.start.as_ref())
            }
        }
    }
}

/// The first key after all keys with this prefix; `None` when there is none (`prefix` is empty or all 0xff).
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::new(&Bytes::from_static(key), &Bytes::from_static(end))
    }

    #[test]
    fn the_three_forms_of_range_end() {
        assert!(range(b"a", b"").contains(b"a") && !range(b"a", b"").contains(b"aa"));
        assert!(range(b"a", b"c").contains(b"bzz") && !range(b"a", b"c").contains(b"c"));
        assert!(range(b"a", b"\0").contains(b"\xff\xff") && !range(b"b", b"\0").contains(b"a"));
        assert!(range(b"b", b"a").is_empty() && range(b"b", b"b").is_empty() && !range(b"b", b"").is_empty());
    }

    #[test]
    fn prefixes_are_recognised() {
        assert_eq!(range(b"/a/", b"/a0").as_prefix(), Some(&b"/a/"[..]));
        assert_eq!(range(b"a\xff", b"b").as_prefix(), Some(&b"a\xff"[..]));
        assert_eq!(range(b"\0", b"\0").as_prefix(), Some(&b""[..]));
        assert_eq!(range(b"a", b"\0").as_prefix(), None);
        assert_eq!(range(b"a", b"c").as_prefix(), None);
        assert_eq!(range(b"a", b"").as_prefix(), None);
    }
}
