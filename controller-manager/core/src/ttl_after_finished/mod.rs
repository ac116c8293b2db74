//! The controller that deletes Jobs some time after they have ended (`ttlSecondsAfterFinished`). [`plan`] decides when.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use crate::action::{Action, JOBS, Propagation, Target};
use crate::job::conditions::finished;
use crate::object_meta::{name, namespace};

/// What to do about a Job.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// It stays.
    Nothing,
    /// It stays this much longer.
    Wait(Duration),
    /// It goes, unless it has been changed since: its time may have been extended.
    Delete(Action),
}

/// Decides.
pub fn plan(job: &Job, now: Timestamp) -> Plan {
    let lifetime = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let ended = finished(job).and_then(|end| end.last_transition_time.as_ref());
    let (Some(lifetime), Some(ended)) = (lifetime, ended) else { return Plan::Nothing };
    if job.metadata.deletion_timestamp.is_some() {
        return Plan::Nothing;
    }
    let expires =
        ended.0.saturating_add(SignedDuration::from_secs(lifetime.into())).unwrap_or(Timestamp::MAX);
    match Duration::try_from(expires.duration_since(now)) {
        Ok(left) if !left.is_zero() => Plan::Wait(left),
        _ => Plan::Delete(Action::Delete {
            target: Target::new(&JOBS, namespace(&job.metadata), name(&job.metadata)),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            propagation: Some(Propagation::Foreground),
            grace_seconds: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(lifetime: Option<i32>, ended: bool) -> Job {
        let status = if ended { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": { "name": "pi", "namespace": "default", "uid": "u", "resourceVersion": "7" },
            "spec": { "ttlSecondsAfterFinished": lifetime, "template": {} },
            "status": { "conditions": [
                { "type": "Complete", "status": status, "lastTransitionTime": "1970-01-01T00:01:40Z" }
            ] },
        }))
        .expect("job")
    }

    #[test]
    fn a_job_goes_when_its_time_after_the_end_is_over() {
        let at = |second| Timestamp::from_second(second).expect("valid");
        assert_eq!(plan(&job(None, true), at(9_999)), Plan::Nothing);
        assert_eq!(plan(&job(Some(30), false), at(9_999)), Plan::Nothing);
        assert_eq!(plan(&job(Some(30), true), at(110)), Plan::Wait(Duration::from_secs(20)));
        for (lifetime, now) in [(30, 130), (0, 100)] {
            let Plan::Delete(Action::Delete { uid, resource_version, propagation, .. }) =
                plan(&job(Some(lifetime), true), at(now))
            else {
                panic!("must go")
            };
            assert_eq!((uid.as_deref(), resource_version.as_deref()), (Some("u"), Some("7")));
            assert_eq!(propagation, Some(Propagation::Foreground));
        }
    }
}
