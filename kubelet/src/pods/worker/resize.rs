//! A worker's part in resizes: takes what the spec asks for when the node has it, and brings it into the cgroups.
//!
//! Never here: whether it fits; see [`crate::pods::allocated`].

use std::sync::Arc;

use coracle_client::event_recorder::EventKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::observed::{RunState, RuntimePod};
use kubelet_core::pod_view;
use kubelet_core::resize::{self, Allocation};
use kubelet_core::resources::{self, CgroupValues};

use super::super::container_config;
use super::{RETRY_CONTAINER, Worker, later};

impl Worker {
    /// Takes over the newest version of the pod, with the resources that it was given.
    pub(super) fn take(&mut self, newest: Arc<Pod>) {
        let wanted = resize::desired(&newest);
        if resize::agree(&wanted, &self.allocation) {
            self.resizes.pending = None;
            self.allocation = wanted;
            self.pod = newest;
            return;
        }
        let context = Arc::clone(&self.context);
        let generation = newest.metadata.generation;
        let ending = self.failure.is_some() || self.known_phase_is_terminal() || self.deleting();
        let given = match ending {
            true => None,
            false => Some(context.allocated.resize(&newest, context.settings.allocatable)),
        };
        match given {
            Some(Ok(())) => {
                self.allocation = wanted;
                self.resizes.pending = None;
                self.resizes.in_progress = Some((None, generation));
                let text = resize::event_text("Pod resize started", &newest, None);
                context.pod_event(&newest, EventKind::Normal, "ResizeStarted", text);
                self.pod = newest;
                return;
            }
            Some(Err(pending)) => {
                let known = self
                    .resizes
                    .pending
                    .as_ref()
                    .is_some_and(|(before, at)| before.reason == pending.reason && *at == generation);
                if !known {
                    let prefix = format!("Pod resize {}", pending.reason);
                    let text = resize::event_text(&prefix, &newest, Some(&pending.message));
                    let reason = format!("Resize{}", pending.reason);
                    context.pod_event(&newest, EventKind::Warning, &reason, text);
                }
                self.resizes.pending = Some((pending, generation));
            }
            None => {}
        }
        self.pod = Arc::new(resize::with_allocation(&newest, &self.allocation));
    }

    /// Containers that ran before this kubelet did have what the pod had been given until now.
    pub(super) fn note_found(&mut self, runtime: &RuntimePod, before: &Allocation) {
        for seen in runtime.containers.iter().filter(|seen| seen.state == RunState::Running) {
            if let Some(had) = before.get(&seen.name) {
                self.actuated.entry(seen.id.clone()).or_insert_with(|| had.clone());
            }
        }
    }

    /// What runs has what it was given: the resize is over.
    pub(super) fn note_resized(&mut self, runtime: &RuntimePod) {
        self.actuated.retain(|id, _| runtime.containers.iter().any(|seen| seen.id == *id));
        if self.resizes.in_progress.is_some() && !resize::is_in_progress(&self.pod, runtime, &self.actuated) {
            if let Err(error) = self.settle_pod_cgroup(runtime) {
                self.note_error(error);
                return;
            }
            self.resizes.in_progress = None;
            let text = resize::event_text("Pod resize completed", &self.pod, None);
            self.context.pod_event(&self.pod, EventKind::Normal, "ResizeCompleted", text);
        }
    }

    /// A container was started with what the pod was given.
    pub(super) fn note_started(&mut self, id: &str, name: &str) {
        if let Some(given) = self.allocation.get(name) {
            self.actuated.insert(id.to_owned(), given.clone());
        }
    }

    /// Changes a running container's cgroup. The error is when to try again.
    pub(super) async fn update_container(
        &mut self,
        id: &str,
        name: &str,
        runtime: &RuntimePod,
    ) -> Result<(), Option<Timestamp>> {
        match self.try_update(id, name, runtime).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.note_error(error);
                Err(Some(later(RETRY_CONTAINER)))
            }
        }
    }

    fn note_error(&mut self, error: String) {
        let generation = self.resizes.in_progress.as_ref().and_then(|(_, generation)| *generation);
        tracing::warn!(pod = pod_view::describe(&self.pod), error, "cannot resize the pod yet");
        let told =
            self.resizes.in_progress.as_ref().is_some_and(|(before, _)| before.as_ref() == Some(&error));
        if !told {
            let text = resize::event_text("Pod resize error", &self.pod, Some(&error));
            self.context.pod_event(&self.pod, EventKind::Warning, "ResizeError", text);
        }
        self.resizes.in_progress = Some((Some(error), generation.or(self.pod.metadata.generation)));
    }

    async fn try_update(&mut self, id: &str, name: &str, runtime: &RuntimePod) -> Result<(), String> {
        let pod = Arc::clone(&self.pod);
        let context = Arc::clone(&self.context);
        let Some(container) = pod_view::container(&pod, name) else { return Ok(()) };
        // The pod's own limits grow before those of its containers and shrink after them.
        self.settle_pod_cgroup(runtime)?;
        let mut wanted = container_config::linux_resources(&context, &pod, &container);
        if wanted.cpu_quota == 0 {
            wanted.cpu_quota = -1;
        }
        context.runtime.update_container(id, wanted).await.map_err(|error| error.message)?;
        self.note_started(id, name);
        self.settle_pod_cgroup(runtime)
    }

    /// Makes the pod's cgroup, or while it is resized makes it large enough for both sizes.
    pub(super) fn ensure_pod_cgroup(&self, runtime: &RuntimePod) -> Result<(), String> {
        match &self.context.cgroups {
            None => Ok(()),
            Some(_) if self.resizes.in_progress.is_some() => self.settle_pod_cgroup(runtime),
            Some(cgroups) => {
                let pids = self.context.settings.pod_pids_limit;
                cgroups.create(&self.pod, pids).map_err(|error| error.to_string())
            }
        }
    }

    /// Gives the pod's cgroup the larger of what its containers have and what they are to have.
    fn settle_pod_cgroup(&self, runtime: &RuntimePod) -> Result<(), String> {
        let Some(cgroups) = &self.context.cgroups else { return Ok(()) };
        let have: Allocation = runtime
            .containers
            .iter()
            .filter(|seen| seen.state == RunState::Running)
            .filter_map(|seen| Some((seen.name.clone(), self.actuated.get(&seen.id)?.clone())))
            .collect();
        let before = resources::pod_values(&resize::with_allocation(&self.pod, &have));
        let after = resources::pod_values(&self.pod);
        let larger = |one: Option<i64>, other: Option<i64>| one.zip(other).map(|(one, other)| one.max(other));
        let values = CgroupValues {
            cpu_shares: before.cpu_shares.max(after.cpu_shares),
            cpu_quota: larger(before.cpu_quota, after.cpu_quota),
            memory_limit: larger(before.memory_limit, after.memory_limit),
        };
        cgroups.set(&self.pod, &values).map_err(|error| error.to_string())
    }
}
