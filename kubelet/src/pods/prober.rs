//! Runs the probes of running containers on their periods and keeps the settled results.
//!
//! Never here: what follows from a result.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use component_base::host_port::join_host_port;
use coracle_client::event_recorder::EventKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use kubelet_core::observed::{ObservedContainer, RunState, RuntimePod};
use kubelet_core::pod_view;
use kubelet_core::probe::{ProbeKind, ProbeResults, ProbeState, Timing};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::http_action::{self, GetError};
use crate::context::Context;

/// A process needs a moment before it can answer; a probe that comes sooner costs a whole period.
const FIRST_PROBE_DELAY: Duration = Duration::from_millis(150);
const OUTPUT_BYTES_MAX: usize = 10 * 1024;
/// How often an error on this side is tried.
const TRIES_MAX: u32 = 3;

/// Results by container id, shared with the probe tasks.
pub type SharedResults = Arc<Mutex<BTreeMap<String, ProbeResults>>>;

/// The probe tasks of one pod. They end with it.
pub struct Prober {
    results: SharedResults,
    tasks: HashMap<(String, ProbeKind), JoinHandle<()>>,
    changed: Arc<Notify>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl Prober {
    /// No tasks yet. `changed` is notified when a settled result changes.
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { results: SharedResults::default(), tasks: HashMap::new(), changed }
    }

    /// The settled results by container id.
    pub fn results(&self) -> BTreeMap<String, ProbeResults> {
        self.results.lock().clone()
    }

    /// Starts tasks for containers that run and ends those of containers that do not. `terminating`: only readiness is
    /// still asked.
    pub fn update(
        &mut self,
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        terminating: bool,
    ) {
        let running: Vec<&ObservedContainer> =
            runtime.containers.iter().filter(|seen| seen.state == RunState::Running).collect();
        self.tasks.retain(|(id, kind), task| {
            let keep =
                running.iter().any(|seen| seen.id == *id) && !(terminating && *kind != ProbeKind::Readiness);
            if !keep || task.is_finished() {
                task.abort();
            }
            keep
        });
        self.results.lock().retain(|id, _| running.iter().any(|seen| seen.id == *id));
        for seen in running {
            let Some(container) = pod_view::container(pod, &seen.name) else { continue };
            if !self.results.lock().contains_key(&seen.id) {
                self.results.lock().insert(seen.id.clone(), remembered(context, pod, &container, seen));
            }
            let ip = runtime
                .ready_sandbox()
                .and_then(|sandbox| sandbox.ips.first().cloned())
                .or_else(|| context.node_ips.first().cloned())
                .unwrap_or_default();
            for kind in ProbeKind::ALL {
                let Some(probe) = kind.of(&container) else { continue };
                let key = (seen.id.clone(), kind);
                if self.tasks.contains_key(&key) || (terminating && kind != ProbeKind::Readiness) {
                    continue;
                }
                let task = ProbeTask {
                    context: Arc::clone(context),
                    pod: Arc::clone(pod),
                    container: container.clone().into_owned(),
                    container_id: seen.id.clone(),
                    started_at: seen.started_at.unwrap_or(seen.created_at),
                    ip: ip.clone(),
                    kind,
                    probe: probe.clone(),
                    results: Arc::clone(&self.results),
                    changed: Arc::clone(&self.changed),
                };
                self.tasks.insert(key, tokio::spawn(task.run()));
            }
        }
    }
}

/// After a restart of the kubelet a container that was ready stays ready until a probe says otherwise.
fn remembered(context: &Context, pod: &Pod, container: &Container, seen: &ObservedContainer) -> ProbeResults {
    let mut results = ProbeResults::default();
    if context.runtime.is_hollow() {
        // Nothing can be asked of a simulated container.
        for kind in ProbeKind::ALL {
            results.set(kind, true);
        }
        return results;
    }
    let id = format!("{}://{}", context.runtime_name, seen.id);
    let Some(status) = &pod.status else { return results };
    let known = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .find(|known| known.container_id.as_ref() == Some(&id));
    if let Some(known) = known {
        if container.startup_probe.is_some() && known.started == Some(true) {
            results.startup = Some(true);
        }
        if known.ready {
            results.readiness = Some(true);
        }
    }
    results
}

struct ProbeTask {
    context: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    container_id: String,
    started_at: Timestamp,
    ip: String,
    kind: ProbeKind,
    probe: Probe,
    results: SharedResults,
    changed: Arc<Notify>,
}

impl ProbeTask {
    async fn run(self) {
        if self.context.runtime.is_hollow() {
            return;
        }
        let timing = Timing::of(&self.probe);
        let mut state = ProbeState::default();
        let age = Timestamp::now().duration_since(self.started_at);
        let delay = Duration::from_secs(timing.initial_delay_seconds)
            .max(FIRST_PROBE_DELAY)
            .saturating_sub(Duration::try_from(age).unwrap_or_default());
        tokio::time::sleep(delay).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(timing.period_seconds));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let current = self.results.lock().get(&self.container_id).copied().unwrap_or_default();
            match self.kind {
                ProbeKind::Startup if current.startup == Some(true) => return,
                ProbeKind::Startup => {}
                _ if !current.started(&self.container) => {
                    // Soon after it has started, not a whole period later.
                    ticks.reset_after(
                        Duration::from_millis(250).min(Duration::from_secs(timing.period_seconds)),
                    );
                    continue;
                }
                _ => {}
            }
            let outcome = self.outcome(Duration::from_secs(timing.timeout_seconds)).await;
            if let Some((reason, text)) = outcome.event(self.kind.word()) {
                let name = &self.container.name;
                self.context.container_event(&self.pod, name, EventKind::Warning, reason, text);
            }
            // What could not be asked is no answer.
            let Some(success) = outcome.is_success() else { continue };
            let Some(result) = state.observe(success, &timing) else { continue };
            let mut results = self.results.lock();
            let Some(entry) = results.get_mut(&self.container_id) else { return };
            let before = *entry;
            entry.set(self.kind, result);
            let differs = *entry != before;
            drop(results);
            if differs {
                self.changed.notify_one();
            }
            if self.kind != ProbeKind::Readiness && !result {
                // The container will be killed; its successor has its own task.
                return;
            }
        }
    }

    /// What the probe says; what goes wrong on this side is tried again at once.
    async fn outcome(&self, timeout: Duration) -> Outcome {
        let mut outcome = self.once(timeout).await;
        for _ in 1..TRIES_MAX {
            if !matches!(outcome, Outcome::Errored(_)) {
                break;
            }
            outcome = self.once(timeout).await;
        }
        outcome
    }

    async fn once(&self, timeout: Duration) -> Outcome {
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.context.runtime.exec_sync(&self.container_id, command.clone(), timeout).await {
                Ok(outcome) if outcome.exit_code == 0 => Outcome::Success,
                Ok(outcome) => {
                    let mut output = [outcome.stdout, outcome.stderr].concat();
                    output.truncate(OUTPUT_BYTES_MAX);
                    Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
                }
                Err(error) if error.code == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
                    "command timed out: \"{}\" timed out after {}s",
                    command.join(" "),
                    timeout.as_secs()
                )),
                Err(error) => Outcome::Errored(error.to_string()),
            };
        }
        if let Some(action) = &self.probe.http_get {
            return match http_action::get(action, &self.container, &self.ip, timeout).await {
                Ok((status, body)) => match status.as_u16() {
                    200..300 => Outcome::Success,
                    300..400 => {
                        Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
                    }
                    code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
                },
                Err(GetError::Action(error)) => Outcome::Errored(error),
                Err(error) => Outcome::Failure(error.text()),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let port = match http_action::resolve_port(&action.port, &self.container) {
                Ok(port) => port,
                Err(error) => return Outcome::Errored(error),
            };
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.ip);
            let address = join_host_port(host, port);
            return match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(error)) => {
                    Outcome::Failure(format!("dial tcp {address}: {}", http_action::plain(&error)))
                }
                Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let service = action.service.as_deref();
            let answer = super::grpc_probe::check(&self.ip, action.port, service, timeout).await;
            return answer.map_or_else(Outcome::Failure, |()| Outcome::Success);
        }
        let pod = pod_view::describe(&self.pod);
        Outcome::Errored(format!("missing probe handler for {pod}:{}", self.container.name))
    }
}

/// What came of one probe.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Success,
    /// A success with something to say.
    Warning(String),
    Failure(String),
    /// It could not be asked: nothing is known.
    Errored(String),
}

impl Outcome {
    fn is_success(&self) -> Option<bool> {
        match self {
            Self::Success | Self::Warning(_) => Some(true),
            Self::Failure(_) => Some(false),
            Self::Errored(_) => None,
        }
    }

    /// Reason and text of the event.
    fn event(&self, probe: &str) -> Option<(&'static str, String)> {
        match self {
            Self::Success => None,
            Self::Warning(text) => Some(("ProbeWarning", format!("{probe} probe warning: {text}"))),
            Self::Failure(text) => Some(("Unhealthy", format!("{probe} probe failed: {text}"))),
            Self::Errored(text) => {
                Some(("Unhealthy", format!("{probe} probe errored and resulted in unknown state: {text}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_in_upstreams_words_and_errors_do_not_count() {
        for (outcome, success, reason, text) in [
            (Outcome::Warning("w".into()), Some(true), "ProbeWarning", "Liveness probe warning: w"),
            (Outcome::Failure("f".into()), Some(false), "Unhealthy", "Liveness probe failed: f"),
            (
                Outcome::Errored("e".into()),
                None,
                "Unhealthy",
                "Liveness probe errored and resulted in unknown state: e",
            ),
        ] {
            assert_eq!(outcome.is_success(), success);
            assert_eq!(outcome.event("Liveness"), Some((reason, text.to_owned())));
        }
        assert_eq!((Outcome::Success.is_success(), Outcome::Success.event("Startup")), (Some(true), None));
    }
}
