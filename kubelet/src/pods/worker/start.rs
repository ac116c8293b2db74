//! A worker's way from nothing to running: what a pod needs first, its sandbox, its containers.
//!
//! Never here: when to do it.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::event_recorder::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::observed::RuntimePod;
use kubelet_core::pod_status::Waiting;
use kubelet_core::{pod_actions, pod_view};

use super::super::container_config::{self, Making};
use super::super::termination::{self, Ending};
use super::super::{images, sandbox_config};
use super::{Next, RETRY_CONTAINER, Worker, later, retry_soon};
use crate::context::Context;
use crate::runtime::observe::observe;
use crate::volumes::MountError;

const HOOK_TIMEOUT: Duration = Duration::from_secs(3600);

impl Worker {
    /// What a pod needs before its sandbox: network on the node, cgroup, directories, volumes. `Some` when it must wait.
    pub(super) async fn prepare(&mut self, runtime: &RuntimePod) -> Option<Next> {
        let context = Arc::clone(&self.context);
        if !pod_view::host_network(&self.pod) {
            let ready = context.network_ready.read().clone();
            if let Err(why) = ready {
                let text = format!("network is not ready: {why}");
                context.pod_event(&self.pod, EventKind::Warning, "NetworkNotReady", text);
                return Some(Next::Wait(Some(later(SignedDuration::from_secs(1)))));
            }
        }
        if context.runtime.is_hollow() {
            return None;
        }
        if let Err(error) = self.ensure_pod_cgroup(runtime) {
            let text = format!("unable to ensure pod container exists: {error}");
            context.pod_event(&self.pod, EventKind::Warning, "FailedCreatePodContainer", text);
            return Some(Next::Wait(Some(later(RETRY_CONTAINER))));
        }
        if let Err(error) = std::fs::create_dir_all(context.log_directory(&self.pod)) {
            tracing::error!(%error, "cannot make the pod's log directory");
            return Some(retry_soon());
        }
        let key = pod_view::uid(&self.pod).to_owned();
        let now = Timestamp::now();
        if let Some(last) = self.mounts.last_update(&key)
            && let Some((_, until)) = self.mounts.waiting(&key, last, now)
        {
            return Some(Next::Wait(Some(until)));
        }
        match context.volumes.set_up(&self.pod, &context.facts(self.pod_ips(runtime))).await {
            Ok(_) => {
                self.mounts.reset(&key);
                None
            }
            Err(error) => {
                let claimed = matches!(error, MountError::Claim { .. });
                let told = format!("{key}/claim");
                let last = self.mounts.last_update(&told).filter(|_| claimed);
                if last.and_then(|last| self.mounts.waiting(&told, last, now)).is_none() {
                    context.pod_event(&self.pod, EventKind::Warning, "FailedMount", error.to_string());
                    self.mounts.advance(&told, now, now);
                }
                if claimed {
                    // It may be bound at any moment, and nobody tells.
                    return Some(retry_soon());
                }
                self.mounts.advance(&key, now, now);
                let until = self.mounts.waiting(&key, now, now).map(|(_, until)| until);
                Some(Next::Wait(until))
            }
        }
    }

    /// Makes the next sandbox, unless the last one was made too recently. The error is when to try again.
    pub(super) async fn create_sandbox(&mut self, attempt: u32) -> Result<(), Option<Timestamp>> {
        let context = Arc::clone(&self.context);
        let key = pod_view::uid(&self.pod).to_owned();
        let now = Timestamp::now();
        if let Some(last) = self.sandboxes.last_update(&key)
            && let Some((_, until)) = self.sandboxes.waiting(&key, last, now)
        {
            return Err(Some(until));
        }
        let permit = context.starts.acquire().await.ok();
        let made = sandbox_config::build(&context, &self.pod, attempt)
            .and_then(|config| Ok((config, runtime_handler(&context, &self.pod)?)));
        let result = match made {
            Ok((config, handler)) => {
                context.runtime.run_sandbox(config, &handler).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        drop(permit);
        // A success counts too: a sandbox that dies at once must not be made again and again without a pause.
        self.sandboxes.advance(&key, now, now);
        match result {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                context.pod_event(&self.pod, EventKind::Warning, "FailedCreatePodSandBox", text);
                Err(self.sandboxes.waiting(&key, now, now).map(|(_, until)| until))
            }
        }
    }

    /// Gets the image, creates and starts a container, runs its postStart hook. The error is what the status shows, and
    /// when to try again.
    pub(super) async fn start_container(
        &mut self,
        name: &str,
        restart_count: u32,
        failed_at: Option<Timestamp>,
        runtime: &RuntimePod,
    ) -> Result<(), (Waiting, Timestamp)> {
        let context = Arc::clone(&self.context);
        let pod = Arc::clone(&self.pod);
        let failed = |reason: &str, message: String| {
            context.container_event(&pod, name, EventKind::Warning, "Failed", format!("Error: {message}"));
            (Waiting { reason: reason.to_owned(), message }, later(RETRY_CONTAINER))
        };
        let Some(container) = pod_view::container(&pod, name) else { return Ok(()) };
        let container = container.as_ref();
        let Some(sandbox) = runtime.ready_sandbox() else { return Ok(()) };
        let sandbox_config = sandbox_config::build(&context, &pod, sandbox.attempt)
            .map_err(|error| failed("CreateContainerConfigError", error))?;
        let deletion = self.deletion();
        let image = tokio::select! {
            image = images::ensure(
                &context, &pod, container, &sandbox_config, &mut self.pulls, &mut self.pull_failures,
            ) => {
                image.map_err(|problem| {
                    let at = problem.retry_at.unwrap_or_else(|| later(RETRY_CONTAINER));
                    let text = format!("Error: {}", problem.waiting.reason);
                    context.container_event(&pod, name, EventKind::Warning, "Failed", text);
                    (problem.waiting, at)
                })?
            }
            () = deletion => return Ok(()),
        };
        let pod_ips = self.pod_ips(runtime);
        let target =
            target_id(&pod, name, runtime).map_err(|error| failed("CreateContainerConfigError", error))?;
        let making = Making { pod: &pod, container, restart_count, pod_ips: &pod_ips, image: &image, target };
        let config = container_config::build(&context, &making)
            .await
            .map_err(|error| failed("CreateContainerConfigError", error))?;
        if let Some(failed_at) = failed_at {
            self.restarts.advance(&pod_actions::backoff_key(&pod, container), failed_at, Timestamp::now());
        }
        let id = context
            .runtime
            .create_container(&sandbox.id, config, sandbox_config)
            .await
            .map_err(|error| failed("CreateContainerError", error.message))?;
        context.container_event(&pod, name, EventKind::Normal, "Created", "Container created");
        context
            .runtime
            .start_container(&id)
            .await
            .map_err(|error| failed("RunContainerError", error.message))?;
        self.note_started(&id, name);
        context.container_event(&pod, name, EventKind::Normal, "Started", "Container started");
        let post_start = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = post_start.filter(|_| !context.runtime.is_hollow()) {
            let ip = pod_ips.first().cloned().unwrap_or_default();
            let deletion = self.deletion();
            let result = tokio::select! {
                result = termination::run_hook(&context, &pod, hook, container, &id, &ip, HOOK_TIMEOUT) => result,
                () = deletion => Ok(()),
            };
            if let Err(text) = result {
                tracing::warn!(pod = pod_view::describe(&pod), name, text, "postStart hook failed");
                let reason = "FailedPostStartHook";
                context.container_event(&pod, name, EventKind::Warning, reason, "PostStartHook failed");
                let seen = observe(context.runtime.as_ref(), pod_view::uid(&pod)).await;
                let seen = seen.map(|now| now.containers.into_iter().find(|seen| seen.id == id));
                let ending = Ending { context: &context, pod: &pod, pod_ip: ip };
                let stopped = match seen {
                    Ok(Some(seen)) => ending.container(&seen, self.grace(), Some(reason)).await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = stopped {
                    tracing::warn!(%error, "cannot stop a container whose postStart hook failed");
                }
                return Err((
                    Waiting { reason: "PostStartHookError".to_owned(), message: text },
                    later(RETRY_CONTAINER),
                ));
            }
        }
        Ok(())
    }
}

/// The container whose processes an ephemeral one is to see; `None` for its own alone.
fn target_id<'a>(pod: &Pod, name: &str, runtime: &'a RuntimePod) -> Result<Option<&'a str>, String> {
    let ephemeral = pod_view::ephemeral_containers(pod).iter().find(|container| container.name == name);
    let target = ephemeral.and_then(|container| container.target_container_name.as_deref());
    match target.filter(|target| !target.is_empty()) {
        None => Ok(None),
        Some(target) => runtime
            .newest(target)
            .map(|seen| Some(seen.id.as_str()))
            .ok_or_else(|| format!("unable to find target container {target}")),
    }
}

/// The handler of the pod's RuntimeClass; empty for the runtime's default.
fn runtime_handler(context: &Context, pod: &Pod) -> Result<String, String> {
    let name = pod_view::spec(pod).runtime_class_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(String::new());
    }
    let class =
        context.runtime_classes.store().list().into_iter().find(|c| c.metadata.name.as_deref() == Some(name));
    class.map(|class| class.handler.clone()).ok_or_else(|| {
        format!("failed to get sandbox runtime: runtimeclass.node.k8s.io \"{name}\" not found")
    })
}
