//! Tables of metrics, pods and rules, and what holds for all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::calculator::PodMetric;
use super::*;
use crate::test_objects::pod;

const TUNING: Tuning = Tuning {
    period: std::time::Duration::from_secs(15),
    downscale_window: SignedDuration::from_secs(300),
    tolerance: 0.1,
    cpu_initialization: SignedDuration::from_secs(300),
    initial_readiness_delay: SignedDuration::from_secs(30),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn autoscaler(spec: Value) -> HorizontalPodAutoscaler {
    let mut all = json!({"minReplicas": 1, "maxReplicas": 10,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1"});
    serde_json::from_value(json!({"metadata": metadata, "spec": all})).expect("an autoscaler")
}

/// Pods that are ready since second 1,000 and ask for 100m of CPU; `pending` others.
fn pods(ready: usize, pending: usize) -> Vec<Arc<Pod>> {
    let one = |index: usize| {
        let phase = if index < ready { "Running" } else { "Pending" };
        let mut pod = pod(&format!("p{index}"), phase, index < ready, "n1");
        let requests: BTreeMap<_, _> = [("cpu".to_owned(), text("100m"))].into();
        let spec = pod.spec.as_mut().expect("a spec");
        spec.containers[0].resources = Some(k8s_openapi::api::core::v1::ResourceRequirements {
            requests: Some(requests),
            ..Default::default()
        });
        pod.status.as_mut().expect("a status").start_time = Some(seconds(at(1_000)));
        Arc::new(pod)
    };
    (0..ready + pending).map(one).collect()
}

fn text(amount: &str) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_owned())
}

fn measured(values: &[i64]) -> Sample {
    let metric = |value| PodMetric { value, timestamp: at(9_000), window: SignedDuration::from_secs(30) };
    let all = values.iter().enumerate();
    Sample::Pods(all.map(|(index, value)| (format!("p{index}"), metric(*value))).collect())
}

struct World {
    autoscaler: HorizontalPodAutoscaler,
    memory: Memory,
    size: i32,
}

impl World {
    fn new(spec: Value, size: i32) -> Self {
        Self { autoscaler: autoscaler(spec), memory: Memory::default(), size }
    }

    /// One look; the events told.
    fn look(
        &mut self,
        pods: &[Arc<Pod>],
        samples: Vec<Result<Sample, String>>,
        now: i64,
    ) -> Vec<(&'static str, String)> {
        let autoscaler = self.autoscaler.clone();
        let mut look = Look::new(&autoscaler, TUNING, at(now)).expect("a spec");
        let mut decision = match look.first(self.size, &mut self.memory) {
            FirstLook::Decided(decision) => decision,
            FirstLook::Measure => look.decide(self.size, pods, samples, &mut self.memory),
        };
        if let Decision::Rescale(replicas, reason) = decision {
            decision = look.rescaled(replicas, &reason, None, &mut self.memory);
            self.size = replicas;
        }
        let mut events = Vec::new();
        for action in look.finish(&decision) {
            match action {
                Action::Event { reason, message, .. } => events.push((reason, message)),
                Action::Patch { patch, .. } => {
                    let mut status = json!(self.autoscaler.status.clone().unwrap_or_default());
                    merge(&mut status, &patch["status"]);
                    self.autoscaler.status = serde_json::from_value(status).expect("a status");
                }
                other => panic!("{other:?}"),
            }
        }
        events
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let all = self.autoscaler.status.as_ref().and_then(|status| status.conditions.clone());
        let all = all.unwrap_or_default();
        let found = all.iter().find(|one| one.type_ == kind).expect("the condition");
        (found.status.clone(), found.reason.clone().unwrap_or_default())
    }
}

fn merge(into: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        if value.is_object() && into[key].is_object() {
            merge(&mut into[key], value);
        } else {
            into[key] = value.clone();
        }
    }
}

fn shown(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn use_above_target_scales_up_and_says_so() {
    let mut world = World::new(json!({}), 2);
    let events = world.look(&pods(2, 0), vec![Ok(measured(&[100, 100]))], 9_000);
    assert_eq!(world.size, 4);
    let text = "New size: 4; reason: cpu resource utilization (percentage of request) above target";
    assert_eq!(events, [("SuccessfulRescale", text.to_owned())]);
    let status = world.autoscaler.status.clone().expect("a status");
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
    assert_eq!(status.last_scale_time, Some(seconds(at(9_000))));
    let metric = json!(status.current_metrics.expect("metrics")[0]);
    assert_eq!(metric["resource"]["current"], json!({"averageUtilization": 100, "averageValue": "100m"}));
    assert_eq!(world.condition("AbleToScale"), shown("True", "SucceededRescale"));
    assert_eq!(world.condition("ScalingActive"), shown("True", "ValidMetricFound"));
    assert_eq!(world.condition("ScalingLimited"), shown("False", "DesiredWithinRange"));
    let calm = world.look(&pods(4, 0), vec![Ok(measured(&[52, 50, 54, 50]))], 9_015);
    assert!(calm.is_empty(), "within tolerance: {calm:?}");
    assert_eq!(world.condition("AbleToScale"), shown("True", "ReadyForNewScale"));
}

#[test]
fn scaling_down_waits_for_the_window() {
    let mut world = World::new(json!({}), 4);
    let low = || vec![Ok(measured(&[10, 10, 10, 10]))];
    assert!(world.look(&pods(4, 0), low(), 9_000).is_empty());
    assert_eq!(world.condition("AbleToScale"), shown("True", "ScaleDownStabilized"));
    world.look(&pods(4, 0), low(), 9_299);
    assert_eq!(world.size, 4);
    let events = world.look(&pods(4, 0), low(), 9_302);
    assert_eq!((world.size, &*events[0].1), (1, "New size: 1; reason: All metrics below target"));
}

#[test]
fn sizes_out_of_bounds_need_no_metrics() {
    let mut above = World::new(json!({}), 12);
    let text = "New size: 10; reason: Current number of replicas above Spec.MaxReplicas";
    assert_eq!(above.look(&[], vec![], 9_000), [("SuccessfulRescale", text.to_owned())]);
    let mut below = World::new(json!({"minReplicas": 3}), 2);
    below.look(&[], vec![], 9_000);
    assert_eq!(below.size, 3);
    let mut off = World::new(json!({}), 0);
    assert!(off.look(&[], vec![], 9_000).is_empty());
    assert_eq!((off.size, off.condition("ScalingActive")), (0, shown("False", "ScalingDisabled")));
}

#[test]
fn a_metric_that_cannot_be_had_is_told_and_changes_nothing() {
    let mut world = World::new(json!({}), 2);
    let error = "unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    let events = world.look(&pods(2, 0), vec![Err(error.to_owned())], 9_000);
    let inner = format!("failed to get cpu utilization: unable to get metrics for resource cpu: {error}");
    let outer = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {inner}"
    );
    assert_eq!(events, [("FailedGetResourceMetric", inner), ("FailedComputeMetricsReplicas", outer)]);
    assert_eq!(world.condition("ScalingActive"), shown("False", "FailedGetResourceMetric"));
    assert_eq!(world.autoscaler.status.as_ref().and_then(|status| status.current_replicas), Some(2));
}

#[test]
fn a_broken_metric_holds_back_scaling_down_but_not_up() {
    let both = json!({"metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]});
    let broken = || Err("no metrics returned from external metrics API".to_owned());
    let mut down = World::new(both.clone(), 4);
    let events = down.look(&pods(4, 0), vec![Ok(measured(&[10, 10, 10, 10])), broken()], 9_000);
    assert_eq!((down.size, events.last().expect("events").0), (4, "FailedComputeMetricsReplicas"));
    let mut up = World::new(both, 4);
    let events = up.look(&pods(4, 0), vec![Ok(measured(&[90, 90, 90, 90])), broken()], 9_000);
    assert_eq!((up.size, events.last().expect("events").0), (8, "SuccessfulRescale"));
}

#[test]
fn pods_that_only_start_do_not_make_it_grow_faster() {
    let mut world = World::new(json!({}), 4);
    // Two are busy, two pending ones count as idle: 100 % of half of them is 50 % of all.
    world.look(&pods(2, 2), vec![Ok(measured(&[100, 100]))], 9_000);
    assert_eq!(world.size, 4);
    // One of three is not measured: it counts as fully used when others would go.
    let mut missing = World::new(json!({}), 3);
    missing.memory = Memory::default();
    missing.look(&pods(3, 0), vec![Ok(measured(&[20, 20]))], 9_000);
    missing.look(&pods(3, 0), vec![Ok(measured(&[20, 20]))], 9_400);
    assert_eq!(missing.size, 3, "(20 + 20 + 100) of 300 is 46 %, within the tolerance of 50 %");
}

#[test]
fn each_kind_of_metric_comes_to_its_number() {
    let per_pod = |name: &str, kind: &str, value: &str| {
        json!({"metric": {"name": name}, "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"},
            "target": {"type": kind, (if kind == "Value" { "value" } else { "averageValue" }): value}})
    };
    let cases = [
        (
            json!({"type": "Pods", "pods": per_pod("qps", "AverageValue", "10")}),
            measured(&[20_000, 20_000]),
            4,
            "pods metric qps",
        ),
        (
            json!({"type": "Object", "object": per_pod("qps", "Value", "10")}),
            Sample::Values(vec![15_000]),
            3,
            "Service metric qps",
        ),
        (
            json!({"type": "Object", "object": per_pod("qps", "AverageValue", "10")}),
            Sample::Values(vec![30_000]),
            3,
            "external metric qps(nil)",
        ),
        (
            json!({"type": "External", "external": per_pod("q", "AverageValue", "10")}),
            Sample::Values(vec![15_000, 20_000]),
            4,
            "external metric q(nil)",
        ),
        (
            json!({"type": "External", "external": per_pod("q", "Value", "10")}),
            Sample::Values(vec![20_000]),
            4,
            "external metric q(nil)",
        ),
        (
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "100"}}}),
            measured(&[150_000, 150_000]),
            3,
            "memory resource",
        ),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 50}}}),
            measured(&[75, 75]),
            3,
            "cpu container resource utilization (percentage of request)",
        ),
    ];
    for (metric, sample, size, name) in cases {
        let mut world = World::new(json!({"metrics": [metric]}), 2);
        let events = world.look(&pods(2, 0), vec![Ok(sample)], 9_000);
        let text = format!("New size: {size}; reason: {name} above target");
        assert_eq!(events, [("SuccessfulRescale", text)]);
    }
}

#[test]
fn rules_bound_how_fast_it_goes() {
    let rules = json!({"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}}});
    let mut world = World::new(rules, 2);
    let high = |count: usize| vec![Ok(measured(&vec![100; count]))];
    let low = |count: usize| vec![Ok(measured(&vec![1; count]))];
    world.look(&pods(2, 0), high(2), 9_000);
    assert_eq!((world.size, world.condition("ScalingLimited")), (3, shown("True", "ScaleUpLimit")));
    world.look(&pods(3, 0), high(3), 9_015);
    assert_eq!(world.size, 3, "one in a minute");
    world.look(&pods(3, 0), high(3), 9_061);
    assert_eq!(world.size, 4);
    world.look(&pods(4, 0), low(4), 9_200);
    assert_eq!((world.size, world.condition("ScalingLimited")), (2, shown("True", "ScaleDownLimit")));
    let mut disabled = World::new(
        json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0,
        "selectPolicy": "Disabled", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}}),
        4,
    );
    disabled.look(&pods(4, 0), low(4), 9_000);
    assert_eq!(disabled.size, 4);
}

#[test]
fn an_own_tolerance_counts_for_its_direction() {
    let spec = json!({"behavior": {"scaleUp": {"tolerance": "500m"}, "scaleDown": {"stabilizationWindowSeconds": 0}}});
    let mut world = World::new(spec, 2);
    world.look(&pods(2, 0), vec![Ok(measured(&[70, 70]))], 9_000);
    assert_eq!(world.size, 2, "40 % above is within 50 %");
    world.look(&pods(2, 0), vec![Ok(measured(&[25, 25]))], 9_015);
    assert_eq!(world.size, 1, "50 % below is not within 10 %");
}

#[test]
fn a_selector_that_cannot_be_used_is_told() {
    let autoscaler = autoscaler(json!({}));
    let mut look = Look::new(&autoscaler, TUNING, at(9_000)).expect("a spec");
    assert_eq!(look.selector(""), Err(Decision::Fail("selector is required".to_owned())));
    assert!(look.selector("a in (").is_err());
    assert!(look.selector("app=web").is_ok());
    let text = "pods by selector app=web are controlled by multiple HPAs: [default/a default/b]";
    let both = ["default/a".to_owned(), "default/b".to_owned()];
    assert_eq!(look.ambiguous("app=web", &both), Decision::Fail(text.to_owned()));
}

proptest! {
    /// Whatever is measured, the size stays within the bounds, and never more than doubles (or becomes four).
    #[test]
    fn sizes_stay_within_bounds(
        start in 1_i32..10,
        steps in prop::collection::vec((0_i64..400, 1_i64..200), 1..40),
    ) {
        let mut world = World::new(json!({"minReplicas": 2, "maxReplicas": 8}), start);
        let mut now = 9_000;
        for (value, pause) in steps {
            now += pause;
            let count = usize::try_from(world.size).expect("positive");
            let before = world.size;
            world.look(&pods(count, 0), vec![Ok(measured(&vec![value; count]))], now);
            prop_assert!((2..=8).contains(&world.size), "{}", world.size);
            prop_assert!(world.size <= (before * 2).max(4), "{before} became {}", world.size);
        }
    }
}
