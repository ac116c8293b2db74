//! Draws requests on watch streams.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use prost::bytes::Bytes;

use super::operation::World;
use super::random::Random;

impl Random {
    pub(crate) fn watch(&mut self, world: World) -> pb::WatchRequest {
        let request = match self.below(20) {
            0..10 => RequestUnion::CreateRequest(self.watch_create(world)),
            10..17 => RequestUnion::CancelRequest(pb::WatchCancelRequest {
                watch_id: if self.one_in(10) { self.of(&[-1, 99, i64::MIN]) } else { self.watch_id() },
            }),
            17..19 => RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
            _ => return pb::WatchRequest { request_union: None },
        };
        pb::WatchRequest { request_union: Some(request) }
    }

    /// From a few, so that they are taken already and there to be cancelled.
    fn watch_id(&mut self) -> i64 {
        self.of(&[0, 1, 2, 3, 4, 5, 6, 7, -3, 1000])
    }

    fn watch_create(&mut self, world: World) -> pb::WatchCreateRequest {
        let start_revision = match self.below(20) {
            0..8 => 0,
            8..14 => world.revision - self.below(20),
            14..16 => world.revision + self.below(10),
            16 => world.compacted + self.below(3) - 1,
            17 => 1 + self.below(world.revision.max(1)),
            18 => self.of(&[-1, i64::MAX, i64::MIN, -9]),
            _ => 1,
        };
        pb::WatchCreateRequest {
            key: if self.one_in(12) { Bytes::new() } else { self.key() },
            range_end: self.range_end(),
            start_revision,
            progress_notify: self.one_in(3),
            filters: match self.below(8) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![0, 1],
                3 => vec![2, -1],
                4 => vec![1, 1],
                _ => Vec::new(),
            },
            prev_kv: self.one_in(2),
            watch_id: if self.one_in(2) { 0 } else { self.watch_id() },
            fragment: self.one_in(3),
        }
    }
}
