//! Reading a range of keys at a revision.

use std::cmp::Ordering;
use std::sync::Arc;

use coracle_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use coracle_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};

use crate::error::StoreError;
use crate::key_range::KeyRange;
use crate::mutant;
use crate::store::Store;
use crate::version::Version;

/// A response header of which only the store's part is known.
pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// What a read found: shared handles, so that encoding happens without the store and without copies in between.
#[derive(Clone, Debug, Default)]
pub struct RangeFound {
    /// The store's revision.
    pub revision: i64,
    /// In the order asked for.
    pub versions: Vec<Arc<Version>>,
    /// Whether the limit left some out.
    pub more: bool,
    /// Keys in the range, whatever the limit.
    pub count: i64,
    /// Whether values were not asked for.
    pub keys_only: bool,
}

impl RangeFound {
    /// The API's form. The header has only the revision.
    pub fn to_response(&self) -> RangeResponse {
        let kv = |v: &Arc<Version>| if self.keys_only { v.to_key_only() } else { v.to_key_value() };
        RangeResponse {
            header: header(self.revision),
            kvs: self.versions.iter().map(kv).collect(),
            more: self.more,
            count: self.count,
        }
    }
}

impl Store {
    /// Answers a read.
    ///
    /// # Errors
    /// `Compacted`, `FutureRevision`.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeFound, StoreError> {
        self.check_readable(request.revision)?;
        Ok(self.range_at(request, self.revision()))
    }

    /// Whether a read at this revision (0 or less: the newest) is possible.
    pub(crate) fn check_readable(&self, revision: i64) -> Result<(), StoreError> {
        if revision <= 0 {
            Ok(())
        } else if revision > self.revision() {
            Err(StoreError::FutureRevision)
        } else if revision < self.compacted_revision() && !mutant!(CompactedRead) {
            Err(StoreError::Compacted)
        } else {
            Ok(())
        }
    }

    /// Answers a checked read; `current` is the revision to report, one ahead of the store's inside a writing transaction.
    pub(crate) fn range_at(&self, request: &RangeRequest, current: i64) -> RangeFound {
        let range = KeyRange::new(&request.key, &request.range_end);
        let at_newest = request.revision <= 0 || request.revision >= current;
        let entries = self.index.range(&range);
        let found = entries
            .filter_map(|versions| if at_newest { versions.live() } else { versions.at(request.revision) });

        let mut answer =
            RangeFound { revision: current, keys_only: request.keys_only, ..RangeFound::default() };
        if request.count_only {
            let count = if at_newest { self.index.live_count_in(&range) } else { found.count() };
            answer.count = count as i64;
            return answer;
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let order = sort_order(request);
        // With a sort order or a filter every key counts before the limit cuts; else one more than the limit tells `more`.
        let collect_max = if order.is_some_and(|o| o.whole) || has_filter(request) {
            usize::MAX
        } else {
            limit.saturating_add(1)
        };
        let (mut count, mut wanted) = (0_usize, Vec::new());
        for version in found {
            count += 1;
            if wanted.len() < collect_max {
                if passes(request, version) {
                    wanted.push(version);
                }
            } else if at_newest {
                count = self.index.live_count_in(&range);
                break;
            }
        }
        if let Some(order) = order {
            order.sort(&mut wanted);
        }
        answer.more = wanted.len() > limit;
        answer.count = count as i64;
        wanted.truncate(limit);
        answer.versions = wanted.into_iter().map(Arc::clone).collect();
        answer
    }
}

/// How to sort what was found in key order.
#[derive(Clone, Copy)]
struct Sorting {
    target: SortTarget,
    descending: bool,
    /// Whether the whole range is sorted before the limit applies. As etcd does, a target without an order sorts ascending, but
    /// only what the limit let through.
    whole: bool,
}

fn sort_order(request: &RangeRequest) -> Option<Sorting> {
    let target = request.sort_target();
    match request.sort_order() {
        SortOrder::None if target == SortTarget::Key => None,
        SortOrder::None => Some(Sorting { target, descending: false, whole: false }),
        SortOrder::Ascend if target == SortTarget::Key => None,
        SortOrder::Ascend => Some(Sorting { target, descending: false, whole: true }),
        SortOrder::Descend => Some(Sorting { target, descending: true, whole: true }),
    }
}

impl Sorting {
    fn sort(self, versions: &mut [&Arc<Version>]) {
        if self.target == SortTarget::Key {
            versions.reverse();
            return;
        }
        let compare = |a: &Version, b: &Version| -> Ordering {
            match self.target {
                SortTarget::Key => a.key().cmp(b.key()),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
                SortTarget::Value => a.value().cmp(b.value()),
            }
        };
        versions.sort_by(|a, b| if self.descending { compare(b, a) } else { compare(a, b) });
    }
}

fn has_filter(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, version: &Version) -> bool {
    let inside = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    inside(version.revision.main, request.min_mod_revision, request.max_mod_revision)
        && inside(version.create_revision, request.min_create_revision, request.max_create_revision)
}
