//! The table of pods: readiness, and the reason that tells most about a pod's state.

use coracle_api::meta;
use serde_json::{Value, json};

use super::Context;
use super::cells::{age, list, name, number, or_none, since, text, time};
use super::columns::{AGE, Column, NAME, text as column};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Containers that are ready, of all"),
    column("Status", "State of the pod and why it is in it"),
    column("Restarts", "How often containers were restarted, and when the last time"),
    AGE,
    column("IP", "Address of the pod").wide(),
    column("Node", "Node that the pod runs on").wide(),
    column("Nominated Node", "Node that is being made free for the pod").wide(),
    column("Readiness Gates", "Conditions beyond containers that readiness needs, fulfilled ones of all")
        .wide(),
];

pub(super) fn cells(pod: &Value, context: &Context) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match (summary.restarts, summary.last_restart) {
        (count, Some(time)) if count > 0 => format!("{count} ({} ago)", since(Some(time), context)),
        (count, _) => count.to_string(),
    };
    let ip = match list(pod, &["status", "podIPs"]).first() {
        Some(first) => text(first, &["ip"]),
        None => text(pod, &["status", "podIP"]),
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, context),
        or_none(ip),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        readiness_gates(pod),
    ]
}

/// Rows of pods that have run to their end are marked, so that clients can leave them out.
pub(super) fn conditions(pod: &Value) -> Value {
    match text(pod, &["status", "phase"]) {
        phase @ ("Succeeded" | "Failed") => json!([{
            "type": "Completed",
            "status": "True",
            "reason": phase,
            "message": if phase == "Succeeded" { "The pod has completed successfully." } else { "The pod failed." },
        }]),
        _ => Value::Null,
    }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return super::cells::NONE.into();
    }
    let conditions = list(pod, &["status", "conditions"]);
    let fulfilled = gates
        .iter()
        .filter(|gate| conditions.iter().any(|c| c["type"] == gate["conditionType"] && c["status"] == "True"))
        .count();
    format!("{fulfilled}/{}", gates.len()).into()
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<jiff::Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += number(status, &["restartCount"]);
        let ended = time(status, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(ended);
    }

    fn start_over(&mut self) {
        (self.restarts, self.last_restart) = (0, None);
    }
}

fn has(status: &Value, state: &str) -> bool {
    status["state"][state].is_object()
}

/// `Signal:9`, `ExitCode:1`, or the reason itself.
fn ended_with(status: &Value) -> String {
    let terminated = ["state", "terminated"];
    let reason = text(status, &[terminated[0], terminated[1], "reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match number(status, &[terminated[0], terminated[1], "signal"]) {
        0 => format!("ExitCode:{}", number(status, &[terminated[0], terminated[1], "exitCode"])),
        signal => format!("Signal:{signal}"),
    }
}

fn summarize(pod: &Value) -> Summary {
    let mut summary = Summary {
        reason: text(pod, &["status", "phase"]).to_owned(),
        ready: 0,
        total: list(pod, &["spec", "containers"]).len(),
        restarts: 0,
        last_restart: None,
    };
    let reason = text(pod, &["status", "reason"]);
    if !reason.is_empty() {
        summary.reason = reason.to_owned();
    }
    let conditions = list(pod, &["status", "conditions"]);
    if conditions.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let initializing = init_containers(pod, &mut summary);
    let initialized = conditions.iter().any(|c| c["type"] == "Initialized" && c["status"] == "True");
    if !initializing || initialized {
        containers(pod, &mut summary);
    }
    if meta::is_being_deleted(pod) {
        let phase = text(pod, &["status", "phase"]);
        if reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

fn is_sidecar(pod: &Value, container: &str) -> bool {
    list(pod, &["spec", "initContainers"])
        .iter()
        .any(|spec| spec["name"] == container && spec["restartPolicy"] == "Always")
}

/// Whether an init container keeps the pod from starting; the reason then says how.
fn init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let total = list(pod, &["spec", "initContainers"]).len();
    summary.total += list(pod, &["spec", "initContainers"])
        .iter()
        .filter(|spec| spec["restartPolicy"] == "Always")
        .count();
    let mut sidecar_restarts = (0, None);
    for (index, status) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = is_sidecar(pod, text(status, &["name"]));
        summary.count_restarts(status);
        if sidecar {
            sidecar_restarts.0 += number(status, &["restartCount"]);
            sidecar_restarts.1 =
                sidecar_restarts.1.max(time(status, &["lastState", "terminated", "finishedAt"]));
        }
        if has(status, "terminated") && number(status, &["state", "terminated", "exitCode"]) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            if status["ready"] == true {
                summary.ready += 1;
            }
            continue;
        }
        let waiting = text(status, &["state", "waiting", "reason"]);
        summary.reason = if has(status, "terminated") {
            format!("Init:{}", ended_with(status))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{total}")
        };
        return true;
    }
    // From here on restarts of the containers that keep running count.
    summary.start_over();
    (summary.restarts, summary.last_restart) = sidecar_restarts;
    false
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        summary.count_restarts(status);
        let waiting = text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if has(status, "terminated") {
            summary.reason = ended_with(status);
        } else if status["ready"] == true && has(status, "running") {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let conditions = list(pod, &["status", "conditions"]);
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(spec: Value, status: Value, deleting: bool) -> (String, String, String) {
        let mut pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let now = "2026-01-01T00:10:00Z".parse().expect("time");
        let cells = cells(&pod, &Context { now });
        let cell = |index: usize| cells[index].as_str().expect("text").to_owned();
        (cell(1), cell(2), cell(3))
    }

    fn spec(containers: usize, init: usize) -> Value {
        let some = |count| (0..count).map(|n| json!({"name": format!("c{n}")})).collect::<Vec<_>>();
        json!({"containers": some(containers), "initContainers": some(init)})
    }

    #[test]
    fn states_show_their_reasons() {
        let running = json!({"name": "c0", "ready": true, "state": {"running": {}}});
        let completed =
            json!({"name": "c1", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let crashing = json!({"name": "c0", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}});
        let killed = json!({"name": "c0", "state": {"terminated": {"signal": 9, "exitCode": 137}}});
        let failed = json!({"name": "c0", "state": {"terminated": {"exitCode": 3}}});
        for (spec, status, deleting, expected) in [
            (spec(1, 0), json!({"phase": "Pending"}), false, ("0/1", "Pending", "0")),
            (
                spec(1, 0),
                json!({"phase": "Running", "containerStatuses": [running]}),
                false,
                ("1/1", "Running", "0"),
            ),
            (
                spec(1, 0),
                json!({"phase": "Running", "containerStatuses": [running]}),
                true,
                ("1/1", "Terminating", "0"),
            ),
            (
                spec(1, 0),
                json!({"phase": "Running", "containerStatuses": [crashing]}),
                false,
                ("0/1", "CrashLoopBackOff", "1 (5m ago)"),
            ),
            (
                spec(1, 0),
                json!({"phase": "Failed", "containerStatuses": [killed]}),
                false,
                ("0/1", "Signal:9", "0"),
            ),
            (
                spec(1, 0),
                json!({"phase": "Failed", "containerStatuses": [failed]}),
                true,
                ("0/1", "ExitCode:3", "0"),
            ),
            (spec(1, 0), json!({"phase": "Failed", "reason": "Evicted"}), false, ("0/1", "Evicted", "0")),
            (spec(1, 0), json!({"phase": "Running", "reason": "NodeLost"}), true, ("0/1", "Unknown", "0")),
            (
                spec(2, 0),
                json!({"phase": "Running", "containerStatuses": [completed, running]}),
                false,
                ("1/2", "NotReady", "0"),
            ),
            (
                spec(2, 0),
                json!({"phase": "Running", "containerStatuses": [completed, running],
                "conditions": [{"type": "Ready", "status": "True"}]}),
                false,
                ("1/2", "Running", "0"),
            ),
            (
                spec(1, 2),
                json!({"phase": "Pending", "initContainerStatuses": [completed,
                {"name": "c1", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                false,
                ("0/1", "Init:1/2", "0"),
            ),
            (
                spec(1, 1),
                json!({"phase": "Pending", "initContainerStatuses": [crashing]}),
                false,
                ("0/1", "Init:CrashLoopBackOff", "1 (5m ago)"),
            ),
            (
                spec(1, 1),
                json!({"phase": "Pending", "initContainerStatuses": [failed]}),
                false,
                ("0/1", "Init:ExitCode:3", "0"),
            ),
            (
                spec(1, 0),
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "SchedulingGated"}]}),
                false,
                ("0/1", "SchedulingGated", "0"),
            ),
        ] {
            let (ready, reason, restarts) = row(spec, status.clone(), deleting);
            assert_eq!((ready.as_str(), reason.as_str(), restarts.as_str()), expected, "{status}");
        }
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let running =
            |name: &str| json!({"name": name, "ready": true, "started": true, "state": {"running": {}}});
        let status = json!({"phase": "Running", "initContainerStatuses": [running("s")], "containerStatuses": [running("a")]});
        assert_eq!(row(spec, status, false).0, "2/2");
    }
}
