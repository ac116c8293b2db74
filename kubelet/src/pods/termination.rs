//! Ending containers with grace: preStop hook, SIGTERM, SIGKILL; sidecars after all others, last one first.
//!
//! Never here: the decision to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coracle_client::event_recorder::EventKind;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use kubelet_core::observed::{ObservedContainer, RunState, RuntimePod};
use kubelet_core::{pod_view, termination_order};
use tokio_util::sync::CancellationToken;

use super::http_action;
use crate::context::Context;
use crate::runtime::RuntimeError;

/// What is left for SIGTERM when the preStop hook, or those who had to end before, have used up the grace period.
const GRACE_MIN: Duration = Duration::from_secs(2);
const OUTPUT_BYTES_MAX: usize = 1024;

/// Runs a lifecycle hook.
///
/// # Errors
/// What went wrong, as upstream shows it in the container's status. Events do not say it: it may hold secrets.
pub async fn run_hook(
    context: &Context,
    pod: &Pod,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(), String> {
    let failed = |which: String, error: String| {
        let (name, pod) = (&container.name, pod_view::describe(pod));
        format!("{which} for Container {name:?} in Pod {pod:?} failed - error: {error}")
    };
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let which = format!("Exec lifecycle hook ([{shown}])");
        let (error, output) = match context.runtime.exec_sync(container_id, command, timeout).await {
            Ok(outcome) if outcome.exit_code == 0 => return Ok(()),
            Ok(outcome) => {
                let stderr = String::from_utf8_lossy(&outcome.stderr).into_owned();
                let error = format!("command '{shown}' exited with {}: {stderr}", outcome.exit_code);
                (error, [outcome.stdout, outcome.stderr].concat())
            }
            Err(error) => (error.to_string(), Vec::new()),
        };
        let output = String::from_utf8_lossy(&output[..output.len().min(OUTPUT_BYTES_MAX)]).into_owned();
        return Err(format!("{}, message: {output:?}", failed(which, error)));
    }
    if let Some(action) = &hook.http_get {
        let told = match http_action::get_for_hook(action, container, pod_ip, timeout).await {
            // Any answer will do.
            Ok(told) => told,
            Err(error) => {
                let path = action.path.as_deref().unwrap_or_default();
                return Err(failed(format!("HTTP lifecycle hook ({path})"), error));
            }
        };
        if let Some(host) = told {
            let text = format!(
                "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
            );
            context.pod_event(pod, EventKind::Warning, "LifecycleHTTPFallback", text);
        }
        return Ok(());
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)).min(timeout)).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".to_owned())
}

/// What is to end, and how it is reached.
pub struct Ending<'a> {
    /// The node's parts.
    pub context: &'a Context,
    /// The pod.
    pub pod: &'a Pod,
    /// Where HTTP hooks go; empty if it has no address.
    pub pod_ip: String,
}

/// What a container waits for after its preStop hook, and whom it tells when it has ended.
struct Turn {
    before: Vec<CancellationToken>,
    ended: CancellationToken,
}

impl Turn {
    /// Until all before it have ended, or its time is up.
    async fn come(&self, patience: Duration) {
        let all = async {
            for token in &self.before {
                token.cancelled().await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

impl Ending<'_> {
    /// Ends one container within `grace`. `message` is that of the event; none for upstream's usual one.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn container(
        &self,
        seen: &ObservedContainer,
        grace: Duration,
        message: Option<&str>,
    ) -> Result<(), RuntimeError> {
        self.container_in_turn(seen, grace, message, None).await
    }

    async fn container_in_turn(
        &self,
        seen: &ObservedContainer,
        grace: Duration,
        message: Option<&str>,
        turn: Option<&Turn>,
    ) -> Result<(), RuntimeError> {
        let Self { context, pod, pod_ip } = self;
        let message = message.map_or_else(|| format!("Stopping container {}", seen.name), str::to_owned);
        context.container_event(pod, &seen.name, EventKind::Normal, "Killing", message);
        let started = Instant::now();
        let container = pod_view::container(pod, &seen.name);
        let pre_stop =
            container.as_ref().and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
        if let (Some(container), Some(hook)) = (&container, pre_stop)
            && !grace.is_zero()
            && seen.state == RunState::Running
        {
            let hook = run_hook(context, pod, hook, container, &seen.id, pod_ip, grace);
            let (pod_name, name) = (pod_view::describe(pod), &seen.name);
            match tokio::time::timeout(grace, hook).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(pod = pod_name, container = name, error, "preStop hook failed");
                    let text = "PreStopHook failed";
                    context.container_event(pod, name, EventKind::Warning, "FailedPreStopHook", text);
                }
                Err(_) => {
                    tracing::info!(
                        pod = pod_name,
                        container = name,
                        "PreStop hook not completed in grace period"
                    );
                }
            }
        }
        if let Some(turn) = turn {
            turn.come(grace.saturating_sub(started.elapsed())).await;
        }
        let left = grace.saturating_sub(started.elapsed()).max(GRACE_MIN);
        let result = context.runtime.stop_container(&seen.id, left).await;
        if let Some(turn) = turn {
            turn.ended.cancel();
        }
        result
    }

    /// Ends all containers that run: their preStop hooks at once, then regular containers, then sidecars in reverse
    /// order, all within `grace`.
    ///
    /// # Errors
    /// The runtime's first one; what was ended stays ended.
    pub async fn containers(&self, runtime: &RuntimePod, grace: Duration) -> Result<(), RuntimeError> {
        let alive: Vec<&ObservedContainer> = runtime
            .containers
            .iter()
            .filter(|seen| matches!(seen.state, RunState::Running | RunState::Unknown))
            .collect();
        let names: Vec<&str> = alive.iter().map(|seen| seen.name.as_str()).collect();
        let ended: BTreeMap<&str, CancellationToken> =
            names.iter().map(|name| (*name, CancellationToken::new())).collect();
        let waits = termination_order::waits_for(self.pod, &names);
        let stops = alive.iter().map(|seen| {
            let before = waits.get(&seen.name).into_iter().flatten();
            let turn = Turn {
                before: before.filter_map(|name| ended.get(name.as_str()).cloned()).collect(),
                ended: ended.get(seen.name.as_str()).cloned().unwrap_or_default(),
            };
            async move { self.container_in_turn(seen, grace, None, Some(&turn)).await }
        });
        join_all(stops).await.into_iter().collect()
    }

    /// Ends everything of a pod: its containers, then its sandboxes.
    ///
    /// # Errors
    /// The runtime's first one; what was ended stays ended.
    pub async fn all(&self, runtime: &RuntimePod, grace: Duration) -> Result<(), RuntimeError> {
        self.containers(runtime, grace).await?;
        for sandbox in &runtime.sandboxes {
            self.context.runtime.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }
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
