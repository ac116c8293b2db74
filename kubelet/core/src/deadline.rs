//! `activeDeadlineSeconds`: how long a pod may be active on its node.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::pod_status::Waiting;
use crate::pod_view;

/// When the pod's time is up; `None` if it has no deadline. It counts from `started`, the status's `startTime`.
pub fn ends_at(pod: &Pod, started: Timestamp) -> Option<Timestamp> {
    let seconds = pod_view::spec(pod).active_deadline_seconds?;
    started.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// What the status says of a pod whose time is up.
pub fn exceeded() -> Waiting {
    Waiting {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_counts_from_the_start() {
        let pod = |spec: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({"spec": spec})).unwrap()
        };
        let start = Timestamp::from_second(100).unwrap();
        let limited = pod(serde_json::json!({"containers": [], "activeDeadlineSeconds": 30}));
        assert_eq!(ends_at(&limited, start), Some(Timestamp::from_second(130).unwrap()));
        assert_eq!(ends_at(&pod(serde_json::json!({"containers": []})), start), None);
    }
}
