//! One pod's life on this node: observes, asks the core, does, reports; until nothing of the pod is left.
//!
//! Never here: decisions about restarts, phases or conditions; those are the core's.

mod resize;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_client::event_recorder::EventKind;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet_core::backoff::Backoff;
use kubelet_core::deadline;
use kubelet_core::observed::RuntimePod;
use kubelet_core::pod_actions::{self, Action, KillReason};
use kubelet_core::pod_status::{self, StatusInput, Waiting};
use kubelet_core::pod_view;
use kubelet_core::resize::{Actuated, Allocation, Progress, reported, reported_actuated, with_allocation};
use tokio::sync::{Notify, watch};

use super::images::PullFailures;
use super::prober::Prober;
use super::status_manager::OWN_CONDITIONS;
use super::termination::{self, Ending};
use crate::context::Context;
use crate::runtime::observe::observe;

const RETRY: Duration = Duration::from_secs(1);
/// After a container could not be made; a change of what it needs comes first.
const RETRY_CONTAINER: SignedDuration = SignedDuration::from_secs(10);

/// How the others reach a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    pod: watch::Sender<Arc<Pod>>,
    wake: Arc<Notify>,
    signals: Arc<Signals>,
}

#[derive(Default)]
struct Signals {
    /// The pod no longer exists in the API server.
    vanished: AtomicBool,
    /// Something that the pod refers to has changed: what failed is worth another try at once.
    content_changed: AtomicBool,
}

impl WorkerHandle {
    /// Starts a worker. `refused`: the node does not take the pod. `finished` is called with the pod's UID when nothing is
    /// left of it.
    pub fn start(
        context: Arc<Context>,
        pod: Arc<Pod>,
        refused: Option<Waiting>,
        finished: impl FnOnce(&str) + Send + 'static,
    ) -> Self {
        if let Some(refused) = &refused {
            let message = refused.message.strip_prefix("Pod was rejected: ").unwrap_or(&refused.message);
            context.pod_event(&pod, EventKind::Warning, &refused.reason, message);
        }
        let (allocation, actuated) = (reported(&pod), reported_actuated(&pod));
        let desired = Arc::clone(&pod);
        let pod = Arc::new(with_allocation(&pod, &allocation));
        let (sender, receiver) = watch::channel(Arc::clone(&desired));
        let wake = Arc::new(Notify::new());
        let signals = Arc::new(Signals::default());
        let restarts = Backoff::up_to(context.settings.restart_backoff_max);
        let worker = Worker {
            prober: Prober::new(Arc::clone(&wake)),
            released: context.allocated.released(),
            context,
            pod,
            desired,
            allocation,
            actuated,
            resizes: Progress::default(),
            incoming: receiver,
            wake: Arc::clone(&wake),
            signals: Arc::clone(&signals),
            restarts,
            pulls: Backoff::default(),
            pull_failures: PullFailures::new(),
            sandboxes: Backoff::new(SignedDuration::from_secs(2), SignedDuration::from_secs(60)),
            mounts: Backoff::new(SignedDuration::from_secs(1), SignedDuration::from_secs(60)),
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            status: None,
            live_phase: None,
            failure: refused,
            stopped: false,
            torn_down: false,
        };
        tokio::spawn(worker.run(finished));
        Self { pod: sender, wake, signals }
    }

    /// A newer version of the pod.
    pub fn update(&self, pod: Arc<Pod>) {
        self.pod.send_replace(pod);
    }

    /// Something may have happened.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A ConfigMap or Secret of the pod has changed, or the node's network has become ready.
    pub fn content_changed(&self) {
        self.signals.content_changed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The pod no longer exists in the API server.
    pub fn vanished(&self) {
        self.signals.vanished.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

enum Next {
    /// Again at once.
    Again,
    /// When something happens, or at that time.
    Wait(Option<Timestamp>),
    /// Never.
    Finished,
}

struct Worker {
    context: Arc<Context>,
    /// The pod with the resources that it was given.
    pod: Arc<Pod>,
    /// The pod as it is in the API server.
    desired: Arc<Pod>,
    allocation: Allocation,
    /// What the running containers have got.
    actuated: Actuated,
    resizes: Progress,
    /// Told when the node may have more to give.
    released: watch::Receiver<()>,
    incoming: watch::Receiver<Arc<Pod>>,
    wake: Arc<Notify>,
    signals: Arc<Signals>,
    prober: Prober,
    restarts: Backoff,
    pulls: Backoff,
    pull_failures: PullFailures,
    sandboxes: Backoff,
    mounts: Backoff,
    /// Why containers are not there, by name.
    waiting: BTreeMap<String, Waiting>,
    /// Containers that could not be made: not before then, unless what they need changes.
    held: BTreeMap<String, Timestamp>,
    /// The status computed last.
    status: Option<PodStatus>,
    /// The last phase in which it had not ended.
    live_phase: Option<String>,
    /// The pod was refused by this node, or its time was up.
    failure: Option<Waiting>,
    stopped: bool,
    torn_down: bool,
}

impl Worker {
    async fn run(mut self, finished: impl FnOnce(&str)) {
        loop {
            let until = match self.round().await {
                Next::Again => continue,
                Next::Finished => break,
                Next::Wait(until) => [until, self.deadline()].into_iter().flatten().min(),
            };
            let sleep = until.map(|at| {
                let left = at.duration_since(Timestamp::now());
                Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(10))
            });
            tokio::select! {
                () = self.wake.notified() => {}
                changed = self.incoming.changed() => if changed.is_err() {
                    // The manager is gone: the kubelet ends, containers go on.
                    return;
                },
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
                Ok(()) = self.released.changed(), if self.resizes.pending.is_some() => {}
            }
        }
        self.context.allocated.release(pod_view::uid(&self.pod));
        finished(pod_view::uid(&self.pod));
    }

    fn deleting(&self) -> bool {
        self.signals.vanished.load(Ordering::Acquire)
            || self.incoming.borrow().metadata.deletion_timestamp.is_some()
    }

    async fn round(&mut self) -> Next {
        let newer = self.incoming.borrow_and_update().clone();
        // Labels and annotations may be named in the environment and in paths.
        let edited = newer.metadata.generation != self.desired.metadata.generation
            || newer.spec != self.desired.spec
            || newer.metadata.labels != self.desired.metadata.labels
            || newer.metadata.annotations != self.desired.metadata.annotations;
        self.desired = Arc::clone(&newer);
        let before = self.allocation.clone();
        self.take(newer);
        if self.signals.content_changed.swap(false, Ordering::AcqRel) || edited {
            self.held.clear();
            self.mounts.reset(pod_view::uid(&self.pod));
        }
        let uid = pod_view::uid(&self.pod).to_owned();
        let runtime = match observe(self.context.runtime.as_ref(), &uid).await {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::warn!(pod = pod_view::describe(&self.pod), %error, "cannot observe the pod");
                return retry_soon();
            }
        };
        self.note_found(&runtime, &before);
        if !self.deleting() && self.deadline().is_some_and(|at| at <= Timestamp::now()) {
            let exceeded = deadline::exceeded();
            self.context.pod_event(&self.pod, EventKind::Normal, &exceeded.reason, exceeded.message.clone());
            self.failure = Some(exceeded);
        }
        let ended = self.failure.is_some() || self.known_phase_is_terminal();
        let ending = ended || self.deleting();
        self.prober.update(&self.context, &self.pod, &runtime, ending);
        if ending { self.end(runtime).await } else { self.sync(runtime).await }
    }

    /// When the pod has been active for too long; `None` if that does not matter (any more).
    fn deadline(&self) -> Option<Timestamp> {
        if self.failure.is_some() || self.known_phase_is_terminal() {
            return None;
        }
        let reported = self.status.as_ref().or(self.pod.status.as_ref());
        deadline::ends_at(&self.pod, reported?.start_time.as_ref()?.0)
    }

    fn known_phase_is_terminal(&self) -> bool {
        let phase = match &self.status {
            Some(status) => status.phase.as_deref().unwrap_or_default(),
            None => pod_view::phase(&self.pod),
        };
        matches!(phase, "Succeeded" | "Failed")
    }

    /// Computes the status and hands it on.
    fn publish(&mut self, runtime: &RuntimePod, terminal: bool) {
        let mut known = (*self.pod).clone();
        if let Some(last) = &self.status {
            let mut status = last.clone();
            let foreign = known.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let foreign: Vec<_> = foreign
                .filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()))
                .cloned()
                .collect();
            status.conditions.get_or_insert_default().extend(foreign);
            known.status = Some(status);
        }
        let status = pod_status::compute(&StatusInput {
            pod: &known,
            runtime,
            probes: &self.prober.results(),
            actuated: &self.actuated,
            resizes: &self.resizes,
            waiting: &self.waiting,
            runtime_name: &self.context.runtime_name,
            host_ips: &self.context.node_ips,
            terminal,
            failure: self.failure.as_ref(),
            now: Timestamp::now(),
        });
        self.status = Some(status.clone());
        let status = self.until_all_has_ended(status, runtime, terminal);
        if !self.signals.vanished.load(Ordering::Acquire) {
            let uid = pod_view::uid(&self.pod);
            let shown = match self.context.static_pods.get(uid) {
                Some(_) => self.context.static_pods.mirror(uid),
                None => Some(Arc::clone(&self.pod)),
            };
            if let Some(shown) = shown {
                self.context.statuses.set(&shown, status);
            }
        }
    }

    /// That a pod has ended is said when nothing of it runs any more: until then it shows the phase it had.
    fn until_all_has_ended(
        &mut self,
        mut status: PodStatus,
        runtime: &RuntimePod,
        terminal: bool,
    ) -> PodStatus {
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            self.live_phase.clone_from(&status.phase);
        } else if !terminal && runtime.any_running() && !pod_view::is_terminal(&self.pod) {
            status.phase = self.live_phase.clone().or_else(|| Some("Running".to_owned()));
            status.reason = None;
            status.message = None;
        }
        status
    }

    async fn sync(&mut self, runtime: RuntimePod) -> Next {
        let now = Timestamp::now();
        self.note_resized(&runtime);
        let probes = self.prober.results();
        let plan = pod_actions::plan(&self.pod, &runtime, &probes, &self.actuated, &self.restarts, now);
        for (name, message) in &plan.backing_off {
            let waiting = Waiting { reason: "CrashLoopBackOff".to_owned(), message: message.clone() };
            if self.waiting.get(name) != Some(&waiting) {
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    pod_view::describe(&self.pod)
                );
                self.context.container_event(&self.pod, name, EventKind::Warning, "BackOff", text);
            }
            self.waiting.insert(name.clone(), waiting);
        }
        self.waiting.retain(|name, _| {
            runtime.newest(name).is_none_or(|seen| seen.state != kubelet_core::observed::RunState::Running)
        });
        self.publish(&runtime, false);
        if self.known_phase_is_terminal() {
            return Next::Again;
        }
        if plan.actions.is_empty() {
            let again = self.resizes.in_progress.is_some().then(|| later(RETRY_CONTAINER));
            return self.keep_current(&runtime, [plan.wake_at, again].into_iter().flatten().min()).await;
        }
        if let Some(next) = self.prepare(&runtime).await {
            return next;
        }
        let mut retry_at: Option<Timestamp> = plan.wake_at;
        let mut failed = false;
        let mut actions = plan.actions;
        if !self.kill(&mut actions, &runtime).await {
            return retry_soon();
        }
        for action in actions {
            if self.deleting() {
                return Next::Again;
            }
            if let Err(at) = self.execute(action, &runtime).await {
                failed = true;
                retry_at = [retry_at, at].into_iter().flatten().min();
            }
        }
        if !failed {
            return Next::Again;
        }
        // What did start shows at once; what did not is in `waiting`.
        if let Ok(runtime) = observe(self.context.runtime.as_ref(), pod_view::uid(&self.pod)).await {
            self.prober.update(&self.context, &self.pod, &runtime, false);
            self.publish(&runtime, false);
        }
        Next::Wait(retry_at)
    }

    /// Nothing to start or stop: volumes are kept current, old instances removed.
    async fn keep_current(&mut self, runtime: &RuntimePod, wake_at: Option<Timestamp>) -> Next {
        for id in pod_actions::superseded_containers(runtime) {
            if let Err(error) = self.context.runtime.remove_container(&id).await {
                tracing::debug!(id, %error, "cannot remove an old container yet");
            }
        }
        for id in pod_actions::superseded_sandboxes(runtime) {
            if let Err(error) = self.context.runtime.remove_sandbox(&id).await {
                tracing::debug!(id, %error, "cannot remove an old sandbox yet");
            }
        }
        if self.context.runtime.is_hollow() {
            return Next::Wait(wake_at);
        }
        let facts = self.context.facts(self.pod_ips(runtime));
        match self.context.volumes.set_up(&self.pod, &facts).await {
            Ok(renew_at) => Next::Wait([wake_at, renew_at].into_iter().flatten().min()),
            Err(error) => {
                // The pod runs on with what it has.
                tracing::info!(pod = pod_view::describe(&self.pod), %error, "volume content is not up to date");
                let retry = later(SignedDuration::from_secs(60));
                Next::Wait([wake_at, Some(retry)].into_iter().flatten().min())
            }
        }
    }

    fn pod_ips(&self, runtime: &RuntimePod) -> Vec<String> {
        if pod_view::host_network(&self.pod) {
            return self.context.node_ips.clone();
        }
        runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    /// Does one action. The error is when to try again, if it is known.
    async fn execute(&mut self, action: Action, runtime: &RuntimePod) -> Result<(), Option<Timestamp>> {
        let context = Arc::clone(&self.context);
        let pod = Arc::clone(&self.pod);
        let soon = || Some(later(SignedDuration::from_secs(1)));
        match action {
            Action::StopSandbox { id } => {
                context.pod_event(
                    &pod,
                    EventKind::Normal,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.",
                );
                let ending = Ending { context: &context, pod: &pod, pod_ip: self.pod_ip(runtime) };
                ending.containers(runtime, self.grace()).await.map_err(|_| soon())?;
                context.runtime.stop_sandbox(&id).await.map_err(|error| {
                    tracing::warn!(pod = pod_view::describe(&pod), %error, "cannot stop the sandbox");
                    soon()
                })
            }
            Action::UpdateContainer { id, name } => self.update_container(&id, &name, runtime).await,
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::RemoveContainer { id } => context.runtime.remove_container(&id).await.map_err(|_| soon()),
            Action::StopContainers => {
                let ending = Ending { context: &context, pod: &pod, pod_ip: self.pod_ip(runtime) };
                ending.containers(runtime, self.grace()).await.map_err(|_| soon())
            }
            Action::KillContainer { id, name, reason, message } => {
                self.kill_container(&id, &name, reason, &message, runtime).await.map_err(|()| soon())
            }
            Action::StartContainer { name, restart_count, failed_at } => {
                if let Some(until) = self.held.get(&name).filter(|until| **until > Timestamp::now()) {
                    return Err(Some(*until));
                }
                let result = self.start_container(&name, restart_count, failed_at, runtime).await;
                match result {
                    Ok(()) => {
                        self.waiting.remove(&name);
                        self.held.remove(&name);
                        Ok(())
                    }
                    Err((waiting, retry_at)) => {
                        self.waiting.insert(name.clone(), waiting);
                        self.held.insert(name, retry_at);
                        Err(Some(retry_at))
                    }
                }
            }
        }
    }

    /// How long containers may take to end.
    fn grace(&self) -> Duration {
        Duration::from_secs(u64::try_from(pod_view::grace_period_seconds(&self.pod)).unwrap_or(0))
    }

    /// Where HTTP hooks go; empty without an address.
    fn pod_ip(&self, runtime: &RuntimePod) -> String {
        self.pod_ips(runtime).first().cloned().unwrap_or_default()
    }

    /// Stops one container for its own sake.
    async fn kill_container(
        &self,
        id: &str,
        name: &str,
        reason: KillReason,
        message: &str,
        runtime: &RuntimePod,
    ) -> Result<(), ()> {
        let Some(seen) = runtime.containers.iter().find(|seen| seen.id == id) else { return Ok(()) };
        let own = match reason {
            KillReason::Probe(kind) => pod_view::container(&self.pod, name)
                .and_then(|container| kind.of(&container)?.termination_grace_period_seconds),
            _ => None,
        };
        let grace =
            own.map_or(self.grace(), |own| Duration::from_secs(u64::try_from(own).unwrap_or_default()));
        let ending = Ending { context: &self.context, pod: &self.pod, pod_ip: self.pod_ip(runtime) };
        ending.container(seen, grace, Some(message)).await.map_err(|error| {
            tracing::warn!(pod = pod_view::describe(&self.pod), name, %error, "cannot stop a container");
        })
    }

    /// Does the kills that a plan begins with, all at the same time. False if one of them failed: nothing may take its
    /// place yet.
    async fn kill(&self, actions: &mut Vec<Action>, runtime: &RuntimePod) -> bool {
        let is_kill = |action: &Action| matches!(action, Action::KillContainer { .. });
        let count = actions.iter().take_while(|action| is_kill(action)).count();
        let kills = actions.drain(..count).filter_map(|action| match action {
            Action::KillContainer { id, name, reason, message } => {
                Some(async move { self.kill_container(&id, &name, reason, &message, runtime).await.is_ok() })
            }
            _ => None,
        });
        join_all(kills.collect::<Vec<_>>()).await.into_iter().all(|done| done)
    }

    /// Ends when the pod is to be deleted.
    fn deletion(&self) -> impl Future<Output = ()> + use<> {
        let (mut incoming, signals, wake) =
            (self.incoming.clone(), Arc::clone(&self.signals), Arc::clone(&self.wake));
        async move {
            loop {
                if signals.vanished.load(Ordering::Acquire)
                    || incoming.borrow().metadata.deletion_timestamp.is_some()
                {
                    // What woke us is still to be looked at.
                    wake.notify_one();
                    return;
                }
                tokio::select! {
                    changed = incoming.changed() => if changed.is_err() {
                        return;
                    },
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// The pod is to end, or has: stop what runs, report, clean up, and when it is deleted remove the rest.
    async fn end(&mut self, mut runtime: RuntimePod) -> Next {
        let context = Arc::clone(&self.context);
        let uid = pod_view::uid(&self.pod).to_owned();
        if !self.stopped {
            self.publish(&runtime, false);
            match self.stop(&runtime).await {
                Ok(true) => self.stopped = true,
                Ok(false) => return Next::Again,
                Err(error) => {
                    let text = format!("error killing pod: {error}");
                    context.pod_event(&self.pod, EventKind::Warning, "FailedKillPod", text);
                    return retry_soon();
                }
            }
            match observe(context.runtime.as_ref(), &uid).await {
                Ok(now) => runtime = now,
                Err(_) => return retry_soon(),
            }
            self.prober.update(&context, &self.pod, &runtime, true);
        }
        self.publish(&runtime, true);
        context.allocated.release(&uid);
        if !self.torn_down {
            let volumes = context.volumes.tear_down(&uid);
            let cgroups = context.cgroups.as_ref().map_or(Ok(()), |cgroups| cgroups.remove(&uid));
            if let Err(error) = volumes.and(cgroups) {
                tracing::warn!(pod = pod_view::describe(&self.pod), %error, "cannot clean up the pod yet");
                return retry_soon();
            }
            self.torn_down = true;
        }
        if !self.deleting() {
            return Next::Wait(None);
        }
        if let Err(error) = termination::remove_all(&context, &self.pod, &runtime).await {
            tracing::warn!(pod = pod_view::describe(&self.pod), %error, "cannot remove the pod's containers yet");
            return retry_soon();
        }
        if self.signals.vanished.load(Ordering::Acquire) {
            context.statuses.forget(&uid);
            return Next::Finished;
        }
        context.statuses.remove(&self.pod);
        Next::Wait(None)
    }

    /// True when everything is stopped; false if a shorter grace period was asked for meanwhile.
    async fn stop(&mut self, runtime: &RuntimePod) -> Result<bool, crate::runtime::RuntimeError> {
        let seconds = pod_view::grace_period_seconds(&self.pod);
        // As upstream: even who is in a hurry gets a moment.
        let grace = self.grace().max(Duration::from_secs(1));
        let ending = Ending { context: &self.context, pod: &self.pod, pod_ip: self.pod_ip(runtime) };
        let mut incoming = self.incoming.clone();
        let shorter = async move {
            loop {
                if incoming.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if pod_view::grace_period_seconds(&incoming.borrow_and_update()) < seconds {
                    return;
                }
            }
        };
        tokio::select! {
            result = ending.all(runtime, grace) => result.map(|()| true),
            () = shorter => Ok(false),
        }
    }
}

fn later(by: SignedDuration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(by).unwrap_or(now)
}

fn retry_soon() -> Next {
    Next::Wait(Some(later(SignedDuration::from_secs(1))))
}
