//! The pod state machine: from the spec and what the runtime reports to the next actions.
//!
//! Each round the shell observes, asks [`plan`], does the actions and asks again, until there is nothing left to do or
//! only waiting. Never here: doing; remembering anything but what is passed in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::backoff::{Backoff, go_duration};
use crate::observed::{ObservedContainer, RunState, RuntimePod};
use crate::pod_view::{self, RestartPolicy};
use crate::probe::{ProbeKind, ProbeResults};
use crate::resize::{self, Actuated, Change};
use crate::spec_hash::container_hash;

/// Why a container is killed; decides events and grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Its liveness or startup probe failed.
    Probe(ProbeKind),
    /// Its spec changed.
    SpecChanged,
    /// It wants to be restarted to get other resources.
    Resize,
    /// The runtime lost track of it.
    UnknownState,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop a sandbox and everything in it: it is dead, or has no address.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Make the pod's next sandbox.
    CreateSandbox {
        /// Its number.
        attempt: u32,
    },
    /// Stop everything that still runs: what has to end is not to start again, and nothing else is left to run for.
    StopContainers,
    /// Stop one container. All of these come before what is started, and run together.
    KillContainer {
        /// The runtime's id.
        id: String,
        /// Its name.
        name: String,
        /// Why.
        reason: KillReason,
        /// Upstream's text for the `Killing` event.
        message: String,
    },
    /// Give a running container the resources that the pod was given.
    UpdateContainer {
        /// The runtime's id.
        id: String,
        /// Its name.
        name: String,
    },
    /// Remove the leftovers of a container that was created but never started.
    RemoveContainer {
        /// The runtime's id.
        id: String,
    },
    /// Create and start a container in the ready sandbox.
    StartContainer {
        /// Its name in the spec.
        name: String,
        /// How many there were before.
        restart_count: u32,
        /// The failure that backoff counts from, if it is a restart.
        failed_at: Option<Timestamp>,
    },
}

/// What is to be done now, and what waits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Containers in backoff: name to message (`CrashLoopBackOff`).
    pub backing_off: BTreeMap<String, String>,
    /// When to ask again if nothing else happens.
    pub wake_at: Option<Timestamp>,
    /// Every init container has done its work.
    pub initialized: bool,
}

/// The backoff key of a container.
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    format!("{}/{}/{}", pod_view::uid(pod), container.name, container_hash(container))
}

/// Decides what a pod that is to run needs next.
pub fn plan(
    pod: &Pod,
    runtime: &RuntimePod,
    probes: &BTreeMap<String, ProbeResults>,
    actuated: &Actuated,
    backoff: &Backoff,
    now: Timestamp,
) -> Plan {
    let mut round = Round { pod, runtime, probes, actuated, backoff, now, plan: Plan::default() };
    match usable_sandbox(pod, runtime) {
        Ok(sandbox_id) => {
            round.containers(&sandbox_id);
            // As upstream: first all that has to end, then what takes its place.
            round.plan.actions.sort_by_key(|action| !matches!(action, Action::KillContainer { .. }));
        }
        Err(stop) => {
            if round.may_run_again() {
                round.plan.actions.extend(stop.into_iter().map(|id| Action::StopSandbox { id }));
                let attempt = runtime.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
                round.plan.actions.push(Action::CreateSandbox { attempt });
            }
        }
    }
    round.plan
}

/// The sandbox to use, or the ids of those to stop before the next one is made.
fn usable_sandbox(pod: &Pod, runtime: &RuntimePod) -> Result<String, Vec<String>> {
    let ready: Vec<_> = runtime.sandboxes.iter().filter(|sandbox| sandbox.ready).collect();
    match runtime.sandboxes.first() {
        Some(newest)
            if newest.ready
                && ready.len() == 1
                && (pod_view::host_network(pod) || !newest.ips.is_empty()) =>
        {
            Ok(newest.id.clone())
        }
        // A dead sandbox is stopped too: that frees its network.
        Some(newest) => Err(std::iter::once(newest.id.clone())
            .chain(ready.iter().filter(|sandbox| sandbox.id != newest.id).map(|sandbox| sandbox.id.clone()))
            .collect()),
        None => Err(Vec::new()),
    }
}

struct Round<'a> {
    pod: &'a Pod,
    runtime: &'a RuntimePod,
    probes: &'a BTreeMap<String, ProbeResults>,
    actuated: &'a Actuated,
    backoff: &'a Backoff,
    now: Timestamp,
    plan: Plan,
}

impl Round<'_> {
    /// Without a sandbox: whether there is anything left that may run. A pod that never restarts does not begin again in
    /// a second sandbox, nor does one whose containers have all done their work.
    fn may_run_again(&self) -> bool {
        if self.runtime.containers.is_empty() {
            return true;
        }
        let init_failed_for_good = pod_view::init_containers(self.pod).iter().any(|container| {
            !pod_view::is_sidecar(container)
                && pod_view::restart_policy(self.pod) == RestartPolicy::Never
                && self
                    .runtime
                    .newest(&container.name)
                    .is_some_and(|seen| seen.state != RunState::Exited || seen.exit_code != 0)
        });
        !init_failed_for_good
            && pod_view::spec(self.pod).containers.iter().any(|container| {
                let policy = pod_view::container_restart_policy(self.pod, container);
                match self.runtime.newest(&container.name) {
                    None => true,
                    Some(seen) if seen.state == RunState::Exited => policy.restarts(seen.exit_code),
                    Some(_) => policy != RestartPolicy::Never,
                }
            })
    }

    fn in_sandbox(&self, sandbox_id: &str, name: &str) -> Option<&ObservedContainer> {
        self.runtime.containers.iter().find(|seen| seen.name == name && seen.sandbox_id == sandbox_id)
    }

    fn containers(&mut self, sandbox_id: &str) {
        let spec = pod_view::spec(self.pod);
        for ephemeral in pod_view::ephemeral_containers(self.pod) {
            self.ephemeral(sandbox_id, &ephemeral.name);
        }
        let begun =
            spec.containers.iter().any(|container| self.in_sandbox(sandbox_id, &container.name).is_some());
        if !self.init(sandbox_id, begun) {
            return;
        }
        self.plan.initialized = true;
        for container in &spec.containers {
            let policy = pod_view::container_restart_policy(self.pod, container);
            self.one(sandbox_id, container, policy);
        }
        if self.nothing_goes_on() {
            self.plan = Plan { actions: vec![Action::StopContainers], ..Plan::default() };
        }
    }

    /// Whether the last of the regular containers are to be killed for good: then sidecars and all end with them.
    fn nothing_goes_on(&self) -> bool {
        let regular = |name: &str| pod_view::spec(self.pod).containers.iter().any(|c| c.name == name);
        let is_killed = |id: &str| {
            self.plan
                .actions
                .iter()
                .any(|act| matches!(act, Action::KillContainer { id: killed, .. } if killed == id))
        };
        let starts = self
            .plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::StartContainer { name, .. } if regular(name)))
            || self.plan.backing_off.keys().any(|name| regular(name));
        let mut running = self
            .runtime
            .containers
            .iter()
            .filter(|seen| regular(&seen.name) && seen.state == RunState::Running)
            .peekable();
        !starts && running.peek().is_some() && running.all(|seen| is_killed(&seen.id))
    }

    /// An ephemeral container is started once, whatever the others do, and never again.
    fn ephemeral(&mut self, sandbox_id: &str, name: &str) {
        match self.runtime.newest(name) {
            Some(seen) if seen.state == RunState::Created && seen.sandbox_id == sandbox_id => {
                self.plan.actions.push(Action::RemoveContainer { id: seen.id.clone() });
            }
            Some(_) => return,
            None if ephemeral_has_run(self.pod, name) => return,
            None => {}
        }
        let start = Action::StartContainer { name: name.to_owned(), restart_count: 0, failed_at: None };
        self.plan.actions.push(start);
    }

    /// Init containers, in order. True when all have done their work. `begun`: the regular containers have been started
    /// in this sandbox, so only sidecars still matter.
    fn init(&mut self, sandbox_id: &str, begun: bool) -> bool {
        let init_containers = pod_view::init_containers(self.pod);
        for (index, container) in init_containers.iter().enumerate() {
            let seen = self.in_sandbox(sandbox_id, &container.name);
            if pod_view::is_sidecar(container) {
                let later_begun = begun
                    || init_containers[index + 1..]
                        .iter()
                        .any(|later| self.in_sandbox(sandbox_id, &later.name).is_some());
                let started = seen.is_some_and(|seen| {
                    seen.state == RunState::Running
                        && self.probes.get(&seen.id).copied().unwrap_or_default().started(container)
                });
                self.one(sandbox_id, container, RestartPolicy::Always);
                if !started && !later_begun {
                    return false;
                }
                continue;
            }
            if begun {
                continue;
            }
            match seen {
                Some(seen) if seen.state == RunState::Exited && seen.exit_code == 0 => {}
                Some(seen) if seen.state == RunState::Running => return false,
                _ => {
                    let policy = match pod_view::restart_policy(self.pod) {
                        RestartPolicy::Never => RestartPolicy::Never,
                        // An init container that has succeeded is not repeated.
                        _ => RestartPolicy::OnFailure,
                    };
                    self.one(sandbox_id, container, policy);
                    return false;
                }
            }
        }
        true
    }

    fn one(&mut self, sandbox_id: &str, container: &Container, policy: RestartPolicy) {
        let name = &container.name;
        let Some(seen) = self.in_sandbox(sandbox_id, name) else {
            self.start(container);
            return;
        };
        let seen = seen.clone();
        match seen.state {
            RunState::Running => self.running(container, seen, policy),
            RunState::Created => {
                self.plan.actions.push(Action::RemoveContainer { id: seen.id });
                self.start(container);
            }
            // Whether it runs is not known: two of it must never.
            RunState::Unknown => {
                let what = if self.is_init(name) { "Init container" } else { "Container" };
                self.plan.actions.push(Action::KillContainer {
                    id: seen.id,
                    name: name.clone(),
                    reason: KillReason::UnknownState,
                    message: format!("{what} is in \"unknown\" state, try killing it before restart"),
                });
                if !(self.is_init(name) && policy == RestartPolicy::Never) {
                    self.start(container);
                }
            }
            RunState::Exited if policy.restarts(seen.exit_code) => self.start(container),
            RunState::Exited => {}
        }
    }

    /// A container that runs is left alone unless its spec, a probe or its resources say otherwise.
    fn running(&mut self, container: &Container, seen: ObservedContainer, policy: RestartPolicy) {
        let name = container.name.clone();
        let init = self.is_init(&name);
        let what = if init { "Init container" } else { "Container" };
        let change =
            self.actuated.get(&seen.id).map_or(Change::None, |actual| resize::change(container, actual));
        let fatal = self.probes.get(&seen.id).and_then(ProbeResults::fatal);
        let (reason, message) = if !seen.hash.is_empty() && seen.hash != container_hash(container) {
            (KillReason::SpecChanged, format!("{what} {name} definition changed"))
        } else if let Some(kind) = fatal {
            let text = format!("{what} {name} failed {} probe", kind.word().to_lowercase());
            (KillReason::Probe(kind), text)
        } else if change == Change::Restart {
            (KillReason::Resize, format!("{what} {name} resize requires restart"))
        } else {
            if change == Change::InPlace {
                self.plan.actions.push(Action::UpdateContainer { id: seen.id, name });
            }
            return;
        };
        let restarts = policy != RestartPolicy::Never || !matches!(reason, KillReason::Probe(_));
        // Upstream says so only of regular containers.
        let message = match (restarts && !init, reason) {
            (true, KillReason::SpecChanged | KillReason::Probe(_)) => format!("{message}, will be restarted"),
            _ => message,
        };
        self.plan.actions.push(Action::KillContainer { id: seen.id, name: name.clone(), reason, message });
        match reason {
            // Whatever the policy: it did not end by itself.
            KillReason::SpecChanged | KillReason::Resize => {
                let restart_count = seen.restart_count + 1;
                self.plan.actions.push(Action::StartContainer { name, restart_count, failed_at: None });
            }
            _ if restarts => self.start(container),
            _ => {}
        }
    }

    fn is_init(&self, name: &str) -> bool {
        pod_view::init_containers(self.pod).iter().any(|container| container.name == name)
    }

    /// Starts a container unless its last failure asks to wait. What is killed in this round has not failed yet: the wait
    /// counts from the end of the one before, as upstream.
    fn start(&mut self, container: &Container) {
        let name = &container.name;
        let before = self.runtime.newest(name);
        let mut instances = self.runtime.containers.iter().filter(|seen| seen.name == *name);
        let failed_at = instances
            .find(|seen| seen.state == RunState::Exited)
            .map(|seen| seen.finished_at.unwrap_or(seen.created_at));
        if let Some(failed_at) = failed_at
            && let Some((delay, until)) =
                self.backoff.waiting(&backoff_key(self.pod, container), failed_at, self.now)
        {
            let message = format!(
                "back-off {} restarting failed container={name} pod={}",
                go_duration(delay),
                pod_view::describe(self.pod)
            );
            self.plan.backing_off.insert(name.clone(), message);
            self.plan.wake_at = Some(self.plan.wake_at.map_or(until, |at| at.min(until)));
            return;
        }
        let restart_count = match before {
            // A container that was created but not started is not counted as one.
            Some(seen) if seen.state == RunState::Created => seen.restart_count,
            Some(seen) => seen.restart_count + 1,
            None => reported_restarts(self.pod, name),
        };
        self.plan.actions.push(Action::StartContainer { name: name.clone(), restart_count, failed_at });
    }
}

/// For a container that the runtime knows nothing of: one more than the API server's count if it had run before.
fn reported_restarts(pod: &Pod, name: &str) -> u32 {
    let Some(status) = &pod.status else { return 0 };
    status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .find(|reported| reported.name == name && reported.container_id.is_some())
        .map_or(0, |reported| u32::try_from(reported.restart_count).unwrap_or(0) + 1)
}

/// Whether the API server was told of an instance that the runtime has forgotten.
fn ephemeral_has_run(pod: &Pod, name: &str) -> bool {
    let reported = pod.status.iter().flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
    reported.into_iter().any(|status| status.name == name && status.container_id.is_some())
}

/// Ended containers that are no longer needed: all but the newest of each name and, of those before it, the last that
/// ran (for `logs --previous`); and everything in old sandboxes beyond that. Ids to remove.
pub fn superseded_containers(runtime: &RuntimePod) -> Vec<String> {
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    let mut superseded = Vec::new();
    for container in &runtime.containers {
        let count = kept.entry(&container.name).or_default();
        if *count >= 2 && matches!(container.state, RunState::Exited | RunState::Created) {
            superseded.push(container.id.clone());
        } else {
            *count += 1;
        }
    }
    superseded
}

/// Dead sandboxes that hold no container any more, but for the newest. Ids to remove.
pub fn superseded_sandboxes(runtime: &RuntimePod) -> Vec<String> {
    runtime
        .sandboxes
        .iter()
        .skip(1)
        .filter(|sandbox| !sandbox.ready)
        .filter(|sandbox| !runtime.containers.iter().any(|container| container.sandbox_id == sandbox.id))
        .map(|sandbox| sandbox.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Sandbox;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    /// A world that does what it is told: containers run until they are said to end.
    struct World {
        pod: Pod,
        runtime: RuntimePod,
        probes: BTreeMap<String, ProbeResults>,
        actuated: Actuated,
        backoff: Backoff,
        now: i64,
        made: usize,
    }

    impl World {
        fn new(spec: serde_json::Value) -> Self {
            let (runtime, probes) = (RuntimePod::default(), BTreeMap::new());
            let (actuated, backoff) = (Actuated::new(), Backoff::default());
            Self { pod: pod(spec), runtime, probes, actuated, backoff, now: 1000, made: 0 }
        }

        /// One round; the actions as short words.
        fn step(&mut self) -> Vec<String> {
            let plan =
                plan(&self.pod, &self.runtime, &self.probes, &self.actuated, &self.backoff, at(self.now));
            let mut words = Vec::new();
            for action in plan.actions {
                match action {
                    Action::CreateSandbox { attempt } => {
                        words.push(format!("sandbox {attempt}"));
                        self.runtime.sandboxes.insert(
                            0,
                            Sandbox {
                                id: format!("s{attempt}"),
                                attempt,
                                ready: true,
                                created_at: at(self.now),
                                ips: vec!["10.0.0.1".into()],
                            },
                        );
                    }
                    Action::StopSandbox { id } => {
                        words.push(format!("stop {id}"));
                        self.runtime
                            .sandboxes
                            .iter_mut()
                            .filter(|s| s.id == id)
                            .for_each(|s| s.ready = false);
                        for container in self.runtime.containers.iter_mut().filter(|c| c.sandbox_id == id) {
                            if container.state == RunState::Running {
                                container.state = RunState::Exited;
                                container.exit_code = 137;
                                container.finished_at = Some(at(self.now));
                            }
                        }
                    }
                    Action::KillContainer { id, name, message, .. } => {
                        words.push(format!("kill {name}: {message}"));
                        let container = self.runtime.containers.iter_mut().find(|c| c.id == id).unwrap();
                        container.state = RunState::Exited;
                        container.exit_code = 137;
                        container.finished_at = Some(at(self.now));
                    }
                    Action::StopContainers => {
                        words.push("stop containers".to_owned());
                        let now = at(self.now);
                        let running = |seen: &&mut ObservedContainer| seen.state == RunState::Running;
                        for container in self.runtime.containers.iter_mut().filter(running) {
                            container.state = RunState::Exited;
                            container.exit_code = 137;
                            container.finished_at = Some(now);
                        }
                    }
                    Action::UpdateContainer { id, name } => {
                        words.push(format!("update {name}"));
                        let given = resize::desired(&self.pod)[&name].clone();
                        self.actuated.insert(id, given);
                    }
                    Action::RemoveContainer { id } => {
                        words.push(format!("remove {id}"));
                        self.runtime.containers.retain(|c| c.id != id);
                    }
                    Action::StartContainer { name, restart_count, failed_at } => {
                        words.push(format!("start {name} {restart_count}"));
                        let spec = pod_view::container(&self.pod, &name).unwrap().into_owned();
                        if let Some(failed_at) = failed_at {
                            self.backoff.advance(&backoff_key(&self.pod, &spec), failed_at, at(self.now));
                        }
                        self.made += 1;
                        self.runtime.containers.insert(
                            0,
                            ObservedContainer {
                                id: format!("c{}", self.made),
                                name,
                                sandbox_id: self.runtime.sandboxes[0].id.clone(),
                                state: RunState::Running,
                                created_at: at(self.now),
                                started_at: Some(at(self.now)),
                                finished_at: None,
                                exit_code: 0,
                                reason: String::new(),
                                message: String::new(),
                                image: String::new(),
                                image_id: String::new(),
                                restart_count,
                                hash: container_hash(&spec),
                            },
                        );
                    }
                }
            }
            for (name, message) in plan.backing_off {
                words.push(format!("wait {name}: {}", message.split(" restarting").next().unwrap()));
            }
            words
        }

        fn exit(&mut self, name: &str, code: i32) {
            let now = at(self.now);
            let container = self.runtime.containers.iter_mut().find(|c| c.name == name).unwrap();
            assert_eq!(container.state, RunState::Running, "{name} must run to end");
            container.state = RunState::Exited;
            container.exit_code = code;
            container.finished_at = Some(now);
        }

        fn probe(&mut self, name: &str, kind: ProbeKind, result: bool) {
            let id = self.runtime.newest(name).unwrap().id.clone();
            self.probes.entry(id).or_default().set(kind, result);
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_plain_pod_gets_a_sandbox_then_all_its_containers() {
        let mut world = World::new(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!(world.step(), ["sandbox 0"]);
        assert_eq!(world.step(), ["start a 0", "start b 0"]);
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_failures_repeat() {
        let mut world = World::new(
            json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}),
        );
        world.step();
        assert_eq!(world.step(), ["start i 0"]);
        assert_eq!(world.step(), NOTHING);
        world.exit("i", 1);
        assert_eq!(world.step(), ["start i 1"]);
        world.exit("i", 1);
        assert_eq!(world.step(), ["wait i: back-off 10s"]);
        world.now += 10;
        assert_eq!(world.step(), ["start i 2"]);
        world.exit("i", 0);
        assert_eq!(world.step(), ["start j 0"]);
        world.exit("j", 0);
        assert_eq!(world.step(), ["start a 0"]);
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn a_failed_init_container_ends_a_pod_that_never_restarts() {
        let mut world = World::new(
            json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
        );
        world.step();
        world.step();
        world.exit("i", 1);
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn sidecars_start_in_order_and_are_restarted() {
        let mut world = World::new(json!({
            "initContainers": [{"name": "side", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i"}],
            "containers": [{"name": "a"}]}));
        world.step();
        assert_eq!(world.step(), ["start side 0"]);
        assert_eq!(world.step(), NOTHING, "waits for the startup probe");
        world.probe("side", ProbeKind::Startup, true);
        assert_eq!(world.step(), ["start i 0"]);
        world.exit("i", 0);
        assert_eq!(world.step(), ["start a 0"]);
        world.exit("side", 0);
        assert_eq!(world.step(), ["start side 1"]);
    }

    #[test]
    fn an_ephemeral_container_is_started_once_and_beside_the_others() {
        let mut world = World::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
        world.step();
        assert_eq!(world.step(), ["start i 0"]);
        world.pod.spec.as_mut().unwrap().ephemeral_containers =
            serde_json::from_value(json!([{"name": "debug", "image": "demo:v1"}])).unwrap();
        assert_eq!(world.step(), ["start debug 0"], "it does not wait for the init containers");
        world.exit("i", 0);
        assert_eq!(world.step(), ["start a 0"]);
        world.exit("debug", 1);
        assert_eq!(world.step(), NOTHING);
        world.runtime.containers.retain(|seen| seen.name != "debug");
        world.pod.status = serde_json::from_value(json!({"ephemeralContainerStatuses": [
            {"name": "debug", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "x://c"}]}))
        .unwrap();
        assert_eq!(world.step(), NOTHING, "what the runtime forgot had run");
    }

    #[test]
    fn crashes_back_off_longer_each_time() {
        let mut world = World::new(json!({"containers": [{"name": "a"}]}));
        world.step();
        world.step();
        world.exit("a", 1);
        assert_eq!(world.step(), ["start a 1"], "the first restart is immediate");
        for (wait, count) in [(10, 2), (20, 3), (40, 4)] {
            world.exit("a", 1);
            assert_eq!(world.step(), [format!("wait a: back-off {wait}s")]);
            world.now += wait - 1;
            assert_eq!(world.step().len(), 1);
            world.now += 1;
            assert_eq!(world.step(), [format!("start a {count}")]);
        }
    }

    #[test]
    fn restart_policies_decide_about_ended_containers() {
        for (policy, code, expected) in [
            ("Always", 0, vec!["start a 1"]),
            ("OnFailure", 0, vec![]),
            ("OnFailure", 1, vec!["start a 1"]),
            ("Never", 1, vec![]),
        ] {
            let mut world = World::new(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
            world.step();
            world.step();
            world.exit("a", code);
            assert_eq!(world.step(), expected, "{policy} {code}");
        }
    }

    #[test]
    fn a_failed_liveness_probe_kills_and_restarts() {
        let mut world = World::new(json!({"containers": [{"name": "a", "livenessProbe": {}}]}));
        world.step();
        world.step();
        world.probe("a", ProbeKind::Liveness, false);
        let killed = "kill a: Container a failed liveness probe, will be restarted";
        assert_eq!(world.step(), [killed, "start a 1"]);
        assert_eq!(world.step(), NOTHING, "the new instance has its own results");
    }

    #[test]
    fn a_killed_container_waits_from_the_end_of_the_one_before() {
        let mut world = World::new(json!({"containers": [{"name": "a", "livenessProbe": {}}]}));
        world.step();
        world.step();
        let killed = "kill a: Container a failed liveness probe, will be restarted";
        // It lives for five seconds each time.
        for (count, waits) in [(1, None), (2, None), (3, Some("10s"))] {
            world.now += 5;
            world.probe("a", ProbeKind::Liveness, false);
            match waits {
                None => assert_eq!(world.step(), [killed, &format!("start a {count}")]),
                Some(time) => assert_eq!(world.step(), [killed, &format!("wait a: back-off {time}")]),
            }
        }
        // After that the wait counts from its own end.
        world.now += 9;
        assert_eq!(world.step(), ["wait a: back-off 10s"]);
        world.now += 1;
        assert_eq!(world.step(), ["start a 3"]);
    }

    #[test]
    fn all_that_has_to_end_does_so_before_anything_starts() {
        let mut world = World::new(json!({
            "initContainers": [{"name": "side", "restartPolicy": "Always", "livenessProbe": {}}],
            "containers": [{"name": "a", "livenessProbe": {}}, {"name": "b", "startupProbe": {}}, {"name": "c"}]}));
        world.step();
        world.step();
        world.step();
        world.probe("side", ProbeKind::Liveness, false);
        world.probe("a", ProbeKind::Liveness, false);
        world.probe("b", ProbeKind::Startup, false);
        assert_eq!(
            world.step(),
            [
                "kill side: Init container side failed liveness probe",
                "kill a: Container a failed liveness probe, will be restarted",
                "kill b: Container b failed startup probe, will be restarted",
                "start side 1",
                "start a 1",
                "start b 1",
            ]
        );
    }

    #[test]
    fn a_killed_container_that_does_not_restart_ends_alone_or_with_the_pod() {
        let spec = json!({"restartPolicy": "Never",
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "livenessProbe": {}}, {"name": "b"}]});
        let mut world = World::new(spec);
        world.step();
        world.step();
        world.step();
        world.probe("a", ProbeKind::Liveness, false);
        assert_eq!(world.step(), ["kill a: Container a failed liveness probe"]);
        assert_eq!(world.step(), NOTHING);
        world.probe("b", ProbeKind::Liveness, false);
        assert_eq!(world.step(), ["stop containers"], "nothing is left that goes on");
    }

    #[test]
    fn a_container_in_unknown_state_is_killed_before_its_successor_starts() {
        let mut world = World::new(json!({"containers": [{"name": "a"}]}));
        world.step();
        world.step();
        world.runtime.containers[0].state = RunState::Unknown;
        let killed = "kill a: Container is in \"unknown\" state, try killing it before restart";
        assert_eq!(world.step(), [killed, "start a 1"]);
    }

    #[test]
    fn a_changed_image_replaces_the_container() {
        let mut world = World::new(json!({"containers": [{"name": "a", "image": "demo:v1"}]}));
        world.step();
        world.step();
        world.pod.spec.as_mut().unwrap().containers[0].image = Some("demo:v2".into());
        assert_eq!(world.step(), ["kill a: Container a definition changed, will be restarted", "start a 1"]);
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn other_resources_are_given_in_place_or_by_a_restart_whatever_the_policy() {
        let resources = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        let mut world = World::new(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a",
            "resources": resources("1", "64Mi"),
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]}));
        world.step();
        world.step();
        world.actuated.insert("c1".into(), resize::desired(&world.pod)["a"].clone());
        assert_eq!(world.step(), NOTHING);
        let resize = |world: &mut World, cpu: &str, memory: &str| {
            let container = &mut world.pod.spec.as_mut().unwrap().containers[0];
            container.resources = serde_json::from_value(resources(cpu, memory)).unwrap();
        };
        resize(&mut world, "2", "64Mi");
        assert_eq!(world.step(), ["update a"]);
        assert_eq!(world.step(), NOTHING);
        resize(&mut world, "2", "128Mi");
        assert_eq!(world.step(), ["kill a: Container a resize requires restart", "start a 1"]);
    }

    #[test]
    fn a_dead_sandbox_is_replaced_and_init_containers_run_again() {
        let mut world = World::new(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
        world.step();
        world.step();
        world.exit("i", 0);
        world.step();
        world.runtime.sandboxes[0].ready = false;
        world.exit("a", 255);
        assert_eq!(world.step(), ["stop s0", "sandbox 1"]);
        assert_eq!(world.step(), ["start i 1"]);
        world.exit("i", 0);
        assert_eq!(world.step(), ["start a 1"]);
    }

    #[test]
    fn a_dead_sandbox_is_left_when_nothing_may_run_again() {
        let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
        world.step();
        world.step();
        world.exit("a", 0);
        world.runtime.sandboxes[0].ready = false;
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn a_sandbox_without_address_is_replaced() {
        let mut world = World::new(json!({"containers": [{"name": "a"}]}));
        world.step();
        world.runtime.sandboxes[0].ips.clear();
        assert_eq!(world.step(), ["stop s0", "sandbox 1"]);
    }

    #[test]
    fn a_restarted_kubelet_leaves_a_healthy_pod_alone() {
        let mut world = World::new(json!({"containers": [{"name": "a"}]}));
        world.step();
        world.step();
        world.probes.clear();
        world.backoff = Backoff::default();
        assert_eq!(world.step(), NOTHING);
    }

    #[test]
    fn only_the_last_two_instances_are_kept() {
        let mut world = World::new(json!({"containers": [{"name": "a"}]}));
        world.step();
        world.step();
        for _ in 0..3 {
            world.exit("a", 1);
            world.now += 301;
            world.step();
        }
        assert_eq!(superseded_containers(&world.runtime), ["c2", "c1"]);
    }
}
