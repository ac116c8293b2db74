//! Tables: what one look at a Job decides.

use super::*;
use crate::test_objects::pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("valid")
}

pub(super) fn job(spec: Value, status: Value) -> Job {
    let mut job: Job = serde_json::from_value(json!({
        "metadata": { "name": "pi", "namespace": "default", "uid": "uid-pi", "resourceVersion": "1" },
        "spec": { "backoffLimit": 6, "parallelism": 1, "template": {
            "metadata": { "labels": { "job-name": "pi" } },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] },
        } },
        "status": status,
    }))
    .expect("job");
    let mut all = serde_json::to_value(&job.spec).expect("spec");
    for (key, value) in spec.as_object().expect("object") {
        all[key] = value.clone();
    }
    job.spec = serde_json::from_value(all).expect("spec");
    job
}

pub(super) fn tracked(name: &str, phase: &str, index: Option<i32>) -> Pod {
    let mut pod = pod(name, phase, phase == "Running", "n1");
    pod.metadata.finalizers = Some(vec![TRACKING_FINALIZER.to_owned()]);
    if let Some(index) = index {
        pod.metadata.annotations = Some([(COMPLETION_INDEX.to_owned(), index.to_string())].into());
    }
    pod
}

fn look(job: &Job, pods: Vec<Pod>, now: i64) -> Sync<'_> {
    begin(Observed {
        job,
        pods: pods.into_iter().map(Arc::new).collect(),
        satisfied: true,
        removing: HashSet::new(),
        backoff: Backoff::default(),
        now: at(now),
    })
    .expect("to be looked at")
}

/// Goes through all stages as if every call succeeded.
fn through(sync: &mut Sync<'_>) -> (JobStatus, Vec<String>) {
    let done = match sync.step() {
        PodStep::Nothing => Done::default(),
        PodStep::Create(new) => Done { created: new.len(), ..Done::default() },
        PodStep::Delete { pods, .. } => Done { deleted: pods.len(), ..Done::default() },
    };
    let counting = sync.count(done);
    let removed = counting.remove.iter().map(|pod| uid(&pod.metadata).to_owned()).collect();
    let last = sync.finish(&removed, false);
    let reasons = sync.take_notices().into_iter().map(|notice| notice.reason).collect();
    (last.or(counting.flush).unwrap_or_default(), reasons)
}

fn condition_types(status: &JobStatus) -> Vec<(&str, &str)> {
    let all = status.conditions.iter().flatten();
    all.map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap_or_default())).collect()
}

fn created_indexes(sync: &Sync<'_>) -> Vec<Option<i32>> {
    match sync.step() {
        PodStep::Create(new) => new.iter().map(|new| new.index).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn pods_are_made_up_to_parallelism_and_to_what_is_left() {
    for (spec, status, active, expected) in [
        (json!({ "parallelism": 3, "completions": 5 }), json!({}), 1, 2),
        (json!({ "parallelism": 3, "completions": 5 }), json!({ "succeeded": 4 }), 0, 1),
        (json!({ "parallelism": 3 }), json!({}), 0, 3),
        (json!({ "parallelism": 3 }), json!({ "succeeded": 1 }), 1, 0),
        (json!({ "parallelism": 0, "completions": 1 }), json!({}), 0, 0),
        (json!({ "parallelism": 2, "completions": 2, "suspend": true }), json!({}), 0, 0),
    ] {
        let job = job(spec.clone(), status);
        let pods = (0..active).map(|n| tracked(&format!("p{n}"), "Running", None)).collect();
        let sync = look(&job, pods, 0);
        assert_eq!(created_indexes(&sync).len(), expected, "{spec}");
    }
}

#[test]
fn surplus_pods_go_uncounted_and_before_any_is_made() {
    let job = job(json!({ "parallelism": 1, "completions": 3 }), json!({}));
    let pods = vec![tracked("a", "Running", None), tracked("b", "Pending", None)];
    let sync = look(&job, pods, 0);
    let PodStep::Delete { pods, counted: false } = sync.step() else { panic!("{:?}", sync.step()) };
    assert_eq!(pods[0].metadata.name.as_deref(), Some("b"), "the less advanced one");
}

#[test]
fn an_indexed_pod_carries_its_index_everywhere() {
    let job = job(
        json!({ "parallelism": 2, "completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1 }),
        json!({ "completedIndexes": "0" }),
    );
    let sync = look(&job, vec![], 0);
    let PodStep::Create(new) = sync.step() else { panic!("{:?}", sync.step()) };
    assert_eq!(new.iter().map(|new| new.index).collect::<Vec<_>>(), [Some(1), Some(2)]);
    let pod = &new[0].object;
    let meta = &pod["metadata"];
    assert_eq!(meta["generateName"], "pi-1-");
    assert_eq!(meta["annotations"], json!({ COMPLETION_INDEX: "1", INDEX_FAILURE_COUNT: "0" }));
    assert_eq!(meta["labels"], json!({ "job-name": "pi", COMPLETION_INDEX: "1" }));
    assert_eq!(meta["finalizers"], json!([TRACKING_FINALIZER]));
    assert_eq!(meta["ownerReferences"][0]["kind"], "Job");
    assert_eq!(pod["spec"]["hostname"], "pi-1");
    let variable = &pod["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(
        variable["valueFrom"]["fieldRef"]["fieldPath"],
        format!("metadata.labels['{COMPLETION_INDEX}']")
    );
}

#[test]
fn pods_with_wrong_or_doubled_indexes_go() {
    let job = job(json!({ "parallelism": 3, "completions": 3, "completionMode": "Indexed" }), json!({}));
    let pods = vec![
        tracked("ok", "Running", Some(0)),
        tracked("double", "Pending", Some(0)),
        tracked("high", "Running", Some(7)),
        tracked("none", "Running", None),
    ];
    let sync = look(&job, pods, 0);
    let PodStep::Delete { pods, counted: false } = sync.step() else { panic!("{:?}", sync.step()) };
    let mut names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    names.sort_unstable();
    assert_eq!(names, ["double", "high", "none"]);
}

#[test]
fn a_done_job_shows_first_how_it_will_end_and_then_that_it_has() {
    let job = job(json!({ "completions": 1 }), json!({ "startTime": "1970-01-01T00:00:00Z", "active": 1 }));
    let mut sync = look(&job, vec![tracked("a", "Succeeded", None)], 50);
    let counting = sync.count(Done::default());
    let first = counting.flush.expect("written before the finalizer goes");
    assert_eq!(condition_types(&first), [("SuccessCriteriaMet", "CompletionsReached")]);
    assert_eq!(
        first.uncounted_terminated_pods.as_ref().and_then(|noted| noted.succeeded.clone()),
        Some(vec!["uid-a".to_owned()])
    );
    assert_eq!(first.succeeded, None, "noted, not counted");
    let last = sync.finish(&HashSet::from(["uid-a".to_owned()]), false).expect("written");
    assert_eq!(
        condition_types(&last),
        [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
    );
    assert_eq!((last.succeeded, last.active), (Some(1), None));
    assert_eq!(last.completion_time, Some(Time(at(50))));
    assert_eq!(sync.take_notices()[0].reason, "Completed");
}

#[test]
fn a_finalizer_that_stays_keeps_the_job_open() {
    let job = job(json!({ "completions": 1 }), json!({}));
    let mut sync = look(&job, vec![tracked("a", "Succeeded", None)], 50);
    sync.count(Done::default());
    assert_eq!(sync.finish(&HashSet::new(), true), None);
    let mut sync = look(&job, vec![tracked("a", "Succeeded", None)], 50);
    sync.count(Done::default());
    assert_eq!(sync.finish(&HashSet::new(), false), None, "not counted while the finalizer is there");
}

#[test]
fn failures_beyond_the_limit_end_the_job_and_its_pods() {
    let spec = json!({ "parallelism": 2, "completions": 4, "backoffLimit": 1 });
    let job = job(spec, json!({ "failed": 1 }));
    let pods = vec![tracked("a", "Failed", None), tracked("b", "Running", None)];
    let mut sync = look(&job, pods, 50);
    let PodStep::Delete { pods, counted: true } = sync.step() else { panic!("{:?}", sync.step()) };
    assert_eq!(pods.len(), 1);
    let counting = sync.count(Done { deleted: 1, deleted_ready: 1, created: 0 });
    let first = counting.flush.expect("flush");
    assert_eq!(condition_types(&first), [("FailureTarget", "BackoffLimitExceeded")]);
    assert_eq!((first.ready, first.terminating), (Some(0), Some(1)));
    let removed = counting.remove.iter().map(|pod| uid(&pod.metadata).to_owned()).collect();
    let last = sync.finish(&removed, false).expect("counted");
    assert_eq!(last.failed, Some(3), "every pod that did not end by itself counts as failed");
    assert_eq!(condition_types(&last).len(), 1, "Failed only when no pod is terminating");
}

#[test]
fn the_end_waits_while_pods_may_be_unseen() {
    let job = job(json!({ "completions": 4, "backoffLimit": 0 }), json!({ "failed": 1 }));
    let mut sync = begin(Observed {
        job: &job,
        pods: vec![],
        satisfied: false,
        removing: HashSet::new(),
        backoff: Backoff::default(),
        now: at(0),
    })
    .expect("look");
    let (status, _) = through(&mut sync);
    assert_eq!(condition_types(&status), []);
}

#[test]
fn the_deadline_ends_the_job_and_is_looked_for_in_time() {
    let job = job(
        json!({ "completions": 1, "activeDeadlineSeconds": 30 }),
        json!({ "startTime": "1970-01-01T00:00:10Z" }),
    );
    assert_eq!(look(&job, vec![], 20).requeue_after(), Some(Duration::from_secs(20)));
    let mut sync = look(&job, vec![], 40);
    let (status, reasons) = through(&mut sync);
    assert_eq!(
        condition_types(&status),
        [("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")]
    );
    assert_eq!(reasons, ["DeadlineExceeded"]);
}

#[test]
fn suspending_takes_pods_away_and_resuming_starts_the_clock_anew() {
    let suspended =
        job(json!({ "completions": 1, "suspend": true }), json!({ "startTime": "1970-01-01T00:00:10Z" }));
    let mut sync = look(&suspended, vec![tracked("a", "Running", None)], 20);
    assert!(matches!(sync.step(), PodStep::Delete { counted: false, .. }));
    let (status, reasons) = through(&mut sync);
    assert_eq!(condition_types(&status), [("Suspended", "JobSuspended")]);
    assert_eq!(reasons, ["Suspended"]);
    let resumed =
        job(json!({ "completions": 1, "suspend": false }), serde_json::to_value(&status).expect("status"));
    let mut sync = look(&resumed, vec![], 99);
    let (status, reasons) = through(&mut sync);
    assert_eq!(reasons, ["Resumed"]);
    assert_eq!(status.conditions.as_ref().map(|all| all[0].status.as_str()), Some("False"));
    assert_eq!(status.start_time, Some(Time(at(99))));
}

#[test]
fn after_a_failure_the_next_pod_waits() {
    let job = job(json!({ "completions": 1 }), json!({}));
    // test pods stop being ready at second 1,000
    let failed = || vec![tracked("a", "Failed", None)];
    let sync = look(&job, failed(), 1_004);
    assert_eq!((sync.step(), sync.requeue_after()), (&PodStep::Nothing, Some(Duration::from_secs(6))));
    assert_eq!(created_indexes(&look(&job, failed(), 1_010)).len(), 1);
}

#[test]
fn limits_per_index_fail_indexes_and_then_the_job() {
    let spec = json!({ "parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX });
    let job = job(spec, json!({}));
    let pods = vec![tracked("a", "Failed", Some(0)), tracked("b", "Succeeded", Some(1))];
    let (status, _) = through(&mut look(&job, pods, 2_000));
    assert_eq!(
        (status.failed_indexes.as_deref(), status.completed_indexes.as_deref()),
        (Some("0"), Some("1"))
    );
    assert_eq!(condition_types(&status), [("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")]);
}

#[test]
fn a_failed_pod_waits_for_its_replacement_to_take_over_the_count() {
    let spec = json!({ "parallelism": 1, "completions": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 3, "backoffLimit": i32::MAX });
    let job = job(spec, json!({}));
    let mut failed = tracked("a", "Failed", Some(0));
    failed.metadata.annotations.get_or_insert_default().insert(INDEX_FAILURE_COUNT.into(), "1".into());
    // the second failure waits twenty seconds
    let mut early = look(&job, vec![failed.clone()], 1_005);
    assert_eq!((early.step(), early.requeue_after()), (&PodStep::Nothing, Some(Duration::from_secs(15))));
    assert_eq!(early.count(Done::default()).remove.len(), 0);
    let sync = look(&job, vec![failed.clone()], 1_020);
    let PodStep::Create(new) = sync.step() else { panic!("{:?}", sync.step()) };
    assert_eq!(new[0].object["metadata"]["annotations"][INDEX_FAILURE_COUNT], "2");
    let mut replaced = look(&job, vec![failed, tracked("b", "Running", Some(0))], 1_021);
    assert_eq!(replaced.count(Done::default()).remove.len(), 1);
}

#[test]
fn policies_decide_about_failures_and_success() {
    let ignore = json!({ "completions": 1, "backoffLimit": 0, "podFailurePolicy": { "rules": [
        { "action": "Ignore", "onPodConditions": [{ "type": "Ready", "status": "False" }] }] } });
    let ignoring = job(ignore, json!({}));
    let (status, _) = through(&mut look(&ignoring, vec![tracked("a", "Failed", None)], 5_000));
    assert_eq!((status.failed, condition_types(&status).len()), (None, 0));

    let fail = json!({ "completions": 1, "podFailurePolicy": { "rules": [
        { "action": "FailJob", "onPodConditions": [{ "type": "Ready", "status": "False" }] }] } });
    let failing = job(fail, json!({}));
    let (status, reasons) = through(&mut look(&failing, vec![tracked("a", "Failed", None)], 5_000));
    assert_eq!(
        condition_types(&status),
        [("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")]
    );
    assert_eq!(reasons, ["PodFailurePolicy"]);

    let enough = json!({ "parallelism": 3, "completions": 3, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "1" }] } });
    let met = job(enough, json!({}));
    let pods = vec![tracked("a", "Succeeded", Some(1)), tracked("b", "Running", Some(0))];
    let mut sync = look(&met, pods, 5_000);
    let counting = sync.count(Done { deleted: 1, ..Done::default() });
    let status = counting.flush.expect("flush");
    assert_eq!(condition_types(&status), [("SuccessCriteriaMet", "SuccessPolicy")]);
    assert_eq!(
        status.uncounted_terminated_pods,
        Some(Default::default()),
        "the others do not count as failed"
    );
}

#[test]
fn replacing_only_failed_pods_waits_for_those_that_are_leaving() {
    for (policy, expected) in [("Failed", 0), ("TerminatingOrFailed", 1)] {
        let job = job(json!({ "completions": 1, "podReplacementPolicy": policy }), json!({}));
        let mut leaving = tracked("a", "Running", None);
        leaving.metadata.deletion_timestamp = Some(Time(at(500)));
        let sync = look(&job, vec![leaving], 5_000);
        assert_eq!(created_indexes(&sync).len(), expected, "{policy}");
    }
}

#[test]
fn restarts_in_place_count_as_retries() {
    let mut job = job(json!({ "completions": 1, "backoffLimit": 2 }), json!({}));
    if let Some(spec) = &mut job.spec {
        spec.template.spec.get_or_insert_default().restart_policy = Some("OnFailure".into());
    }
    let mut running = tracked("a", "Running", None);
    running.status.get_or_insert_default().container_statuses = serde_json::from_value(
        json!([{ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2 }]),
    )
    .expect("statuses");
    let sync = look(&job, vec![running], 5_000);
    assert!(matches!(sync.step(), PodStep::Delete { counted: true, .. }));
}

#[test]
fn what_has_ended_or_is_managed_elsewhere_is_left_alone() {
    let ended = job(json!({}), json!({ "conditions": [{ "type": "Complete", "status": "True" }] }));
    let foreign = job(json!({ "managedBy": "example.com/other" }), json!({}));
    for job in [&ended, &foreign] {
        let observed = Observed {
            job,
            pods: vec![],
            satisfied: true,
            removing: HashSet::new(),
            backoff: Backoff::default(),
            now: at(0),
        };
        assert!(begin(observed).is_none());
    }
    let pod = tracked("a", "Succeeded", None);
    assert!(is_orphaned(&pod, None) && is_orphaned(&pod, Some(&ended)) && !is_orphaned(&pod, Some(&foreign)));
}
