//! From CRI's messages to the core's view of one pod.
//!
//! Never here: decisions.

use jiff::Timestamp;
use k8s_cri::v1::{ContainerState, ContainerStatus, PodSandboxState};
use kubelet_core::observed::{ObservedContainer, RunState, RuntimePod, Sandbox};

use super::{
    ANNOTATION_HASH, ANNOTATION_RESTART_COUNT, ANNOTATION_TERMINATION_LOG, ANNOTATION_TERMINATION_POLICY,
    LABEL_CONTAINER_NAME, Runtime, RuntimeError,
};

const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// Everything that the runtime knows of a pod.
///
/// # Errors
/// The runtime's.
pub async fn observe(runtime: &dyn Runtime, pod_uid: &str) -> Result<RuntimePod, RuntimeError> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_sandboxes(Some(pod_uid)), runtime.list_containers(Some(pod_uid)))?;
    let mut pod = RuntimePod::default();
    for listed in sandboxes {
        let attempt = listed.metadata.map_or(0, |meta| meta.attempt);
        let mut sandbox = Sandbox {
            id: listed.id,
            attempt,
            ready: listed.state == PodSandboxState::SandboxReady as i32,
            created_at: nanoseconds(listed.created_at).unwrap_or_default(),
            ips: Vec::new(),
        };
        if sandbox.ready {
            let Some(status) = runtime.sandbox_status(&sandbox.id).await? else { continue };
            sandbox.ready = status.state == PodSandboxState::SandboxReady as i32;
            let network = status.network.unwrap_or_default();
            sandbox.ips = std::iter::once(network.ip)
                .chain(network.additional_ips.into_iter().map(|additional| additional.ip))
                .filter(|ip| !ip.is_empty())
                .collect();
        }
        pod.sandboxes.push(sandbox);
    }
    pod.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
    for listed in containers {
        let Some(status) = runtime.container_status(&listed.id).await? else { continue };
        pod.containers.push(container(status, listed.pod_sandbox_id));
    }
    pod.containers
        .sort_by_key(|container| std::cmp::Reverse((container.created_at, container.restart_count)));
    Ok(pod)
}

fn nanoseconds(count: i64) -> Option<Timestamp> {
    (count > 0).then(|| Timestamp::from_nanosecond(i128::from(count)).ok()).flatten()
}

fn container(status: ContainerStatus, sandbox_id: String) -> ObservedContainer {
    let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
    let state = match ContainerState::try_from(status.state) {
        Ok(ContainerState::ContainerCreated) => RunState::Created,
        Ok(ContainerState::ContainerRunning) => RunState::Running,
        Ok(ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    };
    let mut message = status.message.clone();
    if state == RunState::Exited {
        let fall_back =
            annotation(ANNOTATION_TERMINATION_POLICY) == "FallbackToLogsOnError" && status.exit_code != 0;
        let log = fall_back.then_some(status.log_path.as_str());
        if let Some(text) = termination_message(&annotation(ANNOTATION_TERMINATION_LOG), log) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
    }
    let name = status
        .labels
        .get(LABEL_CONTAINER_NAME)
        .cloned()
        .or_else(|| status.metadata.as_ref().map(|meta| meta.name.clone()))
        .unwrap_or_default();
    ObservedContainer {
        name,
        sandbox_id,
        state,
        created_at: nanoseconds(status.created_at).unwrap_or_default(),
        started_at: nanoseconds(status.started_at),
        finished_at: nanoseconds(status.finished_at),
        exit_code: status.exit_code,
        message,
        image: status.image.as_ref().map(|spec| spec.image.clone()).unwrap_or_default(),
        image_id: status.image_ref.clone(),
        restart_count: annotation(ANNOTATION_RESTART_COUNT).parse().unwrap_or(0),
        hash: annotation(ANNOTATION_HASH),
        reason: status.reason,
        id: status.id,
    }
}

/// What the container left as its last words: the termination message file, else the end of its log.
fn termination_message(path: &str, log: Option<&str>) -> Option<String> {
    let read_end = |path: &str| -> Option<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024))).ok()?;
        let mut bytes = Vec::new();
        file.take(16 * 1024).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let from_file = (!path.is_empty()).then(|| read_end(path)).flatten().filter(|bytes| !bytes.is_empty());
    let bytes = match (from_file, log) {
        (Some(bytes), _) => bytes,
        (None, Some(log)) => {
            let options = kubelet_core::container_log::LogOptions::default();
            let mut out = Vec::new();
            for line in read_end(log)?.split(|byte| *byte == b'\n') {
                kubelet_core::container_log::render(line, &options, true, &mut out);
            }
            out.split_off(out.len().saturating_sub(2048))
        }
        (None, None) => return None,
    };
    let end = bytes.len().min(TERMINATION_MESSAGE_BYTES_MAX);
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned()).filter(|text| !text.is_empty())
}
