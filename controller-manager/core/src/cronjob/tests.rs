//! Tables: what a look at a CronJob decides at a time.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut object = json!({
        "metadata": { "name": "tick", "namespace": "default", "uid": "uid-tick", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "schedule": "0 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": { "app": "tick" } }, "spec": { "template": {} } } },
        "status": status,
    });
    for (key, value) in spec.as_object().expect("object") {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).expect("CronJob")
}

fn job(name: &str, ended: Option<&str>, started: &str) -> Arc<Job> {
    let conditions: Vec<_> = ended.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
    let status =
        json!({ "conditions": conditions, "startTime": started, "completionTime": ended.map(|_| started) });
    let metadata = json!({ "name": name, "namespace": "default", "uid": format!("uid-{name}") });
    Arc::new(serde_json::from_value(json!({ "metadata": metadata, "status": status })).expect("Job"))
}

fn active(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({ "name": name, "namespace": "default", "uid": format!("uid-{name}") }))
        .collect()
}

fn look(cron_job: &CronJob, jobs: &[Arc<Job>], now: &str) -> Plan {
    let local = TimeZone::UTC;
    plan(&Observed { cron_job, jobs, missing: HashSet::new(), local: &local, now: at(now) }).expect("a spec")
}

fn reasons(plan: &Plan) -> Vec<&str> {
    let reason = |action: &Action| match action {
        Action::Event { reason, .. } => *reason,
        other => panic!("{other:?}"),
    };
    plan.events.iter().map(reason).collect()
}

fn deleted(plan: &Plan) -> Vec<String> {
    let target = |action: &Action| match action {
        Action::Delete { target, .. } => target.name.clone(),
        other => panic!("{other:?}"),
    };
    plan.delete.iter().map(target).collect()
}

#[test]
fn a_job_is_due_once_for_each_time() {
    let minute = at("2026-01-01T10:00:00Z").as_second() / 60;
    for (spec, status, now, due) in [
        (json!({}), json!({}), "2026-01-01T00:59:59Z", None),
        (json!({}), json!({}), "2026-01-01T10:00:00Z", Some(minute)),
        (json!({}), json!({}), "2026-01-01T10:59:00Z", Some(minute)),
        (json!({}), json!({ "lastScheduleTime": "2026-01-01T10:00:00Z" }), "2026-01-01T10:30:00Z", None),
        (json!({ "suspend": true }), json!({}), "2026-01-01T10:00:00Z", None),
        (json!({ "startingDeadlineSeconds": 60 }), json!({}), "2026-01-01T10:00:30Z", Some(minute)),
        (json!({ "startingDeadlineSeconds": 60 }), json!({}), "2026-01-01T10:02:00Z", None),
        (json!({ "timeZone": "Asia/Kolkata" }), json!({}), "2026-01-01T10:00:00Z", Some(minute - 30)),
    ] {
        let plan = look(&cron_job(spec.clone(), status.clone()), &[], now);
        let created = plan.create.as_ref().map(|due| due.name.clone());
        assert_eq!(created, due.map(|minute| format!("tick-{minute}")), "{spec} {status} {now}");
    }
}

#[test]
fn the_job_tells_its_time_and_owner() {
    let plan =
        look(&cron_job(json!({ "timeZone": "Europe/Berlin" }), json!({})), &[], "2026-01-01T10:00:00Z");
    let due = plan.create.expect("due");
    let meta = &due.object["metadata"];
    assert_eq!(meta["annotations"][SCHEDULED_AT], "2026-01-01T11:00:00+01:00");
    assert_eq!(
        (&meta["labels"]["app"], &meta["ownerReferences"][0]["kind"]),
        (&json!("tick"), &json!("CronJob"))
    );
    assert_eq!(plan.requeue_after, Some(Duration::from_millis(3_600_100)));
    let reference = ObjectReference { uid: Some("u".into()), ..ObjectReference::default() };
    let status = started(plan.status, reference, due.at);
    assert_eq!(
        (status.active.map(|all| all.len()), status.last_schedule_time),
        (Some(1), Some(Time(due.at)))
    );
}

#[test]
fn policies_decide_about_jobs_that_still_run() {
    let running = [job("tick-1", None, "2026-01-01T09:00:00Z")];
    for (policy, creates, gone, told) in [
        ("Allow", true, vec![], vec![]),
        ("Forbid", false, vec![], vec!["JobAlreadyActive"]),
        ("Replace", true, vec!["tick-1".to_owned()], vec![]),
    ] {
        let cron_job =
            cron_job(json!({ "concurrencyPolicy": policy }), json!({ "active": active(&["tick-1"]) }));
        let plan = look(&cron_job, &running, "2026-01-01T10:00:00Z");
        assert_eq!(
            (plan.create.is_some(), deleted(&plan), reasons(&plan)),
            (creates, gone, told),
            "{policy}"
        );
    }
}

#[test]
fn ended_jobs_leave_the_list_and_the_oldest_go() {
    let jobs = [
        job("a", Some("Complete"), "2026-01-01T01:00:00Z"),
        job("b", Some("Complete"), "2026-01-01T02:00:00Z"),
        job("c", Some("Failed"), "2026-01-01T03:00:00Z"),
        job("d", Some("Failed"), "2026-01-01T04:00:00Z"),
    ];
    let status = json!({ "active": active(&["b", "gone"]), "lastScheduleTime": "2026-01-01T10:00:00Z" });
    let cron_job = cron_job(json!({ "successfulJobsHistoryLimit": 1 }), status);
    let local = TimeZone::UTC;
    let missing = HashSet::from(["uid-gone".to_owned()]);
    let now = at("2026-01-01T10:30:00Z");
    let plan =
        plan(&Observed { cron_job: &cron_job, jobs: &jobs, missing, local: &local, now }).expect("a spec");
    assert_eq!(deleted(&plan), ["a", "c"]);
    assert_eq!(reasons(&plan), ["SawCompletedJob", "MissingJob"]);
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.last_successful_time, Some(Time(at("2026-01-01T02:00:00Z"))));
}

#[test]
fn what_is_wrong_is_told() {
    for (spec, now, told) in [
        (json!({ "schedule": "0 0 31 2 *" }), "2026-01-01T10:00:00Z", vec!["InvalidSchedule"]),
        (json!({ "schedule": "nonsense" }), "2026-01-01T10:00:00Z", vec!["UnparseableSchedule"]),
        (json!({ "timeZone": "Nowhere" }), "2026-01-01T10:00:00Z", vec!["UnknownTimeZone"]),
        (json!({ "schedule": "TZ=UTC 0 * * * *" }), "2026-01-01T00:30:00Z", vec!["UnsupportedSchedule"]),
        (json!({ "schedule": "* * * * *" }), "2026-01-01T10:00:00Z", vec!["TooManyMissedTimes"]),
        (json!({ "schedule": "* * * * *" }), "2026-01-01T01:00:00Z", vec![]),
    ] {
        assert_eq!(reasons(&look(&cron_job(spec.clone(), json!({})), &[], now)), told, "{spec}");
    }
    let unexpected = look(
        &cron_job(json!({}), json!({})),
        &[job("x", None, "2026-01-01T00:00:00Z")],
        "2026-01-01T00:30:00Z",
    );
    assert_eq!(reasons(&unexpected), ["UnexpectedJob"]);
}
