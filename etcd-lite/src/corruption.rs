//! Looks for members whose data differs: compares etcd's checksum of the key space at one revision between members.
//!
//! Owns: the check at start (`--experimental-initial-corrupt-check`), which keeps a member that differs from serving, and the leader's
//! checks now and then (`--experimental-corrupt-check-time`, `--experimental-compact-hash-check-enabled`), which raise CORRUPT for a member that differs. Never here: computing checksums,
//! connections, what the alarm forbids.
//!
//! Checksums are comparable at the same revision and the same compacted revision only; anything else says nothing, as in etcd.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use coracle_proto::etcdserverpb::AlarmType;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::member::Member;
use crate::peer::Peers;
use crate::quota::raise;
use crate::raft_member::RaftMember;
use crate::services::hash_kv;

/// Stands for the revision a member is at.
const CURRENT: i64 = 0;

/// The checksum of one member's key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpaceHash {
    /// Whose it is.
    pub member_id: u64,
    /// The checksum at the revision asked for.
    pub hash: u32,
    /// The revision the checksum covers.
    pub revision: i64,
    /// The compacted revision it belongs to.
    pub compacted_revision: i64,
    /// How far the member was when it answered.
    pub current_revision: i64,
}

/// Computes this member's own, on a thread where it may take its time.
async fn own_hash(member: &Arc<RaftMember>, revision: i64) -> Result<KeySpaceHash, String> {
    let member = Arc::clone(member);
    let computed = tokio::task::spawn_blocking(move || {
        let member_id = member.status().member_id;
        let (hash, scope) =
            hash_kv(member.store(), revision).map_err(|status| status.message().to_owned())?;
        Ok(KeySpaceHash {
            member_id,
            hash,
            revision: scope.revision,
            compacted_revision: scope.compacted_revision,
            current_revision: member.store().read().revision(),
        })
    });
    computed.await.map_err(|error| error.to_string())?
}

/// What the other members answer for a revision; those that cannot be reached or cannot say are left out, with a word in the log.
async fn peer_hashes(peers: &Arc<Peers>, revision: i64) -> Vec<KeySpaceHash> {
    let asked = peers.others().into_iter().map(|id| async move {
        peers
            .hash_kv(id, revision)
            .await
            .map_err(|error| {
                tracing::warn!(peer = format!("{id:x}"), revision, error, "no checksum from a member");
            })
            .ok()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Compares with the other members before anything is served. Those not running yet, ahead or behind are no hindrance.
///
/// # Errors
/// A member has other data at the same revision.
pub async fn check_at_start(member: &Arc<RaftMember>, peers: &Arc<Peers>) -> anyhow::Result<()> {
    let own = match own_hash(member, CURRENT).await {
        Ok(own) => own,
        Err(error) => bail!("cannot compute the checksum of the stored keys: {error}"),
    };
    let found = peer_hashes(peers, own.revision).await;
    if let Some(other) = found.iter().find(|other| differs(&own, other)) {
        bail!(
            "{:x} found data inconsistency with peers: at revision {} the checksum is {} here and {} at {:x}; if this member is the one that differs, \
             move its data directory aside and start it with --initial-cluster-state=existing, so that it takes the state from the others",
            own.member_id,
            own.revision,
            own.hash,
            other.hash,
            other.member_id
        );
    }
    tracing::info!(compared_with = found.len(), "initial corruption checking passed; no corruption");
    Ok(())
}

/// Whether two checksums contradict each other.
fn differs(one: &KeySpaceHash, other: &KeySpaceHash) -> bool {
    one.compacted_revision == other.compacted_revision
        && one.revision == other.revision
        && one.hash != other.hash
}

/// Who differs, given the leader's checksums before and after a linearizable read and those of the others in between.
///
/// When members contradict the leader and a majority of all agrees with them, the leader is the one.
pub fn differing(
    before: &KeySpaceHash,
    after: &KeySpaceHash,
    others: &[KeySpaceHash],
    members: usize,
) -> Vec<u64> {
    if differs(before, after) {
        return vec![before.member_id];
    }
    let contradicting: Vec<&KeySpaceHash> = others.iter().filter(|other| differs(before, other)).collect();
    let agreeing_with =
        |hash: &KeySpaceHash| contradicting.iter().filter(|other| other.hash == hash.hash).count();
    if contradicting.iter().any(|other| 2 * agreeing_with(other) > members) {
        return vec![before.member_id];
    }
    let mut found: Vec<u64> = contradicting.iter().map(|other| other.member_id).collect();
    // The leader has applied everything that anyone may have applied when it answered.
    let ahead = others.iter().filter(|other| {
        other.current_revision > after.current_revision || other.compacted_revision > after.compacted_revision
    });
    found.extend(ahead.map(|other| other.member_id));
    found.sort_unstable();
    found.dedup();
    found
}

/// What the leader compares now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The key space as it is.
    Current,
    /// The key space at the revision compacted last, if that was not compared yet.
    Compacted,
}

/// Checks now and then while this member leads, until shutdown.
pub async fn run(
    member: Arc<RaftMember>,
    peers: Arc<Peers>,
    compared: Compared,
    interval: Duration,
    shutdown: CancellationToken,
) {
    let mut compacted_before = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let status = member.status();
        if status.leader != status.member_id {
            continue;
        }
        let revision = match compared {
            Compared::Current => CURRENT,
            Compared::Compacted => member.store().read().compacted_revision(),
        };
        if compared == Compared::Compacted && revision <= compacted_before {
            continue;
        }
        match check(&member, &peers, revision).await {
            Ok(()) => compacted_before = revision,
            Err(error) => tracing::warn!(error, ?compared, "the corruption check did not finish"),
        }
    }
}

async fn check(member: &Arc<RaftMember>, peers: &Arc<Peers>, revision: i64) -> Result<(), String> {
    let before = own_hash(member, revision).await?;
    let others = peer_hashes(peers, before.revision).await;
    member.read_index().await.map_err(|error| error.to_string())?;
    let after = own_hash(member, revision).await?;
    for id in differing(&before, &after, &others, member.members().len()) {
        if member.store().read().alarms().is_raised_by(id, AlarmType::Corrupt) {
            continue;
        }
        tracing::error!(
            member = format!("{id:x}"),
            revision = before.revision,
            ?before,
            ?others,
            "a member's data differs; raising CORRUPT"
        );
        member.propose(raise(id, AlarmType::Corrupt)).await.map_err(|error| error.to_string())?;
    }
    tracing::debug!(members = others.len(), "finished peer corruption check");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(member_id: u64, hash: u32, compacted_revision: i64) -> KeySpaceHash {
        KeySpaceHash { member_id, hash, revision: 10, compacted_revision, current_revision: 10 }
    }

    fn found(leader: KeySpaceHash, others: &[KeySpaceHash]) -> Vec<u64> {
        differing(&leader, &leader, others, 3)
    }

    #[test]
    fn who_has_another_checksum_at_the_same_point_differs() {
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 7, 2), hash(3, 7, 2)]), Vec::<u64>::new());
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 8, 2), hash(3, 7, 2)]), [2]);
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 8, 2)]), [2], "one of two: the leader is believed");
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 8, 1)]), Vec::<u64>::new(), "not compacted that far yet");
    }

    #[test]
    fn a_leader_that_stands_alone_is_the_one_that_differs() {
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 8, 2), hash(3, 8, 2)]), [1]);
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 8, 2), hash(3, 9, 2)]), [2, 3], "nobody agrees");
        assert_eq!(differing(&hash(1, 7, 2), &hash(1, 8, 2), &[], 3), [1], "it contradicts itself");
    }

    #[test]
    fn nobody_can_be_ahead_of_the_leader() {
        let ahead = KeySpaceHash { current_revision: 11, ..hash(2, 7, 2) };
        assert_eq!(found(hash(1, 7, 2), &[ahead]), [2]);
        assert_eq!(found(hash(1, 7, 2), &[hash(2, 9, 3)]), [2]);
    }
}
