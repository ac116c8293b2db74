//! What has happened in the reference store, and so how much each open watch is to have been told. It is used to wait for that, never to judge.

use std::collections::BTreeMap;

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::mvccpb::Event;
use etcd_lite_core::KeyRange;
use prost::bytes::Bytes;

use super::operation::{STREAMS, World};

struct Change {
    revision: i64,
    key: Bytes,
    is_deletion: bool,
}

/// An open watch.
struct Watch {
    range: KeyRange,
    /// Its first revision; changes before it may be recorded later.
    start: i64,
    filters: Vec<i32>,
    /// Below is taken into account.
    next_change: usize,
    /// Whether it began at the revision that was the compacted one.
    is_from_compacted: bool,
    /// Entries it is to have and that were not taken yet.
    awaited: usize,
}

/// Every change so far, and the open watches of each stream by id.
#[derive(Default)]
pub(crate) struct Chronicle {
    changes: Vec<Change>,
    watches: [BTreeMap<i64, Watch>; STREAMS],
}

impl Chronicle {
    pub(crate) fn record(&mut self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        self.changes.push(Change {
            revision: kv.mod_revision,
            key: kv.key.clone(),
            is_deletion: event.r#type == 1,
        });
    }

    /// The revision of the last change recorded; 1 is that of an empty store.
    pub(crate) fn newest_revision(&self) -> i64 {
        self.changes.last().map_or(1, |change| change.revision)
    }

    /// A request on a stream was answered so.
    pub(crate) fn asked(
        &mut self,
        stream: usize,
        request: &pb::WatchRequest,
        answers: &[pb::WatchResponse],
        world: World,
    ) {
        for answer in answers {
            if answer.canceled && !answer.created {
                self.watches[stream].remove(&answer.watch_id);
            }
            if let Some(RequestUnion::CreateRequest(create)) = &request.request_union
                && answer.created
                && !answer.canceled
            {
                let current = answer.header.map_or(0, |header| header.revision);
                let watch = self.begin(create, current, world);
                self.watches[stream].insert(answer.watch_id, watch);
            }
        }
    }

    fn begin(&self, create: &pb::WatchCreateRequest, current: i64, world: World) -> Watch {
        let start = if create.start_revision == 0 { current + 1 } else { create.start_revision };
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() };
        let range = KeyRange::new(&key, &create.range_end);
        let mut watch = Watch {
            range,
            start,
            filters: create.filters.clone(),
            next_change: 0,
            is_from_compacted: start == world.compacted,
            awaited: 0,
        };
        if start < world.compacted {
            // It is told that it cannot be, and nothing else. A compaction at 0 is told as no reason.
            watch.next_change = usize::MAX;
            watch.awaited = usize::from(world.compacted != 0);
            return watch;
        }
        watch.next_change = self.changes.partition_point(|change| change.revision < start);
        if watch.is_from_compacted {
            // Of the compacted revision there is what is the newest of its key and no deletion.
            let end = self.changes.partition_point(|change| change.revision <= start);
            let changes = &self.changes[watch.next_change..end];
            let is_left = |(number, change): (usize, &Change)| {
                !change.is_deletion && !changes[number + 1..].iter().any(|later| later.key == change.key)
            };
            let left = changes.iter().enumerate().filter(|(number, change)| is_left((*number, change)));
            watch.awaited = left.filter(|(_, change)| watch.wants(change)).count();
            watch.next_change = end;
        }
        watch
    }

    /// A stream was closed, and its watches with it.
    pub(crate) fn closed(&mut self, stream: usize) {
        self.watches[stream].clear();
    }

    /// The revision at which a watch began, if that was the compacted one.
    pub(crate) fn began_at_compacted(&self, stream: usize, watch_id: i64) -> Option<i64> {
        let watch = self.watches[stream].get(&watch_id)?;
        watch.is_from_compacted.then_some(watch.start)
    }

    /// How many entries each watch of a stream is to have now.
    pub(crate) fn awaited(&mut self, stream: usize) -> Vec<(i64, usize)> {
        let changes = &self.changes;
        let watches = self.watches[stream].iter_mut();
        watches
            .map(|(id, watch)| {
                let new = changes.get(watch.next_change..).unwrap_or_default();
                watch.awaited += new.iter().filter(|change| watch.wants(change)).count();
                watch.next_change = watch.next_change.max(changes.len());
                (*id, watch.awaited)
            })
            .collect()
    }

    /// Everything awaited was taken.
    pub(crate) fn taken(&mut self, stream: usize) {
        self.watches[stream].values_mut().for_each(|watch| watch.awaited = 0);
    }
}

impl Watch {
    fn wants(&self, change: &Change) -> bool {
        change.revision >= self.start
            && self.range.contains(&change.key)
            && !self.filters.contains(&i32::from(change.is_deletion))
    }
}
