//! The pods that a Job makes: the template with the tracking finalizer and, for an Indexed Job, the index in annotation,
//! label, environment, host name and name.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use serde_json::Value;

use super::failure_policy::verdict;
use super::pods::{index_failures, index_failures_ignored};
use super::{COMPLETION_INDEX, INDEX_FAILURE_COUNT, INDEX_IGNORED_FAILURE_COUNT, TRACKING_FINALIZER};
use crate::action::JOBS;
use crate::object_meta::{controller_reference, name};
use crate::pod_template::pod_from_template;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// What the server leaves of a generated name's prefix.
const PREFIX_LENGTH_MAX: usize = 58;

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

/// The start of an indexed pod's name. The index is never cut off.
fn name_prefix(job_name: &str, index: i32) -> String {
    let ending = format!("-{index}-");
    let room = PREFIX_LENGTH_MAX.saturating_sub(ending.len());
    format!("{}{ending}", job_name.get(..room).unwrap_or(job_name))
}

/// A pod without an index.
pub fn pod(job: &Job, spec: &JobSpec) -> Value {
    build(job, spec, None, None)
}

/// The pod of an index. With limits per index it takes over the failures of the pod that it replaces.
pub fn indexed_pod(job: &Job, spec: &JobSpec, index: i32, replaced: Option<&Pod>) -> Value {
    let failures = spec.backoff_limit_per_index.map(|_| {
        let Some(replaced) = replaced else { return (0, 0) };
        let (counted, ignored) = (index_failures(replaced), index_failures_ignored(replaced));
        if verdict(spec.pod_failure_policy.as_ref(), replaced).counts() {
            (counted.saturating_add(1), ignored)
        } else {
            (counted, ignored.saturating_add(1))
        }
    });
    build(job, spec, Some(index), failures)
}

fn build(job: &Job, spec: &JobSpec, index: Option<i32>, failures: Option<(i32, i32)>) -> Value {
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING_FINALIZER) {
        finalizers.push(TRACKING_FINALIZER.to_owned());
    }
    let job_name = name(&job.metadata);
    let mut prefix = format!("{job_name}-");
    if let Some(index) = index {
        prefix = name_prefix(job_name, index);
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
        if let Some((counted, ignored)) = failures {
            annotations.insert(INDEX_FAILURE_COUNT.to_owned(), counted.to_string());
            if ignored > 0 {
                annotations.insert(INDEX_IGNORED_FAILURE_COUNT.to_owned(), ignored.to_string());
            }
        }
        meta.labels.get_or_insert_default().insert(COMPLETION_INDEX.to_owned(), index.to_string());
        if let Some(pod_spec) = &mut template.spec {
            pod_spec.init_containers.iter_mut().flatten().for_each(add_index_variable);
            pod_spec.containers.iter_mut().for_each(add_index_variable);
            pod_spec.hostname = Some(format!("{job_name}-{index}"));
        }
    }
    pod_from_template(&template, &prefix, &controller_reference(&JOBS, &job.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_its_index() {
        assert_eq!(name_prefix("pi", 7), "pi-7-");
        let long = name_prefix(&"x".repeat(63), 1234);
        assert_eq!(long.len(), PREFIX_LENGTH_MAX);
        assert!(long.ends_with("x-1234-"), "{long}");
    }
}
