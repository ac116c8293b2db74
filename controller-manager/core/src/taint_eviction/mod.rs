//! When a pod has to leave a node with `NoExecute` taints: at once, after its tolerations' time, or never.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use serde_json::json;

use crate::action::{Action, PODS, Target};
use crate::object_meta::{name, namespace, object_reference, seconds};
use crate::status_report;

/// When the pod has to go; `None` for never. Counts from when the taints were added, so that a controller that starts
/// anew grants no second delay.
pub fn due(pod: &Pod, node: &Node, now: Timestamp) -> Option<Timestamp> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints: Vec<_> = taints.filter(|taint| taint.effect == "NoExecute").collect();
    if taints.is_empty() || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let tolerations: Vec<_> = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).collect();
    let mut first: Option<Timestamp> = None;
    for taint in taints {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Some(now);
        }
        let Some(limit) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let at = since.checked_add(SignedDuration::from_secs(limit.max(0))).unwrap_or(Timestamp::MAX);
        first = Some(first.map_or(at, |first| first.min(at)));
    }
    first
}

/// Whether the toleration covers the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// The steps that evict the pod.
pub fn evict(pod: &Pod, now: Timestamp) -> Vec<Action> {
    let meta = &pod.metadata;
    let target = Target::new(&PODS, namespace(meta), name(meta));
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByTaintManager".into()),
        message: Some("Taint manager: deleting due to NoExecute taint".into()),
        last_transition_time: Some(seconds(now)),
        ..Default::default()
    });
    vec![
        Action::Event {
            regarding: Box::new(object_reference(&PODS, meta)),
            warning: false,
            reason: "TaintManagerEviction",
            message: format!("Marking for deletion Pod {}/{}", namespace(meta), name(meta)),
        },
        status_report::patch(&PODS, meta, json!({ "conditions": conditions })),
        Action::Delete {
            target,
            uid: meta.uid.clone(),
            resource_version: None,
            propagation: None,
            grace_seconds: None,
        },
    ]
}

/// What is said when the node is back before the pod's time was up.
pub fn cancelled(pod: &Pod) -> Action {
    let meta = &pod.metadata;
    Action::Event {
        regarding: Box::new(object_reference(&PODS, meta)),
        warning: false,
        reason: "TaintManagerEviction",
        message: format!("Cancelling deletion of Pod {}/{}", namespace(meta), name(meta)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use k8s_openapi::api::core::v1::NodeSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    fn node(keys: &[&str]) -> Node {
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(100))),
            value: None,
        };
        Node {
            spec: Some(NodeSpec { taints: Some(keys.iter().map(taint).collect()), ..Default::default() }),
            ..Default::default()
        }
    }

    fn tolerant(tolerations: &[(&str, Option<i64>)]) -> Pod {
        let mut pod = pod("p", "Running", true, "n1");
        let toleration = |(key, limit): &(&str, Option<i64>)| Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            toleration_seconds: *limit,
            ..Default::default()
        };
        pod.spec.as_mut().expect("spec").tolerations = Some(tolerations.iter().map(toleration).collect());
        pod
    }

    #[test]
    fn pods_leave_at_once_later_or_never() {
        let now = at(150);
        assert_eq!(due(&tolerant(&[]), &node(&[]), now), None);
        assert_eq!(due(&tolerant(&[]), &node(&["x"]), now), Some(now));
        assert_eq!(due(&tolerant(&[("x", Some(300))]), &node(&["x"]), now), Some(at(400)));
        assert_eq!(due(&tolerant(&[("x", None)]), &node(&["x"]), now), None);
        assert_eq!(due(&tolerant(&[("x", None), ("y", Some(5))]), &node(&["x", "y"]), now), Some(at(105)));
        assert_eq!(due(&tolerant(&[("x", Some(300))]), &node(&["x", "y"]), now), Some(now));
    }
}
