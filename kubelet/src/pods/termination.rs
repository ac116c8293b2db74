//! Ending containers with grace: preStop hook, SIGTERM, SIGKILL; sidecars after all others, last one first.
//!
//! Never here: the decision to end.

use std::time::{Duration, Instant};

use coracle_client::event_recorder::EventKind;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use kubelet_core::observed::{ObservedContainer, RunState, RuntimePod};
use kubelet_core::pod_view;

use super::http_action;
use crate::context::Context;
use crate::runtime::RuntimeError;

/// What is left for SIGTERM when the preStop hook has used up the grace period.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// Runs a lifecycle hook.
///
/// # Errors
/// What went wrong.
pub async fn run_hook(
    context: &Context,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let outcome = context
            .runtime
            .exec_sync(container_id, command, timeout)
            .await
            .map_err(|error| format!("Exec lifecycle hook ([{shown}]) failed: {error}"))?;
        if outcome.exit_code != 0 {
            let output = [outcome.stdout, outcome.stderr].concat();
            let text: String = String::from_utf8_lossy(&output).chars().take(1024).collect();
            return Err(format!(
                "Exec lifecycle hook ([{shown}]) failed - error: command '{shown}' exited with {}: , message: {text:?}",
                outcome.exit_code
            ));
        }
    } else if let Some(action) = &hook.http_get {
        let (status, _) = http_action::get(action, container, pod_ip, timeout)
            .await
            .map_err(|error| format!("HTTP lifecycle hook failed: {error}"))?;
        if !(200..400).contains(&status.as_u16()) {
            return Err(format!("HTTP lifecycle hook failed with statuscode: {}", status.as_u16()));
        }
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)).min(timeout)).await;
    } else {
        return Err("the lifecycle hook has no supported action".to_owned());
    }
    Ok(())
}

/// Ends one container within `grace`.
///
/// # Errors
/// The runtime's.
pub async fn stop_container(
    context: &Context,
    pod: &Pod,
    seen: &ObservedContainer,
    pod_ip: &str,
    grace: Duration,
    message: &str,
) -> Result<(), RuntimeError> {
    context.container_event(pod, &seen.name, EventKind::Normal, "Killing", message);
    let started = Instant::now();
    let container = pod_view::container(pod, &seen.name);
    let pre_stop = container.as_ref().and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(container), Some(hook)) = (&container, pre_stop)
        && !grace.is_zero()
        && seen.state == RunState::Running
    {
        let hook = run_hook(context, hook, container, &seen.id, pod_ip, grace);
        match tokio::time::timeout(grace, hook).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                context.container_event(
                    pod,
                    &seen.name,
                    EventKind::Warning,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {error}"),
                );
            }
            Err(_) => tracing::info!(
                pod = pod_view::describe(pod),
                container = seen.name,
                "preStop took all the grace"
            ),
        }
    }
    let left = if grace.is_zero() { grace } else { grace.saturating_sub(started.elapsed()).max(GRACE_MIN) };
    context.runtime.stop_container(&seen.id, left).await
}

/// Ends everything of a pod: regular and init containers at once, then sidecars in reverse order, then the sandboxes.
///
/// # Errors
/// The runtime's first one; what was ended stays ended.
pub async fn stop_pod(
    context: &Context,
    pod: &Pod,
    runtime: &RuntimePod,
    grace: Duration,
) -> Result<(), RuntimeError> {
    let ip = runtime.ready_sandbox().and_then(|sandbox| sandbox.ips.first().cloned()).unwrap_or_default();
    let deadline = Instant::now() + grace;
    let sidecars: Vec<&str> = pod_view::init_containers(pod)
        .iter()
        .filter(|container| pod_view::is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let alive: Vec<&ObservedContainer> = runtime
        .containers
        .iter()
        .filter(|seen| matches!(seen.state, RunState::Running | RunState::Unknown))
        .collect();
    let stop = |seen: &ObservedContainer, grace: Duration| {
        let message = format!("Stopping container {}", seen.name);
        let (seen, ip) = (seen.clone(), ip.clone());
        async move { stop_container(context, pod, &seen, &ip, grace, &message).await }
    };
    let regular = alive.iter().filter(|seen| !sidecars.contains(&seen.name.as_str()));
    for result in join_all(regular.map(|seen| stop(seen, grace))).await {
        result?;
    }
    for name in sidecars.iter().rev() {
        if let Some(seen) = alive.iter().find(|seen| seen.name == *name) {
            stop(seen, deadline.saturating_duration_since(Instant::now())).await?;
        }
    }
    for sandbox in &runtime.sandboxes {
        context.runtime.stop_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Removes all containers and sandboxes of a pod from the runtime, and its log files.
///
/// # Errors
/// The runtime's.
pub async fn remove_all(context: &Context, pod: &Pod, runtime: &RuntimePod) -> Result<(), RuntimeError> {
    for container in &runtime.containers {
        context.runtime.remove_container(&container.id).await?;
    }
    for sandbox in &runtime.sandboxes {
        context.runtime.remove_sandbox(&sandbox.id).await?;
    }
    match std::fs::remove_dir_all(context.log_directory(pod)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(pod = pod_view::describe(pod), %error, "cannot remove the pod's logs");
        }
        _ => {}
    }
    Ok(())
}
