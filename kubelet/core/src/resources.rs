//! Requests and limits as the kernel wants them: QoS class, cgroup path, CPU shares and quota, memory, `oom_score_adj`.
//!
//! Never here: writing cgroups.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod_view;

/// Microseconds of a CFS period.
pub const CPU_PERIOD_MICROSECONDS: i64 = 100_000;
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;
const CPU_QUOTA_MIN: i64 = 1000;

/// The quantity in thousandths, rounded up; `None` if it cannot be read.
pub fn milli_value(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let number_end = text
        .char_indices()
        .find(|(index, c)| !(c.is_ascii_digit() || *c == '.' || (*index == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(index, _)| index);
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // In billionths, so that the suffix `n` stays exact.
    let mut nano: i128 = if matches!(whole, "" | "+" | "-") { 0 } else { whole.parse().ok()? };
    for index in 0..9 {
        let digit = fraction.as_bytes().get(index).map_or(0, |byte| i128::from(byte - b'0'));
        nano = nano.checked_mul(10)?.checked_add(if number.starts_with('-') { -digit } else { digit })?;
    }
    let (multiply, divide): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    let scaled = nano.checked_mul(multiply)?;
    let divisor = divide.checked_mul(1_000_000)?;
    i64::try_from(scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) != 0)).ok()
}

/// The quantity in whole units, rounded up.
pub fn value(quantity: &Quantity) -> Option<i64> {
    let milli = milli_value(quantity);
    match milli {
        Some(milli) => Some(milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) != 0)),
        // Too large in thousandths: only plain bytes are that large.
        None => quantity.0.parse().ok(),
    }
}

/// How a pod is treated when the node runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has CPU and memory limits equal to its requests.
    Guaranteed,
    /// Some container has a request or limit.
    Burstable,
    /// None has.
    BestEffort,
}

impl QosClass {
    /// The class as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    let quantity = list?.get(resource)?;
    let amount = if resource == "cpu" { milli_value(quantity) } else { value(quantity) };
    amount.filter(|amount| *amount > 0)
}

/// A container's limit: thousandths of a CPU, or bytes.
pub fn limit(container: &Container, resource: &str) -> Option<i64> {
    amount(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()), resource)
}

/// A container's request, else its limit: thousandths of a CPU, or bytes.
pub fn request(container: &Container, resource: &str) -> Option<i64> {
    amount(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), resource)
        .or_else(|| limit(container, resource))
}

/// The pod's QoS class.
pub fn qos_class(pod: &Pod) -> QosClass {
    let spec = pod_view::spec(pod);
    let containers = || spec.containers.iter().chain(pod_view::init_containers(pod));
    let pod_level = spec.resources.as_ref().map(|resources| Container {
        resources: Some(ResourceRequirements {
            limits: resources.limits.clone(),
            requests: resources.requests.clone(),
            claims: None,
        }),
        ..Container::default()
    });
    let judged: Vec<&Container> = match &pod_level {
        Some(level) if request(level, "cpu").or(request(level, "memory")).is_some() => vec![level],
        _ => containers().collect(),
    };
    let any = judged
        .iter()
        .any(|container| ["cpu", "memory"].iter().any(|resource| request(container, resource).is_some()));
    if !any {
        return QosClass::BestEffort;
    }
    let all_equal = judged.iter().all(|container| {
        ["cpu", "memory"].iter().all(|resource| {
            limit(container, resource).is_some() && limit(container, resource) == request(container, resource)
        })
    });
    if all_equal { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// The pod's cgroup below the cgroup root: `/kubepods/burstable/pod<uid>`.
pub fn pod_cgroup(pod: &Pod) -> String {
    let uid = pod_view::uid(pod);
    match qos_class(pod) {
        QosClass::Guaranteed => format!("/kubepods/pod{uid}"),
        QosClass::Burstable => format!("/kubepods/burstable/pod{uid}"),
        QosClass::BestEffort => format!("/kubepods/besteffort/pod{uid}"),
    }
}

/// CPU shares (cgroup v1) for thousandths of a CPU.
pub fn cpu_shares(milli: i64) -> i64 {
    if milli <= 0 { CPU_SHARES_MIN } else { (milli * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX) }
}

/// CPU quota in microseconds a period for thousandths of a CPU.
pub fn cpu_quota(milli: i64) -> i64 {
    (milli * CPU_PERIOD_MICROSECONDS / 1000).max(CPU_QUOTA_MIN)
}

/// `cpu.weight` (cgroup v2) for CPU shares.
pub fn cpu_weight(shares: i64) -> i64 {
    1 + (shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX) - 2) * 9999 / 262_142
}

/// Values for one cgroup; `None` leaves the kernel's default (no limit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupValues {
    /// CPU shares.
    pub cpu_shares: i64,
    /// Microseconds of CPU time a period of [`CPU_PERIOD_MICROSECONDS`].
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
}

/// A container's values.
pub fn container_values(container: &Container) -> CgroupValues {
    CgroupValues {
        cpu_shares: cpu_shares(request(container, "cpu").unwrap_or(0)),
        cpu_quota: limit(container, "cpu").map(cpu_quota),
        memory_limit: limit(container, "memory"),
    }
}

/// What the whole pod may use at once: the containers together with the sidecars, or a single init container with the
/// sidecars before it, whichever is more. `of` gives one container's amount; `None` as soon as one has none, when `strict`.
fn pod_total(pod: &Pod, of: impl Fn(&Container) -> Option<i64>, strict: bool) -> Option<i64> {
    let mut sidecars = 0_i64;
    let mut largest_init = 0_i64;
    for container in pod_view::init_containers(pod) {
        let amount = match of(container) {
            None if strict => return None,
            amount => amount.unwrap_or(0),
        };
        if pod_view::is_sidecar(container) {
            sidecars += amount;
            largest_init = largest_init.max(sidecars);
        } else {
            largest_init = largest_init.max(sidecars + amount);
        }
    }
    let mut total = sidecars;
    for container in &pod_view::spec(pod).containers {
        match of(container) {
            None if strict => return None,
            amount => total += amount.unwrap_or(0),
        }
    }
    Some(total.max(largest_init))
}

/// The pod's request of `cpu` (thousandths) or `memory` (bytes).
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    pod_total(pod, |container| request(container, resource), false).unwrap_or(0)
}

/// The pod cgroup's values. Limits only when every container has one.
pub fn pod_values(pod: &Pod) -> CgroupValues {
    let shares = match qos_class(pod) {
        QosClass::BestEffort => CPU_SHARES_MIN,
        _ => cpu_shares(pod_request(pod, "cpu")),
    };
    CgroupValues {
        cpu_shares: shares,
        cpu_quota: pod_total(pod, |container| limit(container, "cpu"), true)
            .filter(|milli| *milli > 0)
            .map(cpu_quota),
        memory_limit: pod_total(pod, |container| limit(container, "memory"), true).filter(|bytes| *bytes > 0),
    }
}

/// How readily the kernel kills the container when memory runs out: -997 (last) to 1000 (first).
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    const CRITICAL: i64 = -997;
    let node_critical = pod_view::spec(pod).priority.is_some_and(|priority| priority >= 2_000_001_000);
    if node_critical {
        return CRITICAL;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => CRITICAL,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = request(container, "memory").unwrap_or(0);
            let share = 1000_i128 * i128::from(request) / i128::from(node_memory_bytes.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(
            serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    #[test]
    fn quantities_are_read() {
        for (text, milli) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1500u", 2),
            ("1.5Ki", 1_536_000),
            ("2e3", 2_000_000),
            ("0", 0),
        ] {
            assert_eq!(milli_value(&quantity(text)), Some(milli), "{text}");
        }
        assert_eq!(value(&quantity("128Mi")), Some(134_217_728));
        assert_eq!(value(&quantity("100m")), Some(1));
        assert_eq!(milli_value(&quantity("abc")), None);
    }

    #[test]
    fn the_class_and_the_cgroup_follow_requests_and_limits() {
        let best = pod(serde_json::json!([{"name": "a"}]));
        assert_eq!(qos_class(&best), QosClass::BestEffort);
        assert_eq!(pod_cgroup(&best), "/kubepods/besteffort/podu");
        assert_eq!(oom_score_adj(&best, &best.spec.as_ref().unwrap().containers[0], 1 << 30), 1000);
        let burst = pod(serde_json::json!([{"name": "a", "resources": {"requests": {"memory": "512Mi"}}}]));
        assert_eq!(pod_cgroup(&burst), "/kubepods/burstable/podu");
        assert_eq!(oom_score_adj(&burst, &burst.spec.as_ref().unwrap().containers[0], 1 << 30), 500);
        let guaranteed =
            pod(serde_json::json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]));
        assert_eq!(qos_class(&guaranteed), QosClass::Guaranteed);
        assert_eq!(pod_cgroup(&guaranteed), "/kubepods/podu");
    }

    #[test]
    fn cgroup_values_follow_the_kernels_units() {
        let pod = pod(serde_json::json!([
            {"name": "a", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}},
        ]));
        let values = container_values(&pod.spec.as_ref().unwrap().containers[0]);
        assert_eq!(
            values,
            CgroupValues { cpu_shares: 256, cpu_quota: Some(50_000), memory_limit: Some(64 << 20) }
        );
        let values = pod_values(&pod);
        assert_eq!(
            values,
            CgroupValues { cpu_shares: 1280, cpu_quota: Some(150_000), memory_limit: Some(128 << 20) }
        );
        assert_eq!((cpu_weight(2), cpu_weight(262_144), cpu_weight(1024)), (1, 10_000, 39));
    }
}
