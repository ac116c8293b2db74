//! How many pods a metric asks for. Pods that are not ready, and pods of which nothing is measured, count so that they never make a change larger
//! than it has to be. Owns the arithmetic of upstream's replica calculator; never how a metric is had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HPAScalingRules;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::object_meta::name;
use crate::pod_state::{condition, is_ready, is_terminating, phase};

/// What is measured of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodMetric {
    /// The value, in thousandths.
    pub value: i64,
    /// When the window in which it was measured ended.
    pub timestamp: Timestamp,
    /// How long that window is.
    pub window: SignedDuration,
}

/// What is measured, by the pod's name.
pub type PodMetrics = BTreeMap<String, PodMetric>;

/// A number in thousandths; an unreadable one, which validation never lets through, is 0.
pub(super) fn millis(text: &Text) -> i64 {
    text.0.parse::<Quantity>().map_or(0, |amount| amount.milli_value())
}

/// How far a metric may be from its target without consequence.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    up: f64,
    down: f64,
}

impl Tolerances {
    /// Those of the rules for each direction, or `default`.
    pub fn new(up: Option<&HPAScalingRules>, down: Option<&HPAScalingRules>, default: f64) -> Self {
        let of = |rules: Option<&HPAScalingRules>| {
            let own = rules.and_then(|rules| rules.tolerance.as_ref()?.0.parse::<Quantity>().ok());
            own.map_or(default, |own| own.approximate())
        };
        Self { up: of(up), down: of(down) }
    }

    fn hold(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// The pods that a scale counts, and how those that only started are judged.
#[derive(Clone, Copy, Debug)]
pub struct Pods<'a> {
    /// All that the scale's selector finds.
    pub all: &'a [Arc<Pod>],
    /// For so long after a pod's start its CPU counts only while it is ready (`--horizontal-pod-autoscaler-cpu-initialization-period`).
    pub cpu_initialization: SignedDuration,
    /// A pod that became unready so early was never ready (`--horizontal-pod-autoscaler-initial-readiness-delay`).
    pub initial_readiness_delay: SignedDuration,
    /// Now.
    pub now: Timestamp,
}

#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Pods<'_> {
    fn grouped(&self, metrics: &PodMetrics, is_cpu: bool) -> Groups {
        let mut groups = Groups::default();
        for pod in self.all {
            let own = || name(&pod.metadata).to_owned();
            if is_terminating(pod) || phase(pod) == "Failed" {
                groups.ignored.insert(own());
            } else if phase(pod) == "Pending" {
                groups.unready.insert(own());
            } else if let Some(metric) = metrics.get(name(&pod.metadata)) {
                if is_cpu && self.is_unready(pod, metric) {
                    groups.unready.insert(own());
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(own());
            }
        }
        groups
    }

    /// Whether what was measured says nothing about the pod's work: it is starting.
    fn is_unready(&self, pod: &Pod, metric: &PodMetric) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else { return true };
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let is_false = ready.status == "False";
        if later(started.0, self.cpu_initialization) > self.now {
            is_false || metric.timestamp < later(changed, metric.window)
        } else {
            is_false && later(started.0, self.initial_readiness_delay) > changed
        }
    }

    fn ready(&self) -> usize {
        self.all.iter().filter(|pod| phase(pod) == "Running" && is_ready(pod)).count()
    }

    /// What each pod asks for of a resource, in thousandths: in one container, or in all that run at the same time.
    fn requests(&self, resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
        let mut requests = BTreeMap::new();
        for pod in self.all {
            requests.insert(name(&pod.metadata).to_owned(), request(pod, resource, container)?);
        }
        Ok(requests)
    }
}

/// Resources that can be asked for for a pod as a whole.
fn is_pod_level(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

fn request(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, String> {
    let pod_name = name(&pod.metadata);
    let spec = pod.spec.as_ref();
    let whole = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let counts_whole =
        container.is_none() && whole.is_some_and(|whole| whole.keys().any(|key| is_pod_level(key)));
    if counts_whole && let Some(own) = whole.and_then(|whole| whole.get(resource)) {
        return Ok(millis(own));
    }
    let plain = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let beside = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let beside = beside.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0_i64;
    let mut found = false;
    for one in plain.iter().chain(beside).filter(|one| container.is_none_or(|wanted| wanted == one.name)) {
        let requests = one.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let Some(amount) = requests.and_then(|requests| requests.get(resource)) else {
            if counts_whole {
                continue;
            }
            return Err(format!(
                "missing request for {resource} in container {} of Pod {pod_name}",
                one.name
            ));
        };
        found = true;
        sum = sum.saturating_add(millis(amount));
    }
    match container {
        Some(wanted) if !found => Err(format!("container {wanted} not found in Pod {pod_name}")),
        None if counts_whole && !found => {
            Err(format!("missing pod-level request for {resource} in Pod {pod_name}"))
        }
        _ => Ok(sum),
    }
}

/// What use comes to: how it compares to the target, and its average.
struct Use {
    ratio: f64,
    average: i64,
    /// In percent of what was asked for.
    utilization: i32,
}

fn as_i32(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

fn rounded_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn utilization(metrics: &PodMetrics, requests: &BTreeMap<String, i64>, target: i32) -> Result<Use, String> {
    let (mut used, mut asked, mut pods) = (0_i64, 0_i64, 0_i64);
    for (pod, metric) in metrics {
        let Some(request) = requests.get(pod) else { continue };
        used = used.saturating_add(metric.value);
        asked = asked.saturating_add(*request);
        pods += 1;
    }
    if asked == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = as_i32(used.saturating_mul(100) / asked);
    Ok(Use { ratio: f64::from(percent) / f64::from(target), average: used / pods, utilization: percent })
}

fn average(metrics: &PodMetrics, target: i64) -> Use {
    let used = metrics.values().fold(0_i64, |sum, metric| sum.saturating_add(metric.value));
    let average = used / count(metrics.len()).max(1);
    Use { ratio: average as f64 / target as f64, average, utilization: 0 }
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// So many pods.
    pub replicas: i32,
    /// What was measured, in thousandths: on average, or all in all.
    pub measured: i64,
    /// The same in percent of what the pods ask for, where that is the target.
    pub utilization: Option<i32>,
}

/// A resource's use in percent of what the pods ask for.
///
/// # Errors
/// The text for people, when nothing can be said.
pub fn by_utilization(
    current: i32,
    target: i32,
    resource: &str,
    container: Option<&str>,
    metrics: PodMetrics,
    pods: Pods<'_>,
    tolerances: Tolerances,
) -> Result<Proposal, String> {
    let (metrics, groups) = usable(metrics, pods, resource == "cpu")?;
    let requests = pods.requests(resource, container)?;
    let used = utilization(&metrics, &requests, target)?;
    // A pod of which nothing is known uses all that it asks for when others would go, nothing when others would come.
    let fallback = i64::from(target.max(100));
    let missing = |pod: &str| requests.get(pod).copied().unwrap_or(0).saturating_mul(fallback) / 100;
    let again = |metrics: &PodMetrics| utilization(metrics, &requests, target).map(|used| used.ratio);
    let replicas = settle(current, used.ratio, metrics, &groups, tolerances, missing, again)?;
    Ok(Proposal { replicas, measured: used.average, utilization: Some(used.utilization) })
}

/// An average per pod; `resource` is empty for metrics that are none's.
///
/// # Errors
/// The text for people, when nothing can be said.
pub fn by_average(
    current: i32,
    target: i64,
    resource: &str,
    metrics: PodMetrics,
    pods: Pods<'_>,
    tolerances: Tolerances,
) -> Result<Proposal, String> {
    let (metrics, groups) = usable(metrics, pods, resource == "cpu")?;
    let used = average(&metrics, target);
    let again = |metrics: &PodMetrics| Ok(average(metrics, target).ratio);
    let replicas = settle(current, used.ratio, metrics, &groups, tolerances, |_| target, again)?;
    Ok(Proposal { replicas, measured: used.average, utilization: None })
}

/// Leaves out what must not count.
fn usable(mut metrics: PodMetrics, pods: Pods<'_>, is_cpu: bool) -> Result<(PodMetrics, Groups), String> {
    if pods.all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = pods.grouped(&metrics, is_cpu);
    metrics.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
    if metrics.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    Ok((metrics, groups))
}

fn settle(
    current: i32,
    ratio: f64,
    mut metrics: PodMetrics,
    groups: &Groups,
    tolerances: Tolerances,
    missing: impl Fn(&str) -> i64,
    again: impl Fn(&PodMetrics) -> Result<f64, String>,
) -> Result<i32, String> {
    let counts_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !counts_unready && groups.missing.is_empty() {
        let replicas = rounded_up(ratio * groups.ready as f64);
        return Ok(if tolerances.hold(ratio) { current } else { replicas });
    }
    let mut assume = |pod: &str, value| {
        let assumed = PodMetric { value, timestamp: Timestamp::UNIX_EPOCH, window: SignedDuration::ZERO };
        metrics.insert(pod.to_owned(), assumed);
    };
    for pod in &groups.missing {
        if ratio < 1.0 {
            assume(pod, missing(pod));
        } else if ratio > 1.0 {
            assume(pod, 0);
        }
    }
    if counts_unready {
        groups.unready.iter().for_each(|pod| assume(pod, 0));
    }
    let new = again(&metrics)?;
    let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
    if tolerances.hold(new) || turned {
        return Ok(current);
    }
    let replicas = rounded_up(new * metrics.len() as f64);
    let against = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
    Ok(if against { current } else { replicas })
}

/// A value that is one for all pods, compared with its target.
///
/// # Errors
/// The text for people, when nothing can be said.
pub fn by_value(
    current: i32,
    measured: i64,
    target: i64,
    pods: Pods<'_>,
    tolerances: Tolerances,
) -> Result<Proposal, String> {
    let ratio = measured as f64 / target as f64;
    let proposal = |replicas| Ok(Proposal { replicas, measured, utilization: None });
    if current == 0 {
        return proposal(rounded_up(ratio));
    }
    if tolerances.hold(ratio) {
        return proposal(current);
    }
    if pods.all.is_empty() {
        let cause = "no pods returned by selector while calculating replica count";
        return Err(format!("unable to calculate ready pods: {cause}"));
    }
    proposal(rounded_up(ratio * pods.ready() as f64))
}

/// A value that the pods share, compared with the target for each of them.
pub fn by_value_per_pod(reported: i32, measured: i64, target: i64, tolerances: Tolerances) -> Proposal {
    let ratio = measured as f64 / (target as f64 * f64::from(reported));
    let replicas =
        if tolerances.hold(ratio) { reported } else { rounded_up(measured as f64 / target as f64) };
    let share =
        if measured == i64::MAX { measured } else { (measured as f64 / f64::from(reported)).ceil() as i64 };
    Proposal { replicas, measured: share, utilization: None }
}
