//! CronJobs.

use serde_json::{Value, json};

use super::access::{boolean, default_text, default_to, present, same, struct_mut, text};
use super::replica_set::not_negative;
use super::{cron_schedule, job, job_spec, object_meta, pod_spec_defaults};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Names of Jobs are made of the CronJob's and eleven characters more, and have at most 63.
const NAME_BYTES_MAX: usize = 52;
const ZONE_PART_BYTES_MAX: usize = 14;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_text(spec, "concurrencyPolicy", "Allow");
        default_to(spec, "suspend", false);
        default_to(spec, "successfulJobsHistoryLimit", 3);
        default_to(spec, "failedJobsHistoryLimit", 1);
        if let Some(template) = struct_mut(spec, "jobTemplate") {
            struct_mut(template, "metadata");
            if let Some(job) = struct_mut(template, "spec") {
                pod_spec_defaults::default_template(job);
            }
        }
    }
    struct_mut(object, "status");
}

/// What a new CronJob's status is.
pub fn initial_status() -> Value {
    json!({})
}

/// Everything wrong with a new CronJob.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    spec(object, None, &mut errors);
    let name = crate::meta::name(object);
    if name.len() > NAME_BYTES_MAX {
        errors.push(field::invalid(
            "metadata.name",
            name,
            format!("must be no more than {NAME_BYTES_MAX} characters"),
        ));
    }
    errors
}

fn spec(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let before = old.map(|old| old.get("spec").unwrap_or(&none));
    schedule(spec, before, &path.child("schedule"), errors);
    not_negative(spec, "startingDeadlineSeconds", &path, errors);
    if before.is_none_or(|before| !same(spec.get("timeZone"), before.get("timeZone"))) {
        time_zone(spec, &path.child("timeZone"), errors);
    }
    let at = path.child("concurrencyPolicy");
    match text(spec, "concurrencyPolicy") {
        "" => errors.push(field::required(at, "")),
        "Allow" | "Forbid" | "Replace" => {}
        other => errors.push(field::not_supported(at, other, &["Allow", "Forbid", "Replace"])),
    }
    let job = crate::meta::get(spec, &["jobTemplate", "spec"]).unwrap_or(&none);
    let at = path.child("jobTemplate").child("spec");
    job_spec::validate(job, &at, errors);
    if let Some(selector) = present(job, "selector") {
        errors.push(field::invalid(
            at.child("selector"),
            selector.clone(),
            "`selector` will be auto-generated",
        ));
    }
    if boolean(job, "manualSelector") {
        errors.push(field::not_supported(at.child("manualSelector"), true, &["nil", "false"]));
    }
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, name, &path, errors);
    }
}

fn schedule(spec: &Value, before: Option<&Value>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    if let Err(problem) = cron_schedule::check(schedule) {
        errors.push(field::invalid(path, schedule, problem));
    }
    if !schedule.contains("TZ") {
        return;
    }
    // Those who had a zone in the schedule before that was refused may keep it.
    let had = before.is_some_and(|before| text(before, "schedule").contains("TZ"));
    if !had {
        errors.push(field::invalid(
            path,
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    } else if present(spec, "timeZone").is_some() {
        errors.push(field::invalid(
            path,
            schedule,
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        ));
    }
}

fn time_zone(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(zone) = present(spec, "timeZone").and_then(Value::as_str) else { return };
    if zone.is_empty() {
        errors.push(field::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let fits = |part: &str| {
        (1..=ZONE_PART_BYTES_MAX).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte))
    };
    let unknown = format!("unknown time zone {zone}");
    if !zone.split('/').all(fits) {
        errors.push(field::invalid(path, zone, unknown));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        errors.push(field::invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    }
    // `Local` itself can be looked up; it is just no answer.
    if zone != "Local" && !cron_schedule::is_known_zone(zone) {
        errors.push(field::invalid(path, zone, unknown));
    }
}

/// Everything wrong with a changed CronJob.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, Some(old), &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    object_meta::validate_update(new, old)
}

/// What a client should know about a CronJob's name, schedule and Jobs.
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    match old {
        None => warnings.extend(job::name_warning(crate::meta::name(new))),
        Some(old) if crate::meta::generation(old) == crate::meta::generation(new) => return warnings,
        Some(_) => {}
    }
    if let Some(spec) = crate::meta::get(new, &["spec", "jobTemplate", "spec"]) {
        warnings.extend(job_spec::warning(spec, "spec.jobTemplate.spec"));
    }
    let schedule = crate::meta::get(new, &["spec", "schedule"]).and_then(Value::as_str).unwrap_or_default();
    if schedule.contains("TZ") {
        warnings.push(
            "cannot use TZ or CRON_TZ in spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones for more details"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn a_cron_job() -> Value {
        let mut object = json!({
            "metadata": {"name": "backup", "namespace": "default"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "OnFailure",
                "containers": [{"name": "c", "image": "i:1"}]}}}}}
        });
        default(&mut object);
        object
    }

    #[test]
    fn defaults_are_those_that_clients_know() {
        let object = a_cron_job();
        let spec = &object["spec"];
        assert_eq!(
            json!([
                spec["concurrencyPolicy"],
                spec["suspend"],
                spec["successfulJobsHistoryLimit"],
                spec["failedJobsHistoryLimit"]
            ]),
            json!(["Allow", false, 3, 1])
        );
        let job = &spec["jobTemplate"]["spec"];
        assert!(job.get("backoffLimit").is_none(), "the Job gets its defaults when it is made");
        assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(texts(&validate(&object)), Vec::<String>::new());
    }

    #[test]
    fn schedules_zones_and_names_are_checked() {
        let mut object = a_cron_job();
        object["metadata"]["name"] = json!("x".repeat(53));
        object["spec"]["schedule"] = json!("TZ=UTC 0 0 * *");
        object["spec"]["timeZone"] = json!("local");
        object["spec"]["jobTemplate"]["spec"]["manualSelector"] = json!(true);
        let name = "x".repeat(53);
        assert_eq!(
            texts(&validate(&object)),
            [
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * *\": expected exactly 5 fields, found 4: [0 0 * *]",
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"false\", \"nil\"",
                &format!("metadata.name: Invalid value: \"{name}\": must be no more than 52 characters"),
            ]
        );
    }

    #[test]
    fn zones_of_the_database_are_taken() {
        for (zone, problem) in [
            ("Europe/Berlin", None),
            ("UTC", None),
            ("Etc/GMT+5", None),
            ("europe/berlin", Some("unknown time zone europe/berlin")),
            ("Mars/Olympus", Some("unknown time zone Mars/Olympus")),
            ("../etc", Some("unknown time zone ../etc")),
        ] {
            let mut object = a_cron_job();
            object["spec"]["timeZone"] = json!(zone);
            let expected: Vec<String> = problem
                .map(|problem| format!("spec.timeZone: Invalid value: \"{zone}\": {problem}"))
                .into_iter()
                .collect();
            assert_eq!(texts(&validate(&object)), expected);
        }
    }
}
