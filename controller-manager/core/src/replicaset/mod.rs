//! The ReplicaSet controller: as many active pods as asked for. [`plan`] decides what to create or delete, [`status`] what
//! to report, [`ranking`] which pods go first. Adoption and release are [`crate::object_meta::claim`]'s. ReplicationControllers, the older kind, are
//! read as ReplicaSets ([`replication_controller`]).

pub mod ranking;
pub mod replication_controller;
pub mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::action::ResourceId;
use crate::object_meta::{controller_reference, name};
use crate::pod_state::is_active;
use crate::pod_template;

/// At most this many pods are created or deleted in one go.
pub const BURST_REPLICAS: usize = 500;

/// What to do about the number of pods.
#[derive(Clone, Debug)]
pub enum Scale {
    /// There are as many as asked for.
    Nothing,
    /// Create this many.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<Pod>>),
}

/// Decides from the pods the set owns (ended and terminating ones may be among them). `related` are the active pods of all
/// sets of the same owner, which tells where many run together.
pub fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: jiff::Timestamp) -> Scale {
    if set.metadata.deletion_timestamp.is_some() {
        return Scale::Nothing;
    }
    let wanted = usize::try_from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)).unwrap_or(0);
    let active: Vec<_> = owned.iter().filter(|pod| is_active(pod)).cloned().collect();
    if active.len() < wanted {
        return Scale::Create((wanted - active.len()).min(BURST_REPLICAS));
    }
    let surplus = (active.len() - wanted).min(BURST_REPLICAS);
    if surplus == 0 {
        Scale::Nothing
    } else {
        Scale::Delete(ranking::first_to_go(active, related, surplus, now))
    }
}

/// The pod to create, as often as needed: the server makes the name. `resource` is what the set is to the API.
pub fn pod_from_template(resource: &ResourceId, set: &ReplicaSet) -> Value {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).cloned().unwrap_or_default();
    let prefix = format!("{}-", name(&set.metadata));
    pod_template::pod_from_template(&template, &prefix, &controller_reference(resource, &set.metadata))
}

/// Sizes of the batches in which `count` creations are tried: 1, 2, 4, ... so that a request that always fails fails once
/// and not a thousand times.
pub fn slow_start_batches(count: usize) -> impl Iterator<Item = usize> {
    let (mut left, mut next) = (count, 1);
    std::iter::from_fn(move || {
        let size = next.min(left);
        left -= size;
        next *= 2;
        (size > 0).then_some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::REPLICA_SETS;
    use crate::expectations::Expectations;
    use crate::test_objects::{pod, replica_set};
    use proptest::prelude::*;
    use std::time::Duration;

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|n| Arc::new(pod(&format!("p{n}"), "Running", true, "n1"))).collect()
    }

    #[test]
    fn batches_double_and_add_up() {
        assert_eq!(slow_start_batches(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
        assert_eq!(slow_start_batches(0).count(), 0);
    }

    #[test]
    fn ended_and_terminating_pods_are_replaced() {
        let mut owned = pods(3);
        Arc::make_mut(&mut owned[0]).metadata.deletion_timestamp =
            Some(crate::object_meta::seconds(jiff::Timestamp::UNIX_EPOCH));
        owned.push(Arc::new(pod("failed", "Failed", false, "n1")));
        let plan = plan(&replica_set("web-1", "web", 4), &owned, &[], jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(plan, Scale::Create(2)), "{plan:?}");
    }

    #[test]
    fn a_set_that_is_being_deleted_does_nothing() {
        let mut set = replica_set("web-1", "web", 4);
        set.metadata.deletion_timestamp = Some(crate::object_meta::seconds(jiff::Timestamp::UNIX_EPOCH));
        assert!(matches!(plan(&set, &[], &[], jiff::Timestamp::UNIX_EPOCH), Scale::Nothing));
    }

    #[test]
    fn the_pod_takes_the_templates_metadata_and_its_owner() {
        let pod = pod_from_template(&REPLICA_SETS, &replica_set("web-1", "web", 1));
        assert_eq!(pod["metadata"]["generateName"], "web-1-");
        assert_eq!(pod["metadata"]["labels"]["app"], "web");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], true);
        assert!(pod["spec"]["containers"].is_array());
    }

    proptest! {
        /// The server creates what it is asked for; the watch shows it late and in any portion. However often the
        /// controller looks meanwhile, there are never more pods than asked for.
        #[test]
        fn a_stale_watch_never_over_creates(
            wanted in 1i32..40,
            steps in prop::collection::vec((any::<bool>(), 1usize..5), 1..120),
        ) {
            let set = replica_set("web-1", "web", wanted);
            let (mut server, mut seen) = (0usize, 0usize);
            let mut expectations = Expectations::new();
            let now = Duration::from_secs(1);
            for (deliver, amount) in steps {
                if deliver {
                    let arriving = amount.min(server - seen);
                    seen += arriving;
                    expectations.created("k", arriving);
                } else if expectations.satisfied("k", now)
                    && let Scale::Create(count) = plan(&set, &pods(seen), &[], jiff::Timestamp::UNIX_EPOCH)
                {
                    expectations.expect("k", count, [], now);
                    // Every third creation fails and is given back at once.
                    let failed = count / 3;
                    expectations.created("k", failed);
                    server += count - failed;
                }
                prop_assert!(server <= wanted as usize, "{server} pods for {wanted}");
            }
        }
    }
}
