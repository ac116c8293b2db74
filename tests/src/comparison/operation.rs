//! What is asked of both stores, drawn from a seed.

use coracle_proto::etcdserverpb as pb;
use prost::bytes::Bytes;

use super::random::Random;

/// Watch streams that a run has open.
pub const STREAMS: usize = 3;

/// Leases that live longer than any run, so that none runs out in it: seconds.
const LONG_TTL_SECONDS: i64 = 1_000_000;

/// One request, or a few that belong together.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// KV.Range.
    Range(pb::RangeRequest),
    /// KV.Put.
    Put(pb::PutRequest),
    /// KV.DeleteRange.
    DeleteRange(pb::DeleteRangeRequest),
    /// KV.Txn.
    Txn(pb::TxnRequest),
    /// KV.Compact.
    Compact(pb::CompactionRequest),
    /// Lease.LeaseGrant of a lease that outlives the run.
    LeaseGrant(pb::LeaseGrantRequest),
    /// A lease that may be short or numbered by the store: granted, renewed, asked about and revoked before it can run out.
    BriefLease(pb::LeaseGrantRequest),
    /// Lease.LeaseRevoke.
    LeaseRevoke(pb::LeaseRevokeRequest),
    /// Lease.LeaseKeepAlive, one renewal.
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    /// Lease.LeaseTimeToLive.
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    /// Lease.LeaseLeases.
    LeaseLeases,
    /// Maintenance.HashKV.
    HashKv(pb::HashKvRequest),
    /// Maintenance.Status.
    Status,
    /// A request on one of the open watch streams.
    Watch {
        /// Which stream, below [`STREAMS`].
        stream: usize,
        /// What is sent.
        request: pb::WatchRequest,
    },
    /// A watch stream is closed by the client and opened anew.
    Reopen {
        /// Which stream, below [`STREAMS`].
        stream: usize,
    },
}

/// How far the store is, for revisions that mean something.
#[derive(Clone, Copy, Debug, Default)]
pub struct World {
    /// The newest revision.
    pub revision: i64,
    /// The compacted revision; -1 before the first compaction.
    pub compacted: i64,
}

impl Operation {
    /// The operation of this number in the run of this seed.
    pub fn generate(seed: u64, number: u64, world: World) -> Self {
        let mut random = Random::new(seed, number);
        random.operation(world)
    }
}

impl Random {
    fn operation(&mut self, world: World) -> Operation {
        match self.below(1000) {
            0..230 => Operation::Range(self.range_alone(world)),
            230..460 => Operation::Put(self.put()),
            460..540 => Operation::DeleteRange(self.delete()),
            540..800 => Operation::Txn(self.txn_of_any_size(world)),
            800..820 => Operation::Compact(self.compaction(world)),
            820..850 => Operation::LeaseGrant(pb::LeaseGrantRequest {
                // Never 0: the two stores would choose different ids.
                id: self.of(&[1, 2, 3, 4, 5, -7, i64::MAX]),
                // Hardly ever equal, so that the order of their ends does not hang on milliseconds.
                ttl: LONG_TTL_SECONDS + self.below(100_000) * 100,
            }),
            850..860 => Operation::BriefLease(pb::LeaseGrantRequest {
                id: if self.one_in(2) { 0 } else { 1_000_000 + self.below(3) },
                ttl: self.of(&[i64::MIN, -1, 0, 1, 3, 60, 9_000_000_000, 9_000_000_001, i64::MAX]),
            }),
            860..880 => Operation::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease_id() }),
            880..890 => Operation::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: self.lease_id() }),
            890..905 => Operation::LeaseTimeToLive(pb::LeaseTimeToLiveRequest {
                id: self.lease_id(),
                keys: self.one_in(2),
            }),
            905..910 => Operation::LeaseLeases,
            910..920 => Operation::HashKv(pb::HashKvRequest { revision: self.revision(world) }),
            920..925 => Operation::Status,
            925..927 => Operation::Reopen { stream: self.stream() },
            _ => Operation::Watch { stream: self.stream(), request: self.watch(world) },
        }
    }

    fn stream(&mut self) -> usize {
        self.below(STREAMS as i64) as usize
    }

    /// An id from a few, most of which are granted after a while; 0 is no lease.
    pub(crate) fn lease_id(&mut self) -> i64 {
        self.of(&[0, 1, 2, 3, 4, 5, 5, -7, i64::MAX])
    }

    /// A revision: mostly the newest or near it, sometimes one that cannot be.
    pub(crate) fn revision(&mut self, world: World) -> i64 {
        match self.below(20) {
            0..8 => 0,
            8..15 => world.revision - self.below(20),
            15 => world.revision + self.below(3),
            16 => world.compacted + self.below(4) - 1,
            17 => self.of(&[-1, -2, i64::MIN, i64::MAX]),
            _ => 1 + self.below(world.revision.max(1)),
        }
    }

    fn compaction(&mut self, world: World) -> pb::CompactionRequest {
        let revision = match self.below(10) {
            0..7 => world.revision - self.below(60),
            7 => world.compacted + self.below(2),
            8 => world.revision + self.below(3),
            _ => self.of(&[0, -1, i64::MIN, i64::MAX]),
        };
        pb::CompactionRequest { revision, physical: self.one_in(2) }
    }

    /// A key from a few, so that they meet; with bytes that are no text.
    pub(crate) fn key(&mut self) -> Bytes {
        if self.one_in(60) {
            return Bytes::new();
        }
        self.bytes(&[
            b"a",
            b"a",
            b"b",
            b"b",
            b"c",
            b"aa",
            b"ab",
            b"ba",
            b"bb",
            b"\0",
            b"a\0",
            b"\xff",
            b"\xff\xfe",
            b"\x80b",
        ])
    }

    /// None, a prefix's end, everything, one that lies before the key, one that is it.
    pub(crate) fn range_end(&mut self) -> Bytes {
        self.bytes(&[b"", b"", b"", b"", b"b", b"bb", b"c", b"d", b"\0", b"\0", b"a", b"\xff", b"a\0"])
    }
}
