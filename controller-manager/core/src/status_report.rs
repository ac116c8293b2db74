//! The writes by which controllers report: merge patches of an object's status, of exactly the version that was seen. Owns the form of the write,
//! never what is reported.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::action::{Action, ResourceId, Target};
use crate::merge_diff::merge_diff_of;
use crate::object_meta::{name, namespace, preconditions};

/// Changes the status of the version that `meta` shows.
pub fn patch(resource: &ResourceId, meta: &ObjectMeta, change: Value) -> Action {
    write(resource, meta, true, change)
}

/// Changes the status whatever the version is now: for a step after others of the same plan.
pub fn patch_any_version(resource: &ResourceId, meta: &ObjectMeta, change: Value) -> Action {
    write(resource, meta, false, change)
}

/// Makes the status `after`; none if it is that already.
pub fn report<T: Clone + Default + serde::Serialize>(
    resource: &ResourceId,
    meta: &ObjectMeta,
    before: Option<&T>,
    after: &T,
) -> Option<Action> {
    let change = merge_diff_of(&before.cloned().unwrap_or_default(), after)?;
    Some(patch(resource, meta, change))
}

fn write(resource: &ResourceId, meta: &ObjectMeta, exact: bool, change: Value) -> Action {
    Action::Patch {
        target: Target::new(resource, namespace(meta), name(meta)),
        subresource: "status",
        patch: json!({ "metadata": preconditions(meta, exact), "status": change }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::REPLICA_SETS;
    use k8s_openapi::api::apps::v1::ReplicaSetStatus;

    #[test]
    fn a_report_changes_what_differs_of_the_version_seen() {
        let meta = ObjectMeta {
            name: Some("web".into()),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            ..ObjectMeta::default()
        };
        let status =
            |replicas, ready| ReplicaSetStatus { replicas, ready_replicas: ready, ..Default::default() };
        let (before, after) = (status(2, Some(1)), status(2, None));
        assert_eq!(report(&REPLICA_SETS, &meta, Some(&before), &before), None);
        let Some(Action::Patch { patch, subresource: "status", .. }) =
            report(&REPLICA_SETS, &meta, Some(&before), &after)
        else {
            panic!("a write")
        };
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "u", "resourceVersion": "7" }, "status": { "readyReplicas": null } })
        );
        assert!(report(&REPLICA_SETS, &meta, None, &after).is_some(), "what is not there counts as empty");
    }
}
