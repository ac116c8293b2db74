//! Sets of completion indexes in the form that a Job's status shows: `1,3-5,7`. Owns parsing, printing and set operations.

use std::fmt;

/// Ordered, disjoint ranges of indexes, both ends included; neighbours are joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(i32, i32)>);

impl Intervals {
    /// Reads the text of a status or of a policy. What is not below `completions` is left out, and so is what is no number.
    pub fn parse(text: &str, completions: i32) -> Self {
        let number = |text: &str| text.trim().parse::<i32>().ok().filter(|number| *number >= 0);
        let ranges = text.split(',').filter_map(|part| {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            (first < completions && first <= last).then(|| (first, last.min(completions - 1)))
        });
        Self::joined(ranges.collect())
    }

    /// These single indexes, in any order.
    pub fn of(indexes: impl IntoIterator<Item = i32>) -> Self {
        Self::joined(indexes.into_iter().map(|index| (index, index)).collect())
    }

    fn joined(mut ranges: Vec<(i32, i32)>) -> Self {
        ranges.sort_unstable();
        let mut all: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match all.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => all.push((first, last)),
            }
        }
        Self(all)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::joined(self.0.iter().chain(&other.0).copied().collect())
    }

    /// How many indexes are in both.
    pub fn overlap(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            count += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            if a.1 <= b.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        count
    }

    /// How many indexes there are.
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the index is in it.
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// The first `count` indexes below `end` that are not in it.
    pub fn first_missing(&self, count: usize, end: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(end, end)]) {
            let room = count - missing.len();
            missing.extend((candidate..first.min(end)).take(room));
            candidate = candidate.max(last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn texts_are_read_and_written_as_upstream_does() {
        for (text, completions, written, total) in [
            ("", 10, "", 0),
            ("1", 10, "1", 1),
            ("1,2", 10, "1,2", 2),
            ("1,2,3", 10, "1-3", 3),
            ("0,2-4,6", 5, "0,2-4", 4),
            ("2-9", 5, "2-4", 3),
            ("x,1-y,3", 5, "3", 1),
        ] {
            let read = Intervals::parse(text, completions);
            assert_eq!((read.to_string().as_str(), read.total()), (written, total), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn they_behave_like_sets(
            a in prop::collection::btree_set(0i32..40, 0..20),
            b in prop::collection::btree_set(0i32..40, 0..20),
            count in 0usize..50,
        ) {
            let (x, y) = (Intervals::of(a.iter().copied()), Intervals::of(b.iter().copied()));
            let union: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(x.union(&y), Intervals::of(union.iter().copied()));
            prop_assert_eq!(x.overlap(&y) as usize, a.intersection(&b).count());
            prop_assert_eq!(x.total() as usize, a.len());
            prop_assert_eq!(Intervals::parse(&x.to_string(), 40), x.clone());
            let missing: Vec<i32> = (0..40).filter(|index| !a.contains(index)).take(count).collect();
            prop_assert_eq!(x.first_missing(count, 40), missing);
            for index in 0..40 {
                prop_assert_eq!(x.has(index), a.contains(&index));
            }
        }
    }
}
