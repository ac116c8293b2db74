//! Writes pod statuses to the API server, newest only, several at a time, until they arrive; and removes a deleted pod
//! once nothing of it is left.
//!
//! Never here: computing statuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::{api_code, within};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use kubelet_core::pod_view;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);
const AT_ONCE_MAX: usize = 16;

/// The conditions that the kubelet writes; all others in a pod's status are left alone.
pub const OWN_CONDITIONS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// Counts changes, so that a write that was overtaken is noticed.
    version: u64,
    written: u64,
    remove: bool,
    busy: bool,
}

struct Shared {
    entries: Mutex<HashMap<String, Entry>>,
    work: Notify,
}

/// A handle; clones share the same queue.
#[derive(Clone)]
pub struct StatusManager {
    shared: Arc<Shared>,
}

impl StatusManager {
    /// Starts the writer.
    pub fn start(client: Client, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared { entries: Mutex::new(HashMap::new()), work: Notify::new() });
        tokio::spawn(run(Arc::clone(&shared), client, shutdown));
        Self { shared }
    }

    /// Sets the status of a pod. It is written if it differs from the last one and from what the API server has.
    pub fn set(&self, pod: &Arc<Pod>, status: PodStatus) {
        let mut entries = self.shared.entries.lock();
        let uid = pod_view::uid(pod).to_owned();
        match entries.get_mut(&uid) {
            Some(entry) => {
                entry.pod = Arc::clone(pod);
                if entry.status == status {
                    return;
                }
                entry.status = status;
                entry.version += 1;
            }
            None => {
                let up_to_date =
                    pod.status.as_ref().is_some_and(|old| patch_body(pod, old, &status).is_none());
                let written = u64::from(up_to_date);
                let entry =
                    Entry { pod: Arc::clone(pod), status, version: 1, written, remove: false, busy: false };
                entries.insert(uid, entry);
            }
        }
        drop(entries);
        self.shared.work.notify_one();
    }

    /// The API server shows another status than the one that was written last: write it again.
    pub fn reconcile(&self, pod: &Arc<Pod>) {
        let mut entries = self.shared.entries.lock();
        let Some(entry) = entries.get_mut(pod_view::uid(pod)) else { return };
        entry.pod = Arc::clone(pod);
        if entry.written == entry.version
            && !entry.busy
            && pod.status.as_ref().is_some_and(|shown| patch_body(pod, shown, &entry.status).is_some())
        {
            entry.version += 1;
            drop(entries);
            self.shared.work.notify_one();
        }
    }

    /// Nothing of the pod is left on the node: remove it from the API server once its status is written.
    pub fn remove(&self, pod: &Pod) {
        if let Some(entry) = self.shared.entries.lock().get_mut(pod_view::uid(pod)) {
            entry.remove = true;
        }
        self.shared.work.notify_one();
    }

    /// The pod is gone from the API server.
    pub fn forget(&self, pod_uid: &str) {
        self.shared.entries.lock().remove(pod_uid);
    }
}

struct Job {
    uid: String,
    pod: Arc<Pod>,
    status: Option<PodStatus>,
    version: u64,
}

enum Done {
    Written(u64, Box<Pod>),
    Gone,
    Failed,
}

async fn run(shared: Arc<Shared>, client: Client, shutdown: CancellationToken) {
    let mut running: JoinSet<(String, Done)> = JoinSet::new();
    loop {
        while running.len() < AT_ONCE_MAX {
            let Some(job) = next(&shared) else { break };
            let client = client.clone();
            running.spawn(async move {
                let uid = job.uid.clone();
                let done = write(client, job).await;
                if matches!(done, Done::Failed) {
                    tokio::time::sleep(RETRY).await;
                }
                (uid, done)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.work.notified(), if running.len() < AT_ONCE_MAX => {}
            Some(joined) = running.join_next() => {
                let Ok((uid, done)) = joined else { continue };
                let mut entries = shared.entries.lock();
                match done {
                    Done::Gone => {
                        entries.remove(&uid);
                    }
                    Done::Written(version, pod) => {
                        if let Some(entry) = entries.get_mut(&uid) {
                            entry.busy = false;
                            entry.written = version;
                            entry.pod = Arc::new(*pod);
                        }
                    }
                    Done::Failed => {
                        if let Some(entry) = entries.get_mut(&uid) {
                            entry.busy = false;
                        }
                    }
                }
            }
        }
    }
}

fn next(shared: &Shared) -> Option<Job> {
    let mut entries = shared.entries.lock();
    let (uid, entry) = entries
        .iter_mut()
        .find(|(_, entry)| !entry.busy && (entry.written < entry.version || entry.remove))?;
    entry.busy = true;
    let status = (entry.written < entry.version).then(|| entry.status.clone());
    Some(Job { uid: uid.clone(), pod: Arc::clone(&entry.pod), status, version: entry.version })
}

async fn write(client: Client, job: Job) -> Done {
    let api: Api<Pod> = Api::namespaced(client, pod_view::namespace(&job.pod));
    let name = pod_view::name(&job.pod);
    let Some(status) = job.status else {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(job.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        return match within(DEADLINE, api.delete(name, &params)).await {
            Ok(_) => Done::Gone,
            // 409: another pod of the same name has taken its place.
            Err(error) if matches!(api_code(&error), Some(404 | 409)) => Done::Gone,
            Err(error) => {
                tracing::warn!(pod = pod_view::describe(&job.pod), %error, "cannot remove the pod yet");
                Done::Failed
            }
        };
    };
    let old = job.pod.status.clone().unwrap_or_default();
    let Some(body) = patch_body(&job.pod, &old, &status) else {
        return Done::Written(job.version, Box::new((*job.pod).clone()));
    };
    match within(DEADLINE, api.patch_status(name, &PatchParams::default(), &Patch::Strategic(body))).await {
        Ok(pod) => Done::Written(job.version, Box::new(pod)),
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => Done::Gone,
        Err(error) => {
            tracing::warn!(pod = pod_view::describe(&job.pod), %error, "cannot write the pod's status yet");
            Done::Failed
        }
    }
}

/// The strategic merge patch from `old` to `new`, or `None` if they agree. Conditions of others are not touched.
fn patch_body(pod: &Pod, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old_map)), Ok(Value::Object(new_map))) =
        (serde_json::to_value(without_conditions(old)), serde_json::to_value(without_conditions(new)))
    else {
        return None;
    };
    let mut changed = Map::new();
    // Written by others; a kubelet never takes them away.
    let foreign = ["nominatedNodeName", "resize", "resourceClaimStatuses"];
    for key in old_map.keys().filter(|key| !new_map.contains_key(*key) && !foreign.contains(&key.as_str())) {
        changed.insert(key.clone(), Value::Null);
    }
    for (key, value) in new_map {
        if old_map.get(&key) == Some(&value) {
            continue;
        }
        // Lists that a strategic patch would merge by address are replaced.
        let value = match (key.as_str(), value) {
            ("podIPs" | "hostIPs", Value::Array(mut items)) => {
                items.insert(0, json!({"$patch": "replace"}));
                Value::Array(items)
            }
            (_, value) => value,
        };
        changed.insert(key, value);
    }
    let before: BTreeMap<&str, &PodCondition> =
        old.conditions.iter().flatten().map(|condition| (condition.type_.as_str(), condition)).collect();
    let now: Vec<&str> = new.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    let over = OWN_CONDITIONS.iter().filter(|kind| before.contains_key(*kind) && !now.contains(kind));
    let over = over.map(|kind| json!({"type": kind, "$patch": "delete"}));
    let conditions: Vec<Value> = new
        .conditions
        .iter()
        .flatten()
        .filter(|condition| before.get(condition.type_.as_str()) != Some(condition))
        .map(|condition| {
            let mut value = serde_json::to_value(condition).unwrap_or_default();
            for field in ["reason", "message"] {
                if value.get(field).is_none() {
                    value[field] = Value::Null;
                }
            }
            // What older servers wrote must not stay behind.
            value["lastProbeTime"] = Value::Null;
            value
        })
        .chain(over)
        .collect();
    if !conditions.is_empty() {
        changed.insert("conditions".to_owned(), Value::Array(conditions));
    }
    if changed.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": pod_view::uid(pod)}, "status": changed}))
}

fn without_conditions(status: &PodStatus) -> PodStatus {
    PodStatus { conditions: None, ..status.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, reason: Option<&str>) -> PodCondition {
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            ..PodCondition::default()
        }
    }

    #[test]
    fn a_patch_holds_only_what_changed_and_leaves_foreign_conditions() {
        let pod = Pod::default();
        let old = PodStatus {
            phase: Some("Pending".into()),
            message: Some("gone soon".into()),
            conditions: Some(vec![
                condition("Ready", "False", Some("X")),
                condition("Foreign", "True", None),
            ]),
            ..PodStatus::default()
        };
        let new = PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![condition("Ready", "True", None)]),
            ..PodStatus::default()
        };
        let body = patch_body(&pod, &old, &new).unwrap();
        assert_eq!(body["status"]["phase"], "Running");
        assert_eq!(body["status"]["message"], Value::Null);
        let conditions = body["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0]["reason"], Value::Null);
        let merged = PodStatus {
            conditions: Some(vec![condition("Ready", "True", None), condition("Foreign", "True", None)]),
            ..new.clone()
        };
        assert!(patch_body(&pod, &merged, &new).is_none());
        let mut resizing = merged.clone();
        resizing.conditions.as_mut().unwrap().push(condition("PodResizeInProgress", "True", None));
        let body = patch_body(&pod, &resizing, &new).unwrap();
        assert_eq!(
            body["status"]["conditions"],
            json!([{"type": "PodResizeInProgress", "$patch": "delete"}])
        );
    }
}
