//! Jobs: defaults, the selector that every Job gets, and what may change.

use serde_json::{Map, Value, json};

use super::access::{
    boolean, default_text, default_to, each_mut, integer, items, map, present, remove, same, set, struct_mut,
    text,
};
use super::{job_spec, label_selector, object_meta, pod_spec_defaults, pod_template};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::selector::LabelSelector;

const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same labels under their first names, which pods still get.
const LEGACY_JOB_NAME: &str = "job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        let parallel = present(spec, "parallelism").is_some();
        if present(spec, "completions").is_none() && !parallel {
            set(spec, "completions", 1);
        }
        default_to(spec, "parallelism", 1);
        let limit = if present(spec, "backoffLimitPerIndex").is_some() { i64::from(i32::MAX) } else { 6 };
        default_to(spec, "backoffLimit", limit);
        default_to(spec, "completionMode", "NonIndexed");
        default_to(spec, "suspend", false);
        default_to(spec, "manualSelector", false);
        if let Some(policy) = spec.get_mut("podFailurePolicy") {
            each_mut(policy, "rules", |rule| {
                each_mut(rule, "onPodConditions", |pattern| default_text(pattern, "status", "True"));
            });
        }
        let replacement =
            if present(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
        default_to(spec, "podReplacementPolicy", replacement);
        pod_spec_defaults::default_template(spec);
    }
    // A new Job's labels wait for those that the template is given with the selector.
    if crate::meta::get(object, &["spec", "selector"]).is_some_and(Value::is_object) {
        take_over_labels(object);
    }
    struct_mut(object, "status");
}

/// A Job without labels has those of its pods.
fn take_over_labels(object: &mut Value) {
    let labels = crate::meta::get(object, &["spec", "template", "metadata", "labels"]).cloned();
    let own = crate::meta::labels(object).is_some_and(|labels| !labels.is_empty());
    if let (false, Some(labels), Some(metadata)) = (own, labels, struct_mut(object, "metadata")) {
        set(metadata, "labels", labels);
    }
}

/// What a new Job's status is.
pub fn initial_status() -> Value {
    json!({})
}

/// Gives a new Job a selector that no other has, and its pods the labels for it, unless the client wants to choose.
pub fn generate_selector(new: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let identity = |field: &str| {
        let value = crate::meta::get(new, &["metadata", field]).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let (name, uid) = (identity("name"), identity("uid"));
    if let Some(spec) = struct_mut(new, "spec")
        && !boolean(spec, "manualSelector")
    {
        let template = struct_mut(spec, "template").and_then(|template| struct_mut(template, "metadata"));
        if let Some(labels) = template.and_then(|metadata| struct_mut(metadata, "labels")) {
            for (key, value) in [
                (LEGACY_JOB_NAME, &name),
                (JOB_NAME, &name),
                (LEGACY_CONTROLLER_UID, &uid),
                (CONTROLLER_UID, &uid),
            ] {
                default_to(labels, key, value.as_str());
            }
        }
        let selector = struct_mut(spec, "selector");
        if let Some(labels) = selector.and_then(|selector| struct_mut(selector, "matchLabels")) {
            default_to(labels, CONTROLLER_UID, uid);
        }
    }
    take_over_labels(new);
}

/// Everything wrong with a new Job.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    whole(object, true, &mut errors);
    errors
}

/// What is wrong with all but the metadata. `prefixed` asks for the labels' new names too.
fn whole(object: &Value, prefixed: bool, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let job = object.get("spec").unwrap_or(&none);
    generated_selector(object, job, prefixed, errors);
    job_spec::validate(job, &path, errors);
    let at = path.child("selector");
    match present(job, "selector") {
        None => errors.push(field::required(at, "")),
        Some(selector) => label_selector::validate(selector, &at, errors),
    }
    let template = job.get("template").unwrap_or(&none);
    pod_template::check_selected(job.get("selector"), template, &path.child("template"), errors);
    let last = integer(job, "completions").unwrap_or_default() - 1;
    if text(job, "completionMode") == "Indexed" && last >= 0 {
        let name = crate::meta::name(object);
        let host = format!("{name}-{last}");
        if !names::dns1123_label(&host).is_empty() {
            errors.push(field::invalid(
                "metadata.name",
                name,
                format!("will not able to create pod with invalid DNS label: {host}"),
            ));
        }
    }
}

fn generated_selector(object: &Value, spec: &Value, prefixed: bool, errors: &mut Vec<FieldError>) {
    let Some(selector) = present(spec, "selector").filter(|_| !boolean(spec, "manualSelector")) else {
        return;
    };
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let (name, uid) = (text(metadata, "name"), text(metadata, "uid"));
    if uid.is_empty() {
        errors.push(field::required("metadata.uid", ""));
    }
    let mut expected = vec![(LEGACY_CONTROLLER_UID, uid), (LEGACY_JOB_NAME, name)];
    if prefixed {
        expected.extend([(CONTROLLER_UID, uid), (JOB_NAME, name)]);
    }
    let labels = crate::meta::get(spec, &["template", "metadata", "labels"]);
    for (key, value) in &expected {
        let at = format!("spec.template.metadata.labels[{key}]");
        let problem = format!("must be '{value}'");
        match labels.and_then(|labels| labels.get(key)).and_then(Value::as_str) {
            None => errors.push(field::required(at, problem)),
            Some(found) if found != *value => {
                errors.push(field::invalid(at, labels.cloned().unwrap_or(Value::Null), problem));
            }
            Some(_) => {}
        }
    }
    let expected: Map<String, Value> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    if LabelSelector::from_object(selector).is_ok_and(|selector| !selector.matches(Some(&expected))) {
        errors.push(field::invalid("spec.selector", selector.clone(), "`selector` not auto-generated"));
    }
}

/// Everything wrong with a changed Job.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let labelled = |key: &str| crate::meta::get(before, &["template", "metadata", "labels", key]).is_some();
    whole(new, labelled(JOB_NAME) && labelled(CONTROLLER_UID), &mut errors);
    completions(spec, before, &path, &mut errors);
    let mut fixed = |name: &str, new: Option<&Value>, old: Option<&Value>| {
        object_meta::check_immutable(new, old, &path.child(name), &mut errors);
    };
    fixed("selector", spec.get("selector"), before.get("selector"));
    let template = before.get("template").map(|template| {
        // A Job that waits to start may still be told where.
        let waiting = boolean(before, "suspend")
            && crate::meta::get(old, &["status", "startTime"]).is_none_or(Value::is_null);
        if waiting { with_scheduling_of(template, spec.get("template")) } else { template.clone() }
    });
    fixed("template", spec.get("template"), template.as_ref());
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        fixed(name, spec.get(name), before.get(name));
    }
    errors
}

/// Completions are fixed, but for indexed Jobs that scale with their parallelism.
fn completions(spec: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (new, old) = (spec.get("completions"), before.get("completions"));
    if text(spec, "completionMode") != "Indexed" {
        object_meta::check_immutable(new, old, &path.child("completions"), errors);
    } else if !same(new, old)
        && let Some(completions) = integer(spec, "completions")
        && Some(completions) != integer(spec, "parallelism")
    {
        errors.push(field::invalid(
            path.child("completions"),
            completions,
            "can only be modified in tandem with spec.parallelism",
        ));
    }
}

/// The old template with what the new one says about where its pods may run.
fn with_scheduling_of(old: &Value, new: Option<&Value>) -> Value {
    let mut template = old.clone();
    let none = Value::Null;
    let new = new.unwrap_or(&none);
    let take = |from: &Value, to: &mut Value, name: &str| match present(from, name) {
        Some(value) => set(to, name, value.clone()),
        None => {
            remove(to, name);
        }
    };
    if let Some(metadata) = struct_mut(&mut template, "metadata") {
        let from = new.get("metadata").unwrap_or(&none);
        take(from, metadata, "labels");
        take(from, metadata, "annotations");
    }
    if let Some(spec) = struct_mut(&mut template, "spec") {
        let from = new.get("spec").unwrap_or(&none);
        for name in ["nodeSelector", "tolerations", "schedulingGates"] {
            take(from, spec, name);
        }
        let wanted = from.get("affinity").unwrap_or(&none);
        if let Some(affinity) = struct_mut(spec, "affinity") {
            take(wanted, affinity, "nodeAffinity");
        }
        if map(spec, "affinity").is_some_and(Map::is_empty) && present(from, "affinity").is_none() {
            remove(spec, "affinity");
        }
    }
    template
}

/// What a client should know about a Job's name and spec.
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let generation = |object: &Value| crate::meta::generation(object);
    let mut warnings = Vec::new();
    match old {
        None => warnings.extend(name_warning(crate::meta::name(new))),
        Some(old) if generation(old) == generation(new) => return warnings,
        Some(_) => {}
    }
    let none = Value::Null;
    warnings.extend(job_spec::warning(new.get("spec").unwrap_or(&none), "spec"));
    warnings
}

/// Pods' host names come from the name.
pub fn name_warning(name: &str) -> Option<String> {
    let problems = names::dns1123_label(name);
    (!problems.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        )
    })
}

/// Whether a Job's status has a condition.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let status = object.get("status").unwrap_or(&Value::Null);
    items(status, "conditions")
        .iter()
        .any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn a_job() -> Value {
        let mut object = json!({
            "metadata": {"name": "pi", "namespace": "default", "uid": "u1"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}
        });
        default(&mut object);
        generate_selector(&mut object, None);
        object
    }

    #[test]
    fn defaults_and_selector_are_those_that_clients_know() {
        let job = a_job();
        let spec = &job["spec"];
        assert_eq!(
            json!([
                spec["completions"],
                spec["parallelism"],
                spec["backoffLimit"],
                spec["completionMode"],
                spec["suspend"],
                spec["manualSelector"],
                spec["podReplacementPolicy"]
            ]),
            json!([1, 1, 6, "NonIndexed", false, false, "TerminatingOrFailed"])
        );
        assert_eq!(spec["selector"], json!({"matchLabels": {CONTROLLER_UID: "u1"}}));
        let labels = json!({CONTROLLER_UID: "u1", JOB_NAME: "pi", "controller-uid": "u1", "job-name": "pi"});
        assert_eq!(spec["template"]["metadata"]["labels"], labels);
        assert_eq!(job["metadata"]["labels"], labels);
        assert_eq!(texts(&validate(&job)), Vec::<String>::new());
    }

    #[test]
    fn pods_that_restart_for_ever_are_refused() {
        let mut job = a_job();
        job["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        assert_eq!(
            texts(&validate(&job)),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        let mut chosen = a_job();
        chosen["spec"]["template"]["metadata"]["labels"]["job-name"] = json!("other");
        assert!(
            texts(&validate(&chosen))[0]
                .starts_with("spec.template.metadata.labels[job-name]: Invalid value: {")
        );
    }

    #[test]
    fn indexed_jobs_have_their_own_limits() {
        let mut job = a_job();
        job["spec"]["completionMode"] = json!("Indexed");
        job["spec"]["completions"] = Value::Null;
        job["spec"]["backoffLimitPerIndex"] = json!(1);
        job["spec"]["maxFailedIndexes"] = json!(100_001);
        assert_eq!(
            texts(&validate(&job)),
            [
                "spec.maxFailedIndexes: Invalid value: 100001: must be less than or equal to 100000",
                "spec.completions: Required value: when completion mode is Indexed"
            ]
        );
        job["spec"]["completionMode"] = json!("NonIndexed");
        job["spec"]["completions"] = json!(1);
        assert_eq!(
            texts(&validate(&job)),
            [
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                "spec.maxFailedIndexes: Invalid value: 100001: requires indexed completion mode"
            ]
        );
    }

    #[test]
    fn a_jobs_template_is_fixed_unless_it_waits_to_start() {
        let old = a_job();
        let mut new = old.clone();
        new["spec"]["parallelism"] = json!(4);
        new["spec"]["suspend"] = json!(true);
        assert_eq!(texts(&validate_update(&new, &old)), Vec::<String>::new());
        let waiting = new.clone();
        let mut moved = new;
        moved["spec"]["template"]["spec"]["nodeSelector"] = json!({"zone": "a"});
        moved["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {}});
        assert_eq!(texts(&validate_update(&moved, &waiting)), Vec::<String>::new());
        assert!(
            texts(&validate_update(&moved, &old))[0].starts_with("spec.template: Invalid value: {"),
            "a running Job"
        );
        let mut more = old.clone();
        more["spec"]["completions"] = json!(2);
        assert_eq!(
            texts(&validate_update(&more, &old)),
            ["spec.completions: Invalid value: 2: field is immutable"]
        );
    }

    #[test]
    fn names_that_are_no_host_names_get_a_warning() {
        let mut job = a_job();
        assert!(warnings(&job, None).is_empty());
        job["metadata"]["name"] = json!("a.b");
        assert!(warnings(&job, None)[0].ends_with("a DNS label is recommended: [must not contain dots]"));
    }
}
