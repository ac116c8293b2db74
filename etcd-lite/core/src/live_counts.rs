//! How many keys live between marks that are spread over all keys, so that counting a range means looking at its two ends alone.
//!
//! Worked example: marks "" and "m" with counts 3 and 2 say that three live keys come before "m" and two from "m" on. A page of a long list
//! says how many keys are left behind it; without the marks each page would look at every one of them.
//! Never here: the keys themselves.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Live keys from one mark to the next at most.
pub(crate) const SECTION_MAX: usize = 128;

/// The marks, each with the number of live keys up to the next mark. The empty key is always one.
#[derive(Clone, Debug)]
pub(crate) struct LiveCounts {
    sections: BTreeMap<Box<[u8]>, usize>,
    total: usize,
}

impl Default for LiveCounts {
    fn default() -> Self {
        Self { sections: BTreeMap::from([(Box::default(), 0)]), total: 0 }
    }
}

impl LiveCounts {
    /// All live keys.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// A key came to life. Gives the mark of its section if that is to be split.
    pub(crate) fn add(&mut self, key: &[u8]) -> Option<Box<[u8]>> {
        self.total += 1;
        let (mark, count) = self.section_of(key)?;
        *count += 1;
        (*count > SECTION_MAX).then(|| mark.into())
    }

    /// A key is not live any more.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.total -= 1;
        let Some((mark, count)) = self.section_of(key) else { return };
        *count -= 1;
        if *count == 0 && !mark.is_empty() {
            let mark: Box<[u8]> = mark.into();
            self.sections.remove(&mark);
        }
    }

    /// Sets a mark between the first `before` live keys of a section and the others.
    pub(crate) fn split(&mut self, section: &[u8], before: usize, mark: &[u8]) {
        if let Some(count) = self.sections.get_mut(section) {
            let after = std::mem::replace(count, before) - before;
            self.sections.insert(mark.into(), after);
        }
    }

    /// The sections whose marks lie within bounds, in order.
    pub(crate) fn within(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&[u8], usize)> + Clone {
        self.sections.range::<[u8], _>(bounds).map(|(mark, count)| (&**mark, *count))
    }

    fn section_of(&mut self, key: &[u8]) -> Option<(&[u8], &mut usize)> {
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        self.sections.range_mut::<[u8], _>(up_to_key).next_back().map(|(mark, count)| (&**mark, count))
    }
}
