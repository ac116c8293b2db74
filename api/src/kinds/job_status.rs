//! What may be said about a Job in its status, and how that may change. Rules about a field hold only when the field changes, so that a status
//! which older rules let pass does not block the rest.

use std::collections::BTreeSet;

use serde_json::Value;

use super::access::{boolean, integer, items, present, same, text};
use super::job::has_condition;
use super::replica_set::not_negative;
use super::{job_indexes, object_meta};
use crate::field::{self, FieldError, FieldPath};

/// The Job before and after, and what is asked about both.
struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
    spec: &'a Value,
    status: &'a Value,
    before: &'a Value,
}

impl Change<'_> {
    fn has(&self, condition: &str) -> bool {
        has_condition(self.new, condition)
    }

    fn had(&self, condition: &str) -> bool {
        has_condition(self.old, condition)
    }

    fn condition_changed(&self, condition: &str) -> bool {
        self.has(condition) != self.had(condition)
    }

    fn is_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    fn finished_changed(&self) -> bool {
        self.is_finished() != (self.had("Complete") || self.had("Failed"))
    }

    /// A missing count is 0.
    fn changed(&self, field: &str) -> bool {
        let value = |status: &Value| status.get(field).filter(|value| value.as_i64() != Some(0)).cloned();
        !same(value(self.status).as_ref(), value(self.before).as_ref())
    }

    fn number(&self, field: &str) -> i64 {
        integer(self.status, field).unwrap_or_default()
    }
}

/// Everything wrong with a changed status.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let none = Value::Null;
    let change = Change {
        new,
        old,
        spec: new.get("spec").unwrap_or(&none),
        status: new.get("status").unwrap_or(&none),
        before: old.get("status").unwrap_or(&none),
    };
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        not_negative(change.status, name, &path, &mut errors);
    }
    uncounted(&change, &path, &mut errors);
    conditions(&change, &mut errors);
    times(&change, &path, &mut errors);
    finished(&change, &path, &mut errors);
    indexes(&change, &path, &mut errors);
    transitions(&change, &path, &mut errors);
    errors
}

fn uncounted(change: &Change<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(pods) = present(change.status, "uncountedTerminatedPods") else { return };
    let at = path.child("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for (index, uid) in items(pods, list).iter().enumerate() {
            let (at, uid) = (at.child(list).index(index), uid.as_str().unwrap_or_default());
            if uid.is_empty() {
                errors.push(field::invalid(at, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(field::duplicate(at, uid));
            }
        }
    }
}

/// Conditions that exclude or need each other.
fn conditions(change: &Change<'_>, errors: &mut Vec<FieldError>) {
    let changed = |one, other| change.condition_changed(one) || change.condition_changed(other);
    let (complete, failed) = (change.has("Complete"), change.has("Failed"));
    let (target, met) = (change.has("FailureTarget"), change.has("SuccessCriteriaMet"));
    let policy = present(change.spec, "successPolicy").is_some();
    for (broken, problem) in [
        (
            changed("Complete", "Failed") && complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            changed("Complete", "FailureTarget") && complete && target,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            changed("Failed", "FailureTarget") && failed && !target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            changed("Complete", "SuccessCriteriaMet") && complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            policy && !met && complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if broken {
            errors.push(field::invalid_state("status.conditions", problem));
        }
    }
}

fn times(change: &Change<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("completionTime");
    let completion = present(change.status, "completionTime");
    let start = present(change.status, "startTime");
    if change.condition_changed("Complete") || change.changed("completionTime") {
        match completion {
            Some(time) if !change.has("Complete") => errors.push(field::invalid(
                &at,
                time.clone(),
                "cannot set completionTime when there is no Complete=True condition",
            )),
            None if change.has("Complete") => {
                errors.push(field::required(&at, "completionTime is required for Complete jobs"));
            }
            _ => {}
        }
    }
    if change.changed("startTime") || change.changed("completionTime") {
        let time = |value: Option<&Value>| value.and_then(Value::as_str).and_then(crate::meta::parse_time);
        if let (Some(from), Some(to), Some(shown)) = (time(start), time(completion), completion)
            && to < from
        {
            errors.push(field::invalid(at, shown.clone(), "completionTime cannot be set before startTime"));
        }
    }
}

/// What a Job that is done has nothing of any more.
fn finished(change: &Change<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let applies = |field: &str| change.is_finished() && (change.finished_changed() || change.changed(field));
    for name in ["active", "terminating"] {
        if applies(name) && change.number(name) > 0 {
            let problem = format!("{name}>0 is invalid for finished job");
            errors.push(field::invalid(path.child(name), change.number(name), problem));
        }
    }
    if applies("startTime") && present(change.status, "startTime").is_none() {
        errors.push(field::required(path.child("startTime"), "startTime is required for finished job"));
    }
    if applies("uncountedTerminatedPods")
        && let Some(pods) = present(change.status, "uncountedTerminatedPods")
        && ["failed", "succeeded"].iter().any(|list| !items(pods, list).is_empty())
    {
        errors.push(field::invalid(
            path.child("uncountedTerminatedPods"),
            pods.clone(),
            "uncountedTerminatedPods needs to be empty for finished job",
        ));
    }
    let ready = change.number("ready");
    if (change.changed("ready") || change.changed("active")) && ready > change.number("active") {
        errors.push(field::invalid(path.child("ready"), ready, "cannot set more ready pods than active"));
    }
}

fn indexes(change: &Change<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (completed, failed) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let done = text(change.status, "completedIndexes");
    let lost = present(change.status, "failedIndexes").and_then(Value::as_str);
    let completions = integer(change.spec, "completions");
    let per_index = present(change.spec, "backoffLimitPerIndex").is_some();
    let (done_changed, lost_changed) = (change.changed("completedIndexes"), change.changed("failedIndexes"));
    let mut parse = |text: &str, name: &str, at: &FieldPath| {
        if let Some(problem) = completions.and_then(|most| job_indexes::parse(text, most).err()) {
            errors.push(field::invalid(at, text, format!("error parsing {name}: {problem}")));
        }
    };
    if done_changed {
        parse(done, "completedIndexes", &completed);
    }
    if let Some(lost) = lost.filter(|_| lost_changed && per_index) {
        parse(lost, "failedIndexes", &failed);
    }
    if done_changed && !done.is_empty() && text(change.spec, "completionMode") != "Indexed" {
        errors.push(field::invalid(
            completed,
            done,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        ));
    }
    let Some(lost) = lost else { return };
    if lost_changed && !per_index {
        errors.push(field::invalid(
            &failed,
            lost,
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ));
    }
    if (done_changed || lost_changed)
        && let Some(index) = completions.and_then(|most| job_indexes::overlap(done, lost, most))
    {
        errors.push(field::invalid(
            failed,
            lost,
            format!("failedIndexes and completedIndexes overlap at index: {index}"),
        ));
    }
}

/// What may not be taken back.
fn transitions(change: &Change<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if change.had(condition) && !change.has(condition) {
            errors.push(field::invalid_state(
                path.child("conditions"),
                format!("cannot disable the terminal {condition}=True condition"),
            ));
        }
    }
    let elastic = text(change.spec, "completionMode") == "Indexed"
        && integer(change.spec, "completions") == integer(change.spec, "parallelism");
    for (name, fixed) in [("failed", true), ("succeeded", !elastic)] {
        if fixed && change.number(name) < integer(change.before, name).unwrap_or_default() {
            let problem = format!("cannot decrease the {name} counter");
            errors.push(field::invalid(path.child(name), change.number(name), problem));
        }
    }
    if let (Some(new), Some(_)) =
        (present(change.status, "completionTime"), present(change.before, "completionTime"))
        && change.changed("completionTime")
    {
        errors.push(field::invalid(
            path.child("completionTime"),
            new.clone(),
            "completionTime cannot be mutated",
        ));
    }
    let resuming = change.had("Suspended") && !change.has("Suspended");
    if present(change.before, "startTime").is_some()
        && change.changed("startTime")
        && !boolean(change.spec, "suspend")
        && !resuming
    {
        errors.push(field::required(
            path.child("startTime"),
            "startTime cannot be removed for unsuspended job",
        ));
    }
    if change.had("SuccessCriteriaMet") && !change.has("SuccessCriteriaMet") {
        errors.push(field::invalid_state(
            path.child("conditions"),
            "cannot disable the SuccessCriteriaMet=True condition",
        ));
    }
    if change.had("Complete") && !change.had("SuccessCriteriaMet") && change.has("SuccessCriteriaMet") {
        errors.push(field::invalid_state(
            path.child("conditions"),
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(status: Value) -> Value {
        json!({"metadata": {"name": "pi", "namespace": "default"},
            "spec": {"completions": 3, "parallelism": 1, "completionMode": "Indexed"}, "status": status})
    }

    fn texts(new: Value, old: Value) -> Vec<String> {
        validate_update(&job(new), &job(old)).iter().map(ToString::to_string).collect()
    }

    fn conditions(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    }

    #[test]
    fn a_job_runs_and_completes() {
        let started = json!({"startTime": "2026-01-01T00:00:00Z", "active": 1, "ready": 1});
        assert_eq!(texts(started.clone(), json!({})), Vec::<String>::new());
        let done = json!({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
            "succeeded": 3, "completedIndexes": "0-2", "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
        assert_eq!(texts(done.clone(), started), Vec::<String>::new());
        assert_eq!(
            texts(json!({"startTime": "2026-01-01T00:00:00Z", "succeeded": 2}), done),
            [
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.succeeded: Invalid value: 2: cannot decrease the succeeded counter",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ]
        );
    }

    #[test]
    fn only_a_job_that_resumes_starts_anew() {
        let running = |start: &str, suspended: &str| json!({"startTime": start, "conditions": [{"type": "Suspended", "status": suspended}]});
        let (before, after) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!(texts(running(after, "False"), running(before, "True")), Vec::<String>::new());
        assert_eq!(
            texts(running(after, "False"), running(before, "False")),
            ["status.startTime: Required value: startTime cannot be removed for unsuspended job"]
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert_eq!(
            texts(json!({"conditions": conditions(&["Complete"]), "active": 2}), json!({})),
            [
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.active: Invalid value: 2: active>0 is invalid for finished job",
                "status.startTime: Required value: startTime is required for finished job",
            ]
        );
        assert_eq!(
            texts(json!({"completedIndexes": "0,1", "failedIndexes": "1", "ready": 1}), json!({})),
            [
                "status.ready: Invalid value: 1: cannot set more ready pods than active",
                "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
                "status.failedIndexes: Invalid value: \"1\": failedIndexes and completedIndexes overlap at index: 1",
            ]
        );
        assert_eq!(
            texts(json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}), json!({})),
            [
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty",
            ]
        );
    }
}
