//! The workload controllers end to end on hollow nodes. Hollow containers never end by themselves, so pods whose end matters
//! are given to no scheduler, and the test says how they ended.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

fn get(cluster: &Cluster, what: &str) -> Value {
    let text = cluster.kubectl(&format!("get {what} -o json")).ok();
    serde_json::from_str(&text).expect("JSON")
}

/// Waits until `check` finds what it looks for in `kubectl get WHAT -o json`.
fn until<T>(cluster: &Cluster, what: &str, wanted: &str, check: impl Fn(&Value) -> Option<T>) -> T {
    wait_for(wanted, DEADLINE, || {
        let text = cluster.kubectl(&format!("get {what} -o json")).result()?;
        let seen: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        check(&seen).ok_or_else(|| {
            let shown = if seen["kind"] == "List" { &seen } else { &seen["status"] };
            shown.to_string()
        })
    })
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn names(list: &Value) -> Vec<String> {
    let mut names: Vec<_> = items(list).iter().map(|object| name(object).to_owned()).collect();
    names.sort();
    names
}

fn condition_types(object: &Value) -> Vec<String> {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let holding = all.iter().filter(|condition| condition["status"] == "True");
    holding.map(|condition| condition["type"].as_str().unwrap_or_default().to_owned()).collect()
}

fn has_condition(object: &Value, kind: &str, reason: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().any(|condition| {
        condition["type"] == kind && condition["status"] == "True" && condition["reason"] == reason
    })
}

/// Plays the kubelet for a pod that no scheduler takes.
fn end_pod(cluster: &Cluster, pod: &str, exit_code: i32) {
    let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "c", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": exit_code, "reason": "Ended", "startedAt": "2020-01-01T00:00:00Z",
            "finishedAt": "2020-01-01T00:00:01Z" } },
    }] } });
    cluster.kubectl(&format!("patch pod {pod} --subresource=status --type=merge -p '{status}'")).ok();
}

fn unscheduled_job(cluster: &Cluster, name: &str, spec: Value) {
    let mut job =
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name }, "spec": spec });
    job["spec"]["template"] = json!({ "spec": {
        "restartPolicy": "Never", "schedulerName": "nobody", "containers": [{ "name": "c", "image": "x" }],
    } });
    cluster.kubectl_stdin("create -f -", &job.to_string()).ok();
}

fn active_pods(cluster: &Cluster, job: &str, count: usize) -> Vec<String> {
    let what = format!("pods -l job-name={job} --field-selector=status.phase=Pending");
    until(cluster, &what, "the Job's pods", |list| (items(list).len() == count).then(|| names(list)))
}

/// Whether the Job controller has counted the pod, or will never count it.
fn is_free(pod: &Value) -> bool {
    pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

fn event_reasons(cluster: &Cluster, about: &str) -> Vec<String> {
    let events = get(cluster, &format!("events --field-selector=involvedObject.name={about}"));
    items(&events).iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn jobs_count_each_pod_once_and_end_as_asked() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);

    unscheduled_job(
        &cluster,
        "indexed",
        json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" }),
    );
    let first = active_pods(&cluster, "indexed", 2);
    let pod = get(&cluster, &format!("pod {}", first[0]));
    assert!(first[0].starts_with("indexed-0-"), "{first:?}");
    assert_eq!(pod["spec"]["hostname"], "indexed-0");
    assert_eq!(pod["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], "0");
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    first.iter().for_each(|pod| end_pod(&cluster, pod, 0));
    let last = active_pods(&cluster, "indexed", 1);
    assert!(last[0].starts_with("indexed-2-"), "{last:?}");
    end_pod(&cluster, &last[0], 0);
    cluster.kubectl("wait --for=condition=Complete job/indexed --timeout=60s").ok();
    let job = get(&cluster, "job indexed");
    assert_eq!(job["status"]["succeeded"], 3);
    assert_eq!(job["status"]["completedIndexes"], "0-2");
    assert_eq!(job["status"]["uncountedTerminatedPods"], json!({}));
    assert_eq!(condition_types(&job), ["SuccessCriteriaMet", "Complete"]);
    let pods = get(&cluster, "pods -l job-name=indexed");
    assert!(items(&pods).iter().all(is_free), "{pods}");
    wait_for("the Job's events", DEADLINE, || {
        let reasons = event_reasons(&cluster, "indexed");
        let told = reasons.iter().filter(|reason| *reason == "SuccessfulCreate").count() == 3
            && reasons.contains(&"Completed".to_owned());
        if told { Ok(()) } else { Err(format!("{reasons:?}")) }
    });

    unscheduled_job(&cluster, "failing", json!({ "backoffLimit": 0, "ttlSecondsAfterFinished": 3600 }));
    end_pod(&cluster, &active_pods(&cluster, "failing", 1)[0], 7);
    cluster.kubectl("wait --for=condition=Failed job/failing --timeout=60s").ok();
    let job = get(&cluster, "job failing");
    assert!(has_condition(&job, "Failed", "BackoffLimitExceeded"), "{job}");
    assert_eq!((&job["status"]["failed"], &job["status"]["succeeded"]), (&json!(1), &Value::Null));
    cluster.kubectl("patch job failing --type=merge -p '{\"spec\":{\"ttlSecondsAfterFinished\":0}}'").ok();
    cluster.kubectl("wait --for=delete job/failing --timeout=60s").ok();
    cluster.kubectl("wait --for=delete pod -l job-name=failing --timeout=60s").ok();

    let rule = json!({ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } });
    unscheduled_job(
        &cluster,
        "policy",
        json!({ "completions": 2, "parallelism": 2, "podFailurePolicy": { "rules": [rule] } }),
    );
    end_pod(&cluster, &active_pods(&cluster, "policy", 2)[0], 42);
    until(&cluster, "job policy", "the policy to fail the Job", |job| {
        has_condition(job, "Failed", "PodFailurePolicy").then_some(())
    });
    assert_eq!(items(&get(&cluster, "pods -l job-name=policy")).len(), 1, "the other pod was deleted");

    // On a node: what runs is taken away and given back, and goes with its Job.
    cluster.kubectl("create job running --image=anything:v1").ok();
    cluster.kubectl("wait --for=jsonpath={.status.ready}=1 job/running --timeout=60s").ok();
    cluster.kubectl("patch job running --type=merge -p '{\"spec\":{\"suspend\":true}}'").ok();
    cluster.kubectl("wait --for=condition=Suspended job/running --timeout=60s").ok();
    cluster.kubectl("wait --for=delete pod -l job-name=running --timeout=60s").ok();
    let job = get(&cluster, "job running");
    assert_eq!((&job["status"]["failed"], &job["status"]["active"]), (&Value::Null, &Value::Null), "{job}");
    cluster.kubectl("patch job running --type=merge -p '{\"spec\":{\"suspend\":false}}'").ok();
    cluster.kubectl("wait --for=jsonpath={.status.ready}=1 job/running --timeout=60s").ok();
    cluster.kubectl("delete job running --timeout=60s").ok();
    cluster.kubectl("wait --for=delete pod -l job-name=running --timeout=60s").ok();

    // Pods of a Job that is deleted without them are free of its finalizer.
    unscheduled_job(&cluster, "leaving", json!({}));
    let left = active_pods(&cluster, "leaving", 1);
    cluster.kubectl("delete job leaving --cascade=orphan --timeout=60s").ok();
    until(&cluster, &format!("pod {}", left[0]), "the pod to be free", |pod| is_free(pod).then_some(()));
}

fn hosts(pods: &Value) -> Vec<String> {
    let node = |pod: &Value| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let mut hosts: Vec<_> = items(pods).iter().map(node).collect();
    hosts.sort();
    hosts
}

fn image(object: &Value) -> &Value {
    &object["spec"]["containers"][0]["image"]
}

#[test]
fn a_daemon_set_runs_on_every_node_and_rolls_back() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "3"]);
    cluster.kubectl("cordon node-c").ok();
    let template = json!({ "metadata": { "labels": { "app": "agent" } },
        "spec": { "containers": [{ "name": "c", "image": "agent:v1" }] } });
    let spec = json!({ "selector": { "matchLabels": { "app": "agent" } }, "template": template });
    let set = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent" }, "spec": spec });
    cluster.kubectl_stdin("create -f -", &set.to_string()).ok();
    cluster.kubectl("rollout status daemonset/agent --timeout=60s").ok();
    let pods = get(&cluster, "pods -l app=agent");
    assert_eq!(hosts(&pods), ["node-a", "node-b", "node-c"], "cordoned nodes are tolerated");
    let hash = &items(&pods)[0]["metadata"]["labels"]["controller-revision-hash"];
    let revisions = get(&cluster, "controllerrevisions -l app=agent");
    assert_eq!(names(&revisions), [format!("agent-{}", hash.as_str().unwrap_or_default())]);

    cluster.kubectl("set image daemonset/agent c=agent:v2").ok();
    cluster.kubectl("rollout status daemonset/agent --timeout=90s").ok();
    let pods = get(&cluster, "pods -l app=agent --field-selector=status.phase=Running");
    assert!(items(&pods).iter().all(|pod| *image(pod) == "agent:v2"), "{pods}");
    let history = cluster.kubectl("rollout history daemonset/agent").ok();
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");

    let surge =
        json!({ "spec": { "updateStrategy": { "rollingUpdate": { "maxSurge": 2, "maxUnavailable": 0 } } } });
    cluster.kubectl(&format!("patch daemonset agent -p '{surge}'")).ok();
    cluster.kubectl("rollout undo daemonset/agent").ok();
    cluster.kubectl("rollout status daemonset/agent --timeout=90s").ok();
    let set = until(&cluster, "daemonset agent", "the old template everywhere", |set| {
        (set["status"]["updatedNumberScheduled"] == 3 && set["status"]["numberAvailable"] == 3)
            .then(|| set.clone())
    });
    assert_eq!(image(&set["spec"]["template"]), "agent:v1");
    assert_eq!(set["status"]["observedGeneration"], set["metadata"]["generation"]);
    let history = cluster.kubectl("rollout history daemonset/agent").ok();
    assert!(
        history.lines().any(|line| line.starts_with('3')),
        "the first revision is the third now: {history}"
    );

    cluster.kubectl("label node node-b zone=b").ok();
    cluster.kubectl("patch daemonset agent -p '{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"zone\":\"b\"}}}}}'").ok();
    until(&cluster, "pods -l app=agent", "a pod on the selected node only", |pods| {
        (hosts(pods) == ["node-b"]).then_some(())
    });
    cluster.kubectl("delete daemonset agent --timeout=60s").ok();
    cluster.kubectl("wait --for=delete pod -l app=agent --timeout=60s").ok();
}

#[test]
fn a_stateful_set_keeps_its_order_and_identities() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "2"]);
    let template = json!({ "metadata": { "labels": { "app": "db" } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "db:v1" }] } });
    let spec = json!({ "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } }, "template": template });
    let set =
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "db" }, "spec": spec });
    cluster.kubectl_stdin("create -f -", &set.to_string()).ok();
    cluster.kubectl("rollout status statefulset/db --timeout=60s").ok();
    let pods = get(&cluster, "pods -l app=db");
    assert_eq!(names(&pods), ["db-0", "db-1", "db-2"]);
    let first = &items(&pods)[0];
    assert_eq!(first["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "0");
    assert_eq!((&first["spec"]["hostname"], &first["spec"]["subdomain"]), (&json!("db-0"), &json!("db")));
    let born = |pod: &Value| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let times: Vec<_> = items(&pods).iter().map(born).collect();
    assert!(times.is_sorted(), "one after the other: {times:?}");

    // Only above the partition, then all, then back.
    let partition = |number: i32| {
        let patch = json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": number } } } });
        cluster.kubectl(&format!("patch statefulset db -p '{patch}'")).ok();
    };
    partition(2);
    cluster.kubectl("set image statefulset/db c=db:v2").ok();
    cluster.kubectl("rollout status statefulset/db --timeout=60s").ok();
    let images = |list: &Value| items(list).iter().map(|pod| image(pod).clone()).collect::<Vec<_>>();
    assert_eq!(images(&get(&cluster, "pods -l app=db")), ["db:v1", "db:v1", "db:v2"]);
    let set = get(&cluster, "statefulset db");
    assert_ne!(set["status"]["currentRevision"], set["status"]["updateRevision"]);
    partition(0);
    cluster.kubectl("rollout status statefulset/db --timeout=90s").ok();
    assert_eq!(images(&get(&cluster, "pods -l app=db")), ["db:v2", "db:v2", "db:v2"]);
    let set = until(&cluster, "statefulset db", "the update to be complete", |set| {
        (set["status"]["currentRevision"] == set["status"]["updateRevision"]).then(|| set.clone())
    });
    assert_eq!(
        (&set["status"]["currentReplicas"], &set["status"]["availableReplicas"]),
        (&json!(3), &json!(3))
    );
    let history = cluster.kubectl("rollout history statefulset/db").ok();
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    cluster.kubectl("rollout undo statefulset/db").ok();
    cluster.kubectl("rollout status statefulset/db --timeout=90s").ok();
    assert_eq!(images(&get(&cluster, "pods -l app=db")), ["db:v1", "db:v1", "db:v1"]);

    // A pod that is deleted comes back under its name, another one.
    let uid = get(&cluster, "pod db-1")["metadata"]["uid"].clone();
    cluster.kubectl("delete pod db-1 --timeout=60s").ok();
    until(&cluster, "pods -l app=db", "db-1 to be another", |pods| {
        let found = items(pods).iter().find(|pod| name(pod) == "db-1")?;
        (found["metadata"]["uid"] != uid).then_some(())
    });
    cluster.kubectl("scale statefulset db --replicas=1").ok();
    until(&cluster, "pods -l app=db", "only the first to stay", |pods| {
        (names(pods) == ["db-0"]).then_some(())
    });
    wait_for("the set's events", DEADLINE, || {
        let events = get(&cluster, "events --field-selector=involvedObject.name=db");
        let told = |text: &str| items(&events).iter().any(|event| event["message"] == text);
        let all = told("create Pod db-0 in StatefulSet db successful")
            && told("delete Pod db-2 in StatefulSet db successful");
        if all { Ok(()) } else { Err(events.to_string()) }
    });

    // Claims are made with pods, all at once in parallel, and go as the policy says.
    let template = json!({ "metadata": { "labels": { "app": "par" } }, "spec": { "schedulerName": "nobody",
        "containers": [{ "name": "c", "image": "x" }] } });
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } } } });
    let spec = json!({ "replicas": 2, "serviceName": "par", "podManagementPolicy": "Parallel", "ordinals": { "start": 3 },
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Delete" },
        "selector": { "matchLabels": { "app": "par" } }, "template": template, "volumeClaimTemplates": [claim] });
    let set = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "par" }, "spec": spec });
    cluster.kubectl_stdin("create -f -", &set.to_string()).ok();
    until(&cluster, "pods -l app=par", "both pods", |pods| (names(pods) == ["par-3", "par-4"]).then_some(()));
    assert_eq!(names(&get(&cluster, "persistentvolumeclaims")), ["data-par-3", "data-par-4"]);
    let volume = &get(&cluster, "pod par-4")["spec"]["volumes"][0];
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "data-par-4");
    cluster.kubectl("scale statefulset par --replicas=1").ok();
    until(&cluster, "pods -l app=par", "one pod", |pods| (names(pods) == ["par-3"]).then_some(()));
    until(&cluster, "persistentvolumeclaims", "the other's claim to go", |claims| {
        let live = items(claims).iter().filter(|claim| claim["metadata"]["deletionTimestamp"].is_null());
        live.map(name).eq(["data-par-3"]).then_some(())
    });
    cluster.kubectl("delete statefulset par db --timeout=60s").ok();
    cluster.kubectl("wait --for=delete pod -l app=db --timeout=60s").ok();
}

#[test]
fn a_cron_job_runs_on_time_and_keeps_its_history() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    let template = json!({ "spec": { "restartPolicy": "Never", "schedulerName": "nobody",
        "containers": [{ "name": "c", "image": "x" }] } });
    let cron_job = |name: &str, spec: Value| {
        let mut object = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name }, "spec": spec });
        object["spec"]["jobTemplate"] =
            json!({ "metadata": { "labels": { "of": name } }, "spec": { "template": template } });
        cluster.kubectl_stdin("create -f -", &object.to_string()).ok();
    };
    cron_job(
        "tick",
        json!({ "schedule": "@every 2s", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1 }),
    );
    cron_job("idle", json!({ "schedule": "0 0 1 1 *", "suspend": true }));

    let first = until(&cluster, "jobs -l of=tick", "the first Job", |jobs| names(jobs).first().cloned());
    let job = get(&cluster, &format!("job {first}"));
    assert!(
        job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].is_string(),
        "{job}"
    );
    assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "tick");
    until(&cluster, "cronjob tick", "the Job to be active", |tick| {
        (tick["status"]["active"][0]["name"] == first.as_str()
            && tick["status"]["lastScheduleTime"].is_string())
        .then_some(())
    });
    wait_for("the time that is not served while it runs", DEADLINE, || {
        let reasons = event_reasons(&cluster, "tick");
        if reasons.contains(&"JobAlreadyActive".to_owned()) { Ok(()) } else { Err(format!("{reasons:?}")) }
    });
    assert_eq!(names(&get(&cluster, "jobs -l of=tick")), [first.as_str()]);

    end_pod(&cluster, &active_pods(&cluster, &first, 1)[0], 0);
    until(&cluster, "cronjob tick", "the first Job to have succeeded", |tick| {
        tick["status"]["lastSuccessfulTime"].is_string().then_some(())
    });
    cluster.kubectl("patch cronjob tick -p '{\"spec\":{\"suspend\":true}}'").ok();

    cluster.kubectl("create job by-hand --from=cronjob/idle").ok();
    let job = get(&cluster, "job by-hand");
    assert_eq!(job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"], "manual");
    end_pod(&cluster, &active_pods(&cluster, "by-hand", 1)[0], 0);
    cluster.kubectl("wait --for=condition=Complete job/by-hand --timeout=60s").ok();
    cluster.kubectl("patch cronjob idle -p '{\"spec\":{\"successfulJobsHistoryLimit\":0}}'").ok();
    cluster.kubectl("wait --for=delete job/by-hand --timeout=60s").ok();
    cluster.kubectl("delete cronjob tick idle --timeout=60s").ok();
    cluster.kubectl("wait --for=delete job -l of=tick --timeout=60s").ok();
}

#[test]
fn a_replication_controller_keeps_its_number_of_pods() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    let template = json!({ "metadata": { "labels": { "app": "old" } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "x" }] } });
    let object = json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "old" },
        "spec": { "replicas": 2, "template": template } });
    cluster.kubectl_stdin("create -f -", &object.to_string()).ok();
    let ready = |count: i64| {
        until(&cluster, "rc old", "its pods to be ready", |it| {
            let status = &it["status"];
            (status["readyReplicas"] == count && status["replicas"] == count).then_some(())
        });
    };
    ready(2);
    cluster.kubectl("scale rc old --replicas=3").ok();
    ready(3);
    let pods = get(&cluster, "pods -l app=old");
    let owner = &items(&pods)[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("ReplicationController"), &json!(true)));

    // One that does not fit any more is let go, and replaced.
    let freed = name(&items(&pods)[0]);
    cluster.kubectl(&format!("label pod {freed} app=new --overwrite")).ok();
    until(&cluster, &format!("pod {freed}"), "the pod to be nobody's", |pod| {
        pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty).then_some(())
    });
    until(&cluster, "pods -l app=old", "another in its place", |pods| (items(pods).len() == 3).then_some(()));
    cluster.kubectl("delete rc old --timeout=60s").ok();
    until(&cluster, "pods -l app=old", "the pods to go", |pods| items(pods).is_empty().then_some(()));
    cluster.kubectl(&format!("get pod {freed}")).ok();
}
