//! A Job counts each pod once: never more successes or failures than pods that ended so, never fewer than before, and no pod that succeeded loses its finalizer
//! before it is noted. It never has more pods at work than it may, and never two of one index.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::{Invariant, Step};
use crate::object::{controller_of_kind, generation, is_active, is_terminating, list, number, text, uid};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What is known of one Job.
#[derive(Default)]
struct Seen {
    succeeded: HashSet<String>,
    failed: HashSet<String>,
    indexes: BTreeSet<i64>,
    noted: HashSet<String>,
}

/// By the Job's uid.
#[derive(Default)]
pub struct Jobs(HashMap<String, Seen>);

fn index(pod: &Value) -> Option<i64> {
    pod["metadata"]["annotations"][INDEX].as_str()?.parse().ok()
}

fn is_tracked(pod: &Value) -> bool {
    list(pod, &["metadata", "finalizers"]).iter().any(|finalizer| finalizer == FINALIZER)
}

/// The numbers of a text such as `0-3,7`.
fn intervals(text: &str) -> BTreeSet<i64> {
    let bounds = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<i64>().ok()?..=last.parse::<i64>().ok()?)
    };
    text.split(',').filter_map(bounds).flatten().collect()
}

impl Invariant for Jobs {
    fn name(&self) -> &'static str {
        "JobsCountPodsOnce"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        match step.change.key.resource.as_str() {
            "jobs" => self.job(step),
            "pods" => self.pod(step),
            _ => Vec::new(),
        }
    }
}

impl Jobs {
    fn job(&mut self, step: &Step<'_>) -> Vec<String> {
        let Some(job) = step.new else {
            if let Some(old) = step.old {
                self.0.remove(uid(old));
            }
            return Vec::new();
        };
        let seen = self.0.entry(uid(job).to_owned()).or_default();
        let indexed = text(job, &["spec", "completionMode"]) == "Indexed";
        let mut found = Vec::new();
        for (field, ended) in [("succeeded", &seen.succeeded), ("failed", &seen.failed)] {
            let count = number(job, &["status", field]).unwrap_or(0);
            let before = step.old.and_then(|old| number(old, &["status", field])).unwrap_or(0);
            if count < before {
                found.push(format!("status.{field} went from {before} to {count}"));
            }
            let noted = list(job, &["status", "uncountedTerminatedPods", field]);
            seen.noted.extend(noted.iter().filter_map(Value::as_str).map(str::to_owned));
            let ended = if indexed && field == "succeeded" { seen.indexes.len() } else { ended.len() };
            let counted = usize::try_from(count).unwrap_or(0) + noted.len();
            if counted > ended {
                found.push(format!(
                    "status.{field} and what is noted come to {counted}, but only {ended} pods have {field}"
                ));
            }
        }
        let completed = intervals(text(job, &["status", "completedIndexes"]));
        let unknown: Vec<_> = completed.difference(&seen.indexes).map(ToString::to_string).collect();
        if indexed && !unknown.is_empty() {
            found.push(format!(
                "it counts indexes as completed of which no pod succeeded: {}",
                unknown.join(", ")
            ));
        }
        found
    }

    fn pod(&mut self, step: &Step<'_>) -> Vec<String> {
        let Some(pod) = step.new.or(step.old) else { return Vec::new() };
        let owner = controller_of_kind(pod, "Job").or_else(|| controller_of_kind(step.old?, "Job"));
        let Some(owner) = owner.map(str::to_owned) else { return Vec::new() };
        let seen = self.0.entry(owner.clone()).or_default();
        match text(pod, &["status", "phase"]) {
            "Succeeded" => {
                seen.succeeded.insert(uid(pod).to_owned());
                seen.indexes.extend(index(pod));
            }
            phase if phase == "Failed" || is_terminating(pod) || step.new.is_none() => {
                seen.failed.insert(uid(pod).to_owned());
            }
            _ => {}
        }
        let mut jobs = step.state.list("jobs", &step.change.key.namespace);
        let Some(job) = jobs.find(|job| uid(job) == owner) else { return Vec::new() };
        // Whoever changes a Job may make any of this so.
        if generation(job) > 1 || is_terminating(job) {
            return Vec::new();
        }
        if step.created().is_some() {
            return started(step, job, &owner, pod);
        }
        let freed = step.old.is_some_and(is_tracked) && !is_tracked(pod) && step.new.is_some();
        let ended = list(job, &["status", "conditions"]).iter().any(|condition| {
            condition["status"] == "True" && !matches!(text(condition, &["type"]), "Suspended")
        });
        let success = text(pod, &["status", "phase"]) == "Succeeded" && !is_terminating(pod);
        let indexed = text(job, &["spec", "completionMode"]) == "Indexed";
        if freed && success && !ended && !indexed && !seen.noted.contains(uid(pod)) {
            return vec![format!(
                "the pod with uid {} lost its finalizer before the Job noted its success",
                uid(pod)
            )];
        }
        Vec::new()
    }
}

fn started(step: &Step<'_>, job: &Value, owner: &str, pod: &Value) -> Vec<String> {
    let active: Vec<_> = step.state.controlled("pods", owner).filter(|pod| is_active(pod)).collect();
    let most = number(job, &["spec", "parallelism"]).unwrap_or(1);
    let mut found = Vec::new();
    if i64::try_from(active.len()).unwrap_or(i64::MAX) > most {
        found.push(format!("the pod is the {}th active one of its Job, which may have {most}", active.len()));
    }
    if let Some(own) = index(pod) {
        if active.iter().filter(|pod| index(pod) == Some(own)).count() > 1 {
            found.push(format!("another pod is at work on index {own}"));
        }
        if intervals(text(job, &["status", "completedIndexes"])).contains(&own) {
            found.push(format!("index {own} is completed already"));
        }
    }
    found
}
