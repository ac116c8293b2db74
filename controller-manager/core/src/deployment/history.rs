//! Old ReplicaSets: their revisions and which of them are forgotten under `revisionHistoryLimit`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::REVISION;
use super::working_set::Working;
use crate::action::{Action, Propagation, REPLICA_SETS, Target};
use crate::object_meta::{annotation, name, namespace};

/// A ReplicaSet's revision; 0 if it has none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Deletions of the oldest ReplicaSets beyond the limit. Those with pods, or whose status is behind, stay.
pub fn to_delete<'a>(limit: Option<i32>, old: impl Iterator<Item = &'a Working>) -> Vec<Action> {
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX).and_then(|limit| usize::try_from(limit).ok())
    else {
        return Vec::new();
    };
    let mut sets: Vec<_> = old.filter(|set| set.object.metadata.deletion_timestamp.is_none()).collect();
    let surplus = sets.len().saturating_sub(limit);
    sets.sort_by_key(|set| revision(&set.object.metadata));
    let idle = |set: &&&Working| {
        let status = set.status();
        let observed = status.and_then(|status| status.observed_generation);
        set.replicas() == 0
            && status.is_none_or(|status| status.replicas == 0)
            && set.object.metadata.generation <= observed
    };
    sets.iter()
        .take(surplus)
        .filter(idle)
        .map(|set| {
            let meta = &set.object.metadata;
            Action::Delete {
                target: Target::new(&REPLICA_SETS, namespace(meta), name(meta)),
                uid: meta.uid.clone(),
                resource_version: None,
                propagation: Some(Propagation::Background),
                grace_seconds: None,
            }
        })
        .collect()
}
