//! The tables of Jobs and CronJobs.

use serde_json::Value;

use coracle_api::kinds::job::has_condition;
use coracle_api::meta::get;

use super::Context;
use super::cells::{NONE, age, containers, containers_at, list, name, number, selector, since, text, time};
use super::columns::{AGE, Column, NAME, number as count, text as column};
use super::duration::human;
use super::workloads::{CONTAINERS, IMAGES, SELECTOR};

pub(super) const JOB: &[Column] = &[
    NAME,
    column("Status", "State of the Job"),
    column("Completions", "Pods that succeeded, of all wanted"),
    column("Duration", "How long it took, or takes so far"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn job(object: &Value, context: &Context) -> Vec<Value> {
    let (names, images) = containers(object);
    let finished = time(object, &["status", "completionTime"]).unwrap_or(context.now);
    let duration = time(object, &["status", "startTime"])
        .map(|start| human(finished.as_second().saturating_sub(start.as_second())));
    vec![
        name(object),
        job_status(object).into(),
        completions(object).into(),
        duration.unwrap_or_default().into(),
        age(object, context),
        names,
        images,
        selector(object["spec"].get("selector")),
    ]
}

fn job_status(object: &Value) -> &'static str {
    let has = |condition| has_condition(object, condition);
    if let Some(ended) = ["Complete", "Failed"].into_iter().find(|condition| has(condition)) {
        return ended;
    }
    if !text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        return "Terminating";
    }
    let states = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    states.into_iter().find(|condition| has(condition)).unwrap_or("Running")
}

fn completions(object: &Value) -> String {
    let succeeded = number(object, &["status", "succeeded"]);
    if let Some(wanted) = get(object, &["spec", "completions"]).and_then(Value::as_i64) {
        return format!("{succeeded}/{wanted}");
    }
    match number(object, &["spec", "parallelism"]) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

pub(super) const CRON_JOB: &[Column] = &[
    NAME,
    column("Schedule", "When Jobs are made"),
    column("Timezone", "Time zone of the schedule"),
    column("Suspend", "Whether no Jobs are made for now"),
    count("Active", "Jobs that run"),
    column("Last Schedule", "How long ago the last Job was due"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn cron_job(object: &Value, context: &Context) -> Vec<Value> {
    let path = ["spec", "jobTemplate", "spec", "template", "spec", "containers"];
    let (names, images) = containers_at(object, &path);
    let suspend = match get(object, &["spec", "suspend"]).and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = time(object, &["status", "lastScheduleTime"])
        .map_or(NONE.to_owned(), |time| since(Some(time), context));
    let zone = get(object, &["spec", "timeZone"]).and_then(Value::as_str).unwrap_or(NONE);
    vec![
        name(object),
        text(object, &["spec", "schedule"]).into(),
        zone.into(),
        suspend.into(),
        (list(object, &["status", "active"]).len() as i64).into(),
        last.into(),
        age(object, context),
        names,
        images,
        selector(object["spec"]["jobTemplate"]["spec"].get("selector")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(now: &str) -> Context {
        Context { now: now.parse().expect("time") }
    }

    #[test]
    fn jobs_show_how_far_they_are_and_how_long_they_took() {
        let mut object = json!({"metadata": {"name": "pi", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"parallelism": 2, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
                "selector": {"matchLabels": {"a": "b"}}},
            "status": {"startTime": "2026-01-01T00:00:10Z", "succeeded": 1}});
        let context = at("2026-01-01T00:01:00Z");
        assert_eq!(
            Value::from(job(&object, &context)),
            json!(["pi", "Running", "1/1 of 2", "50s", "60s", "c", "i", "a=b"])
        );
        object["spec"]["completions"] = json!(3);
        object["status"]["completionTime"] = json!("2026-01-01T00:00:30Z");
        object["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        assert_eq!(job(&object, &context)[1..4], [json!("Complete"), json!("1/3"), json!("20s")]);
    }

    #[test]
    fn cron_jobs_show_when_they_ran() {
        let object = json!({"metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "@daily", "suspend": false, "jobTemplate": {"spec": {"template": {"spec": {"containers": [
                {"name": "c", "image": "i"}]}}}}}, "status": {"lastScheduleTime": "2026-01-01T00:00:30Z", "active": [{}]}});
        assert_eq!(
            Value::from(cron_job(&object, &at("2026-01-01T00:01:00Z"))),
            json!(["b", "@daily", "<none>", "False", 1, "30s", "60s", "c", "i", "<none>"])
        );
    }
}
