//! A pod's status from its spec, the runtime's report and the probes: phase, conditions, container statuses.
//!
//! Never here: writing it to the API server, or conditions that others own.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::observed::{ObservedContainer, RunState, RuntimePod};
use crate::pod_view::{self, RestartPolicy};
use crate::probe::ProbeResults;
use crate::resize::{Actuated, Progress};
use crate::resources;

/// Why a container is not there: a reason such as `ErrImagePull`, and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The reason as in the API.
    pub reason: String,
    /// Details.
    pub message: String,
}

/// Everything that the status follows from.
pub struct StatusInput<'a> {
    /// The pod, with the status as last known.
    pub pod: &'a Pod,
    /// What the runtime reports.
    pub runtime: &'a RuntimePod,
    /// Probe results by container id.
    pub probes: &'a BTreeMap<String, ProbeResults>,
    /// What the running containers have got; what the spec says where it is not known.
    pub actuated: &'a Actuated,
    /// How far resizes are.
    pub resizes: &'a Progress,
    /// Containers that could not be started, or wait to be, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// The scheme of container ids, e.g. `containerd`.
    pub runtime_name: &'a str,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// Nothing of the pod will run again: it ended, was deleted, or was refused.
    pub terminal: bool,
    /// The pod was refused or evicted: reason and message for the status itself.
    pub failure: Option<&'a Waiting>,
    /// Now.
    pub now: Timestamp,
}

/// In which list of the spec a container stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Init,
    Ephemeral,
}

/// Whole seconds, as the API shows times.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Computes the status.
pub fn compute(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    let old = pod.status.clone().unwrap_or_default();
    let spec = pod_view::spec(pod);
    let init_containers = pod_view::init_containers(pod);
    let init: Vec<ContainerStatus> = init_containers
        .iter()
        .map(|container| container_status(input, container, &old, Kind::Init))
        .collect();
    let initialized = is_initialized(input, &init);
    let containers: Vec<ContainerStatus> = spec
        .containers
        .iter()
        .map(|container| container_status(input, container, &old, Kind::Regular))
        .collect();
    let ephemeral: Vec<ContainerStatus> = pod_view::ephemeral_containers(pod)
        .iter()
        .map(|container| container_status(input, &pod_view::as_container(container), &old, Kind::Ephemeral))
        .collect();
    let phase = match (input.failure, pod_view::phase(pod)) {
        (Some(_), _) => "Failed",
        // A phase that ends a pod is never taken back.
        (None, "Succeeded") => "Succeeded",
        (None, "Failed") => "Failed",
        (None, _) => phase(input, &init, &containers),
    };
    // Why a pod ended stays; what others wrote while it ran does not.
    let kept = pod_view::is_terminal(pod).then_some(&old);
    let ips = input.runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
    let pod_ips: Vec<String> = if pod_view::host_network(pod) {
        if input.runtime.sandboxes.is_empty() { Vec::new() } else { input.host_ips.to_vec() }
    } else if ips.is_empty() {
        old.pod_ips.iter().flatten().map(|entry| entry.ip.clone()).collect()
    } else {
        ips
    };
    let has_network = input.runtime.ready_sandbox().is_some_and(|_| !pod_ips.is_empty());
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        message: input
            .failure
            .map(|failure| failure.message.clone())
            .or_else(|| kept.and_then(|old| old.message.clone())),
        reason: input
            .failure
            .map(|failure| failure.reason.clone())
            .or_else(|| kept.and_then(|old| old.reason.clone())),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old.start_time.clone().or_else(|| Some(seconds(input.now))),
        qos_class: old.qos_class.clone().or_else(|| Some(resources::qos_class(pod).as_str().to_owned())),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(input, &old, phase, &init, &containers, initialized, has_network));
    // A pod that the node never took has no containers to tell of.
    let refused = input.failure.is_some() && *input.runtime == RuntimePod::default();
    if refused && old.container_statuses.is_none() {
        return status;
    }
    if !init.is_empty() {
        status.init_container_statuses = Some(init);
    }
    status.container_statuses = Some(containers);
    if !ephemeral.is_empty() {
        status.ephemeral_container_statuses = Some(ephemeral);
    }
    status
}

fn waiting_state(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn terminated_state(seen: &ObservedContainer, runtime_name: &str) -> ContainerState {
    let reason = match seen.reason.as_str() {
        "" if seen.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let started_at = seen.started_at.unwrap_or(seen.created_at);
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: seen.exit_code,
            reason: Some(reason.to_owned()),
            message: (!seen.message.is_empty()).then(|| seen.message.clone()),
            started_at: Some(seconds(started_at)),
            finished_at: Some(seconds(seen.finished_at.unwrap_or(started_at))),
            container_id: Some(format!("{runtime_name}://{}", seen.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn container_status(
    input: &StatusInput<'_>,
    container: &Container,
    old: &PodStatus,
    kind: Kind,
) -> ContainerStatus {
    let name = &container.name;
    let reported = match kind {
        Kind::Regular => &old.container_statuses,
        Kind::Init => &old.init_container_statuses,
        Kind::Ephemeral => &old.ephemeral_container_statuses,
    };
    let reported = reported.iter().flatten().find(|status| status.name == *name);
    let instances: Vec<&ObservedContainer> =
        input.runtime.containers.iter().filter(|seen| seen.name == *name).collect();
    let not_begun =
        if pod_view::init_containers(input.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        restart_count: reported.map_or(0, |status| status.restart_count),
        last_state: Some(reported.and_then(|status| status.last_state.clone()).unwrap_or_default()),
        ..ContainerStatus::default()
    };
    let Some(newest) = instances.first() else {
        // An end that was reported stays reported when the runtime has forgotten the container.
        if let Some(ended) =
            reported.filter(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
        {
            let mut kept = ended.clone();
            kept.ready = kind == Kind::Init && kept.ready;
            return kept;
        }
        status.state = Some(match input.waiting.get(name) {
            Some(waiting) => {
                waiting_state(&waiting.reason, Some(waiting.message.clone()).filter(|m| !m.is_empty()))
            }
            None => waiting_state(not_begun, None),
        });
        if input.terminal
            && reported.is_some_and(|status| status.state.as_ref().is_some_and(|s| s.running.is_some()))
        {
            status.state = Some(vanished());
        }
        status.started = (kind != Kind::Ephemeral).then_some(false);
        return status;
    };
    status.image.clone_from(&newest.image);
    if status.image.is_empty() {
        status.image = container.image.clone().unwrap_or_default();
    }
    status.image_id.clone_from(&newest.image_id);
    status.container_id = Some(format!("{}://{}", input.runtime_name, newest.id));
    status.restart_count = i32::try_from(newest.restart_count).unwrap_or(i32::MAX);
    let results = input.probes.get(&newest.id).copied().unwrap_or_default();
    let running = newest.state == RunState::Running;
    // Nobody asks whether an ephemeral container is ready.
    if kind != Kind::Ephemeral {
        status.started = Some(running && results.started(container));
        status.ready = running && results.ready(container);
    }
    if let Some(previous) = instances.get(1).filter(|previous| previous.state == RunState::Exited) {
        status.last_state = Some(terminated_state(previous, input.runtime_name));
    }
    // While it waited for its next start, its own end was shown as the last one.
    let own_id = status.container_id.as_deref();
    if status.last_state.as_ref().and_then(|last| last.terminated.as_ref()?.container_id.as_deref()) == own_id
    {
        status.last_state = Some(ContainerState::default());
    }
    match newest.state {
        RunState::Running => {
            let started_at = Some(seconds(newest.started_at.unwrap_or(newest.created_at)));
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning { started_at }),
                ..ContainerState::default()
            });
            let actual = input.actuated.get(&newest.id).or(container.resources.as_ref());
            status.resources = actual.cloned().filter(|r| r.limits.is_some() || r.requests.is_some());
            status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
        }
        RunState::Created | RunState::Unknown => status.state = Some(waiting_state(not_begun, None)),
        RunState::Exited => {
            status.state = Some(terminated_state(newest, input.runtime_name));
            // A finished init container stays ready until the pod's sandbox is replaced.
            if kind == Kind::Init && !pod_view::is_sidecar(container) {
                status.ready = newest.exit_code == 0;
            }
        }
    }
    let ended_for_good =
        newest.state == RunState::Exited && !may_restart(input.pod, container, kind, newest.exit_code);
    if !running
        && !input.terminal
        && !ended_for_good
        && let Some(waiting) = input.waiting.get(name)
    {
        if newest.state == RunState::Exited {
            status.last_state = status.state.take();
        }
        status.state =
            Some(waiting_state(&waiting.reason, Some(waiting.message.clone()).filter(|m| !m.is_empty())));
        status.ready = false;
    }
    status
}

/// Whether a container that ended with `exit_code` will be started again.
fn may_restart(pod: &Pod, container: &Container, kind: Kind, exit_code: i32) -> bool {
    match kind {
        Kind::Regular => pod_view::container_restart_policy(pod, container).restarts(exit_code),
        Kind::Init => {
            pod_view::is_sidecar(container)
                || (exit_code != 0 && pod_view::restart_policy(pod) != RestartPolicy::Never)
        }
        Kind::Ephemeral => false,
    }
}

/// A container that had been running and of which the runtime knows nothing when the pod has ended.
fn vanished() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn is_initialized(input: &StatusInput<'_>, init: &[ContainerStatus]) -> bool {
    let regular_begun = input.runtime.ready_sandbox().is_some_and(|sandbox| {
        pod_view::spec(input.pod).containers.iter().any(|container| {
            input
                .runtime
                .containers
                .iter()
                .any(|seen| seen.name == container.name && seen.sandbox_id == sandbox.id)
        })
    });
    regular_begun || incomplete_init(input, init).is_empty()
}

/// Names of init containers that have not done their work (sidecars: not started).
fn incomplete_init(input: &StatusInput<'_>, init: &[ContainerStatus]) -> Vec<String> {
    pod_view::init_containers(input.pod)
        .iter()
        .zip(init)
        .filter(|(container, status)| {
            let ended_well = status
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref())
                .is_some_and(|terminated| terminated.exit_code == 0);
            if pod_view::is_sidecar(container) {
                status.started != Some(true) && !(input.terminal && ended_well)
            } else {
                !ended_well
            }
        })
        .map(|(container, _)| container.name.clone())
        .collect()
}

fn phase(input: &StatusInput<'_>, init: &[ContainerStatus], containers: &[ContainerStatus]) -> &'static str {
    let policy = pod_view::restart_policy(input.pod);
    let mut init_pending = false;
    let mut init_failed = false;
    let regular_begun = containers.iter().any(|status| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
    });
    for (container, status) in pod_view::init_containers(input.pod).iter().zip(init) {
        let state = status.state.clone().unwrap_or_default();
        if pod_view::is_sidecar(container) {
            init_pending |= !regular_begun && status.started != Some(true);
        } else if let Some(terminated) = &state.terminated {
            init_failed |= terminated.exit_code != 0;
        } else {
            init_pending |= !regular_begun;
        }
    }
    if init_failed && (policy == RestartPolicy::Never || input.terminal) {
        return "Failed";
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut may_restart = false;
    for (container, status) in pod_view::spec(input.pod).containers.iter().zip(containers) {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(terminated) = &state.terminated {
            stopped += 1;
            succeeded += usize::from(terminated.exit_code == 0);
            may_restart |=
                pod_view::container_restart_policy(input.pod, container).restarts(terminated.exit_code);
        } else if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            stopped += 1;
            may_restart = true;
        } else {
            waiting += 1;
        }
    }
    if input.terminal {
        let all_well = stopped > 0 && stopped == succeeded && waiting == 0 && running == 0;
        return if all_well { "Succeeded" } else { "Failed" };
    }
    if init_pending || init_failed || waiting > 0 {
        return "Pending";
    }
    if running > 0 || (stopped > 0 && may_restart) {
        return "Running";
    }
    match (stopped, stopped == succeeded) {
        (0, _) => "Pending",
        (_, true) => "Succeeded",
        (_, false) => "Failed",
    }
}

fn conditions(
    input: &StatusInput<'_>,
    old: &PodStatus,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
    initialized: bool,
    has_network: bool,
) -> Vec<PodCondition> {
    let condition = |kind: &str, verdict: Result<(), (&str, String)>| {
        let (status, reason, message) = match verdict {
            Ok(()) => ("True", None, None),
            Err((reason, message)) => {
                ("False", Some(reason.to_owned()), Some(message).filter(|m| !m.is_empty()))
            }
        };
        let before = old.conditions.iter().flatten().find(|before| before.type_ == kind);
        let since = before
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(since.unwrap_or_else(|| seconds(input.now))),
            observed_generation: input.pod.metadata.generation,
            last_probe_time: None,
        }
    };
    let completed = phase == "Succeeded";
    let failed = phase == "Failed";
    let mut unready: Vec<String> =
        containers.iter().filter(|status| !status.ready).map(|s| s.name.clone()).collect();
    for (container, status) in pod_view::init_containers(input.pod).iter().zip(init) {
        if pod_view::is_sidecar(container) && !status.ready {
            unready.push(status.name.clone());
        }
    }
    let containers_ready = if completed {
        Err(("PodCompleted", String::new()))
    } else if failed {
        Err(("PodFailed", String::new()))
    } else if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    };
    let mut gates = Vec::new();
    for gate in pod_view::spec(input.pod).readiness_gates.iter().flatten() {
        let found = old.conditions.iter().flatten().find(|condition| condition.type_ == gate.condition_type);
        match found {
            None => gates.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(condition) if condition.status != "True" => gates.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => {}
        }
    }
    let ready = match &containers_ready {
        Ok(()) if !gates.is_empty() => Err(("ReadinessGatesNotReady", gates.join(", "))),
        other => other.clone(),
    };
    let incomplete = incomplete_init(input, init);
    let initialized_verdict = if initialized || completed {
        Ok(())
    } else {
        Err((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", incomplete.join(" ")),
        ))
    };
    let mut initialized_condition = condition("Initialized", initialized_verdict);
    if completed {
        initialized_condition.reason = Some("PodCompleted".to_owned());
    }
    let resizes = [
        input.resizes.pending.as_ref().map(|(pending, generation)| {
            let message = Some(pending.message.clone());
            ("PodResizePending", Some(pending.reason.to_owned()), message, *generation)
        }),
        input.resizes.in_progress.as_ref().map(|(error, generation)| {
            ("PodResizeInProgress", error.as_ref().map(|_| "Error".to_owned()), error.clone(), *generation)
        }),
    ];
    let resizes = resizes.into_iter().flatten().map(|(kind, reason, message, observed_generation)| {
        PodCondition { reason, message, observed_generation, ..condition(kind, Ok(())) }
    });
    vec![
        condition("PodReadyToStartContainers", if has_network { Ok(()) } else { Err(("", String::new())) }),
        initialized_condition,
        condition("Ready", ready),
        condition("ContainersReady", containers_ready),
        condition("PodScheduled", Ok(())),
    ]
    .into_iter()
    .chain(resizes)
    .map(|mut condition| {
        condition.reason = condition.reason.filter(|reason| !reason.is_empty());
        condition
    })
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

    fn seen(name: &str, id: &str, state: RunState, exit_code: i32) -> ObservedContainer {
        ObservedContainer {
            id: id.into(),
            name: name.into(),
            sandbox_id: "s".into(),
            state,
            created_at: at(10),
            started_at: Some(at(11)),
            finished_at: (state == RunState::Exited).then(|| at(20)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "docker.io/library/demo:v1".into(),
            image_id: "sha256:1".into(),
            restart_count: 0,
            hash: String::new(),
        }
    }

    struct Case {
        spec: serde_json::Value,
        containers: Vec<ObservedContainer>,
        waiting: Vec<(&'static str, &'static str)>,
        probes: BTreeMap<String, ProbeResults>,
        actuated: Actuated,
        resizes: Progress,
        terminal: bool,
    }

    impl Case {
        fn new(spec: serde_json::Value, containers: Vec<ObservedContainer>) -> Self {
            let (probes, actuated, resizes) = (BTreeMap::new(), Actuated::new(), Progress::default());
            Self { spec, containers, waiting: Vec::new(), probes, actuated, resizes, terminal: false }
        }

        fn status(self) -> PodStatus {
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": self.spec}),
            )
            .unwrap();
            let sandbox = Sandbox {
                id: "s".into(),
                attempt: 0,
                ready: true,
                created_at: at(9),
                ips: vec!["10.0.0.5".into()],
            };
            let runtime = RuntimePod { sandboxes: vec![sandbox], containers: self.containers };
            let waiting = self
                .waiting
                .iter()
                .map(|(name, reason)| {
                    ((*name).to_owned(), Waiting { reason: (*reason).into(), message: "why".into() })
                })
                .collect();
            compute(&StatusInput {
                pod: &pod,
                runtime: &runtime,
                probes: &self.probes,
                actuated: &self.actuated,
                resizes: &self.resizes,
                waiting: &waiting,
                runtime_name: "containerd",
                host_ips: &["192.168.0.1".to_owned()],
                terminal: self.terminal,
                failure: None,
                now: at(100),
            })
        }
    }

    fn condition(status: &PodStatus, kind: &str) -> (String, Option<String>, Option<String>) {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    fn one(policy: &str) -> serde_json::Value {
        json!({"restartPolicy": policy, "containers": [{"name": "web", "image": "demo:v1"}]})
    }

    #[test]
    fn a_running_pod_is_ready() {
        let status = Case::new(one("Always"), vec![seen("web", "c1", RunState::Running, 0)]).status();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.5"));
        assert_eq!(condition(&status, "Ready").0, "True");
        let container = &status.container_statuses.unwrap()[0];
        assert!(container.ready && container.started == Some(true));
        assert_eq!(container.container_id.as_deref(), Some("containerd://c1"));
        assert_eq!(container.image, "docker.io/library/demo:v1");
    }

    #[test]
    fn ephemeral_containers_have_statuses_that_change_nothing_else() {
        let spec = json!({"containers": [{"name": "web"}], "ephemeralContainers": [{"name": "d", "image": "demo:v1"}]});
        let status = Case::new(spec.clone(), vec![seen("web", "c1", RunState::Running, 0)]).status();
        let waiting = &status.ephemeral_container_statuses.unwrap()[0];
        assert_eq!(
            waiting.state.clone().unwrap().waiting.unwrap().reason.as_deref(),
            Some("ContainerCreating")
        );
        let both = vec![seen("d", "c2", RunState::Exited, 7), seen("web", "c1", RunState::Running, 0)];
        let status = Case::new(spec, both).status();
        assert_eq!(condition(&status, "Ready").0, "True");
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let ended = &status.ephemeral_container_statuses.unwrap()[0];
        assert_eq!(ended.state.clone().unwrap().terminated.unwrap().exit_code, 7);
        assert_eq!((ended.ready, ended.started), (false, None));
    }

    #[test]
    fn a_refused_pod_shows_why_and_no_containers() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": one("Always")})).unwrap();
        let failure = Waiting { reason: "OutOfcpu".into(), message: "Pod was rejected: full".into() };
        let status = compute(&StatusInput {
            pod: &pod,
            runtime: &RuntimePod::default(),
            probes: &BTreeMap::new(),
            actuated: &Actuated::new(),
            resizes: &Progress::default(),
            waiting: &BTreeMap::new(),
            runtime_name: "containerd",
            host_ips: &[],
            terminal: true,
            failure: Some(&failure),
            now: at(100),
        });
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
        assert_eq!(status.container_statuses, None);
    }

    #[test]
    fn before_the_first_container_it_is_creating() {
        let status = Case::new(one("Always"), vec![]).status();
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(
            condition(&status, "Ready"),
            (
                "False".into(),
                Some("ContainersNotReady".into()),
                Some("containers with unready status: [web]".into())
            )
        );
        let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));
    }

    #[test]
    fn a_crash_loop_shows_the_last_end() {
        let mut case = Case::new(one("Always"), vec![seen("web", "c1", RunState::Exited, 3)]);
        case.waiting.push(("web", "CrashLoopBackOff"));
        let status = case.status();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let container = &status.container_statuses.unwrap()[0];
        assert_eq!(
            container.state.clone().unwrap().waiting.unwrap().reason.as_deref(),
            Some("CrashLoopBackOff")
        );
        let last = container.last_state.clone().unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    }

    #[test]
    fn a_start_that_failed_for_good_ends_the_pod() {
        let mut case = Case::new(one("Never"), vec![seen("web", "c1", RunState::Exited, 128)]);
        case.waiting.push(("web", "RunContainerError"));
        let status = case.status();
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.terminated.unwrap().exit_code, 128);
    }

    #[test]
    fn image_trouble_keeps_the_pod_pending() {
        let mut case = Case::new(one("Always"), vec![]);
        case.waiting.push(("web", "ImagePullBackOff"));
        assert_eq!(case.status().phase.as_deref(), Some("Pending"));
    }

    #[test]
    fn ends_make_phases() {
        for (policy, code, terminal, phase) in [
            ("Never", 0, false, "Succeeded"),
            ("Never", 1, false, "Failed"),
            ("OnFailure", 0, false, "Succeeded"),
            ("OnFailure", 1, false, "Running"),
            ("Always", 0, false, "Running"),
            ("Always", 0, true, "Succeeded"),
            ("Always", 137, true, "Failed"),
        ] {
            let mut case = Case::new(one(policy), vec![seen("web", "c1", RunState::Exited, code)]);
            case.terminal = terminal;
            let status = case.status();
            assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code} {terminal}");
            if phase == "Succeeded" {
                assert_eq!(condition(&status, "Ready").1.as_deref(), Some("PodCompleted"));
                assert_eq!(condition(&status, "Initialized").0, "True");
            }
        }
    }

    #[test]
    fn init_containers_hold_the_pod_back() {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "web"}]});
        let status = Case::new(spec.clone(), vec![seen("i", "c1", RunState::Running, 0)]).status();
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(
            condition(&status, "Initialized").2.as_deref(),
            Some("containers with incomplete status: [i]")
        );
        let state = status.container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
        let both = vec![seen("web", "c2", RunState::Running, 0), seen("i", "c1", RunState::Exited, 0)];
        let status = Case::new(spec, both).status();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(status.init_container_statuses.unwrap()[0].ready);
    }

    #[test]
    fn readiness_follows_the_probe() {
        let spec = json!({"containers": [{"name": "web", "readinessProbe": {}}]});
        let status = Case::new(spec.clone(), vec![seen("web", "c1", RunState::Running, 0)]).status();
        assert_eq!(condition(&status, "ContainersReady").0, "False");
        let mut case = Case::new(spec, vec![seen("web", "c1", RunState::Running, 0)]);
        case.probes.insert("c1".into(), ProbeResults { readiness: Some(true), ..ProbeResults::default() });
        assert_eq!(condition(&case.status(), "ContainersReady").0, "True");
    }

    #[test]
    fn resizes_show_what_was_given_and_what_there_is() {
        let spec = json!({"containers": [{"name": "web", "resources": {"requests": {"cpu": "2"}}}]});
        let mut case = Case::new(spec, vec![seen("web", "c1", RunState::Running, 0)]);
        let actual = json!({"requests": {"cpu": "1"}});
        case.actuated.insert("c1".into(), serde_json::from_value(actual.clone()).unwrap());
        let pending = crate::resize::Pending { reason: "Deferred", message: "no room".into() };
        case.resizes = Progress { pending: Some((pending, Some(7))), in_progress: Some((None, Some(6))) };
        let status = case.status();
        assert_eq!(
            condition(&status, "PodResizePending"),
            ("True".into(), Some("Deferred".into()), Some("no room".into()))
        );
        assert_eq!(condition(&status, "PodResizeInProgress"), ("True".into(), None, None));
        let generation = |kind: &str| {
            status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().observed_generation
        };
        assert_eq!((generation("PodResizePending"), generation("PodResizeInProgress")), (Some(7), Some(6)));
        let container = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(serde_json::to_value(&container.resources).unwrap(), actual);
        assert_eq!(serde_json::to_value(&container.allocated_resources).unwrap(), json!({"cpu": "2"}));
    }

    #[test]
    fn a_missing_readiness_gate_is_named() {
        let spec = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "web"}]});
        let status = Case::new(spec, vec![seen("web", "c1", RunState::Running, 0)]).status();
        assert_eq!(condition(&status, "Ready").1.as_deref(), Some("ReadinessGatesNotReady"));
        assert_eq!(condition(&status, "ContainersReady").0, "True");
    }
}
