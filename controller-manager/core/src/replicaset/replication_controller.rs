//! ReplicationControllers as the ReplicaSets they came before: the same numbers, with a selector of labels alone. Never here: decisions.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The ReplicaSet that asks for the same.
pub fn as_replica_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().map(|spec| ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
        template: spec.template,
    });
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec,
        status: controller.status.clone().map(as_replica_set_status),
    }
}

fn as_replica_set_status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |condition: ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status,
        type_: condition.type_,
    };
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}

/// What of a ReplicaSet's report a ReplicationController has a field for.
pub fn reportable(status: ReplicaSetStatus) -> ReplicaSetStatus {
    ReplicaSetStatus { terminating_replicas: None, ..status }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ReplicationControllerSpec;

    use super::*;
    use crate::action::{Action, REPLICATION_CONTROLLERS};
    use crate::replicaset::status::{calculate, patch};
    use crate::replicaset::{Scale, plan};
    use crate::test_objects::{pod, replica_set};

    fn controller(replicas: i32) -> ReplicationController {
        let set = replica_set("web", "web", replicas);
        let spec = set.spec.unwrap_or_default();
        let spec = ReplicationControllerSpec {
            replicas: spec.replicas,
            selector: spec.selector.match_labels,
            template: spec.template,
            ..ReplicationControllerSpec::default()
        };
        ReplicationController { metadata: set.metadata, spec: Some(spec), status: None }
    }

    #[test]
    fn it_asks_for_as_many_pods() {
        let owned = vec![Arc::new(pod("a", "Running", true, "n1"))];
        let plan = plan(&as_replica_set(&controller(3)), &owned, &[], Timestamp::UNIX_EPOCH);
        assert!(matches!(plan, Scale::Create(2)), "{plan:?}");
    }

    #[test]
    fn what_was_reported_is_not_reported_again() {
        let owned = vec![Arc::new(pod("a", "Running", true, "n1"))];
        let mut controller = controller(1);
        let set = as_replica_set(&controller);
        let report = reportable(calculate(&set, &owned, None, Timestamp::UNIX_EPOCH));
        let Some(Action::Patch { target, patch: change, .. }) =
            patch(&REPLICATION_CONTROLLERS, &set, &report)
        else {
            panic!("must patch")
        };
        assert_eq!(target.resource.plural, "replicationcontrollers");
        controller.status = serde_json::from_value(change["status"].clone()).expect("a status");
        let set = as_replica_set(&controller);
        assert_eq!(patch(&REPLICATION_CONTROLLERS, &set, &report), None);
    }
}
