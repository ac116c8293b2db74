//! The conditions of a Job: SuccessCriteriaMet and FailureTarget say how it will end while pods are still going, Complete
//! and Failed that it has ended. Owns reading and writing them.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};

use crate::object_meta::seconds;

/// The Job will be Complete.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The Job will be Failed.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The Job has succeeded.
pub const COMPLETE: &str = "Complete";
/// The Job has failed.
pub const FAILED: &str = "Failed";
/// The Job is suspended.
pub const SUSPENDED: &str = "Suspended";

/// A condition that is True since `now`.
pub fn new(kind: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: text(reason),
        message: text(message),
        last_probe_time: Some(seconds(now)),
        last_transition_time: Some(seconds(now)),
    }
}

/// The condition of this kind if it is True.
pub fn find_true<'a>(conditions: Option<&'a Vec<JobCondition>>, kind: &str) -> Option<&'a JobCondition> {
    conditions?.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// How the Job has ended (Complete or Failed), if it has.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref();
    find_true(conditions, COMPLETE).or_else(|| find_true(conditions, FAILED))
}

/// Adds or changes a condition and says whether that changed anything. A condition that is not there does not become False.
pub fn ensure(conditions: &mut Option<Vec<JobCondition>>, wanted: JobCondition) -> bool {
    let found = conditions.as_mut().and_then(|all| all.iter_mut().find(|c| c.type_ == wanted.type_));
    match found {
        Some(found) => {
            let same = found.status == wanted.status
                && found.reason == wanted.reason
                && found.message == wanted.message;
            if !same {
                *found = wanted;
            }
            !same
        }
        None if wanted.status == "False" => false,
        None => {
            conditions.get_or_insert_default().push(wanted);
            true
        }
    }
}
