//! The HorizontalPodAutoscaler controller: how large a scale is to be, from what is measured of its pods. A [`Look`] goes along with one
//! reconciliation: the scale is read, the metrics ([`sources`]) are judged ([`calculator`]), the result is calmed down ([`stabilization`]), the scale is
//! written, and [`Look::finish`] reports. Owns conditions, events and status; reading and writing are the shell's.

pub mod calculator;
pub mod sources;
pub mod stabilization;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_api::selector::LabelSelector;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;

use crate::action::{Action, HORIZONTAL_POD_AUTOSCALERS};
use crate::object_meta::{namespace, object_reference, seconds};
use crate::status_report;
use calculator::{Pods, Tolerances};
use sources::{Circumstances, Failure, Sample, Sizes};
use stabilization::{Bounds, Memory};

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// How patiently autoscaling goes on.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How often autoscalers are looked at (`--horizontal-pod-autoscaler-sync-period`).
    pub period: std::time::Duration,
    /// The window in which the highest recommendation counts before scaling down (`--horizontal-pod-autoscaler-downscale-stabilization`).
    pub downscale_window: SignedDuration,
    /// How far a metric may be from its target (`--horizontal-pod-autoscaler-tolerance`).
    pub tolerance: f64,
    /// See [`Pods::cpu_initialization`].
    pub cpu_initialization: SignedDuration,
    /// See [`Pods::initial_readiness_delay`].
    pub initial_readiness_delay: SignedDuration,
}

/// What is to be done about the scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays.
    Keep,
    /// It becomes this, for this reason.
    Rescale(i32, String),
    /// Nothing could be found out.
    Fail(String),
}

/// What the size alone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstLook {
    /// The metrics decide.
    Measure,
    /// They are not needed.
    Decided(Decision),
}

/// One reconciliation of one autoscaler.
#[derive(Debug)]
pub struct Look<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    tuning: Tuning,
    now: Timestamp,
    status: HorizontalPodAutoscalerStatus,
    metrics: Option<Vec<MetricStatus>>,
    events: Vec<Action>,
    /// Pods asked for when the look began.
    current: i32,
}

impl<'a> Look<'a> {
    /// Begins. None for an autoscaler without a spec, which validation never lets through.
    pub fn new(autoscaler: &'a HorizontalPodAutoscaler, tuning: Tuning, now: Timestamp) -> Option<Self> {
        let status = autoscaler.status.clone().unwrap_or_default();
        let metrics = status.current_metrics.clone();
        let spec = autoscaler.spec.as_ref()?;
        Some(Self { autoscaler, spec, tuning, now, status, metrics, events: Vec::new(), current: 0 })
    }

    fn show(&mut self, kind: &str, holds: bool, reason: &str, message: String) {
        let status = if holds { "True" } else { "False" };
        let all = self.status.conditions.get_or_insert_default();
        let index = all.iter().position(|one| one.type_ == kind).unwrap_or_else(|| {
            all.push(HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() });
            all.len() - 1
        });
        let Some(one) = all.get_mut(index) else { return };
        if one.status != status {
            one.last_transition_time = Some(seconds(self.now));
        }
        one.status = status.to_owned();
        one.reason = Some(reason.to_owned());
        one.message = Some(message);
    }

    fn tell(&mut self, warning: bool, reason: &'static str, message: String) {
        let regarding = Box::new(object_reference(&HORIZONTAL_POD_AUTOSCALERS, &self.autoscaler.metadata));
        self.events.push(Action::Event { regarding, warning, reason, message });
    }

    /// The scale cannot be read: `error` says why. The look ends with this.
    pub fn no_scale(mut self, error: String) -> Vec<Action> {
        self.tell(true, "FailedGetScale", error.clone());
        let message = format!("the HPA controller was unable to get the target's current scale: {error}");
        self.show(ABLE, false, "FailedGetScale", message);
        self.write()
    }

    /// The scale asks for `current` pods.
    pub fn first(&mut self, current: i32, memory: &mut Memory) -> FirstLook {
        self.current = current;
        let message = "the HPA controller was able to get the target's current scale";
        self.show(ABLE, true, "SucceededGetScale", message.to_owned());
        memory.first_seen(current, self.now);
        let (least, most) = (self.least(), self.spec.max_replicas);
        let decision = if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.show(ACTIVE, false, "ScalingDisabled", message.to_owned());
            Decision::Keep
        } else if current > most {
            Decision::Rescale(most, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            Decision::Rescale(least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            return FirstLook::Measure;
        };
        self.metrics = None;
        FirstLook::Decided(decision)
    }

    fn least(&self) -> i32 {
        self.spec.min_replicas.unwrap_or(1)
    }

    /// The metrics that are asked for, in order.
    pub fn metrics(&self) -> &'a [MetricSpec] {
        self.spec.metrics.as_deref().unwrap_or_default()
    }

    /// Reads the text by which the scale finds its pods.
    ///
    /// # Errors
    /// It cannot be used; that is the decision.
    pub fn selector(&mut self, text: &str) -> Result<LabelSelector, Decision> {
        if text.is_empty() {
            self.tell(true, "SelectorRequired", "selector is required".to_owned());
            let message = "the HPA target's scale is missing a selector".to_owned();
            self.show(ACTIVE, false, "InvalidSelector", message);
            return Err(self.give_up("selector is required".to_owned(), None));
        }
        LabelSelector::parse(text).map_err(|error| {
            let message =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.tell(true, "InvalidSelector", message.clone());
            self.show(ACTIVE, false, "InvalidSelector", message.clone());
            self.give_up(message, None)
        })
    }

    /// Several autoscalers (`namespace/name`) find the same pods: nothing is done.
    pub fn ambiguous(&mut self, selector: &str, autoscalers: &[String]) -> Decision {
        let all = autoscalers.join(" ");
        let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{all}]");
        self.tell(true, "AmbiguousSelector", message.clone());
        self.show(ACTIVE, false, "AmbiguousSelector", message.clone());
        self.give_up(message, None)
    }

    fn give_up(&mut self, error: String, metrics: Option<Vec<MetricStatus>>) -> Decision {
        self.metrics = metrics;
        self.tell(true, "FailedComputeMetricsReplicas", error.clone());
        Decision::Fail(error)
    }

    /// Decides by what was measured: one sample for each of [`Look::metrics`].
    pub fn decide(
        &mut self,
        reported: i32,
        pods: &[Arc<Pod>],
        samples: Vec<Result<Sample, String>>,
        memory: &mut Memory,
    ) -> Decision {
        let behavior = self.spec.behavior.as_ref();
        let circumstances = Circumstances {
            namespace: namespace(&self.autoscaler.metadata),
            sizes: Sizes { wanted: self.current, reported },
            pods: Pods {
                all: pods,
                cpu_initialization: self.tuning.cpu_initialization,
                initial_readiness_delay: self.tuning.initial_readiness_delay,
                now: self.now,
            },
            tolerances: Tolerances::new(
                behavior.and_then(|behavior| behavior.scale_up.as_ref()),
                behavior.and_then(|behavior| behavior.scale_down.as_ref()),
                self.tuning.tolerance,
            ),
        };
        let (mut replicas, mut by, mut statuses) = (0, String::new(), Vec::new());
        let mut failures: Vec<Failure> = Vec::new();
        for (spec, sample) in self.metrics().iter().zip(samples) {
            match circumstances.judge(spec, sample) {
                Ok(verdict) => {
                    if replicas == 0 || verdict.replicas > replicas {
                        (replicas, by) = (verdict.replicas, verdict.name);
                    }
                    statuses.push(verdict.status);
                }
                Err(failure) => {
                    self.tell(true, failure.reason, failure.text.clone());
                    failures.push(failure);
                    statuses.push(MetricStatus::default());
                }
            }
        }
        // Some that cannot be measured do no harm unless the others would scale down.
        if let Some(first) = failures.first()
            && (failures.len() >= statuses.len() || replicas < self.current)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", first.text);
            self.show(ACTIVE, false, first.reason, message);
            let counts = format!("{} invalid out of {}", failures.len(), statuses.len());
            let error = format!("invalid metrics ({counts}), first error is: {}", first.outer);
            return self.give_up(error, Some(statuses));
        }
        let message = format!("the HPA was able to successfully calculate a replica count from {by}");
        self.show(ACTIVE, true, "ValidMetricFound", message);
        self.metrics = Some(statuses);
        self.calm_down(replicas, &by, memory)
    }

    fn calm_down(&mut self, wanted: i32, by: &str, memory: &mut Memory) -> Decision {
        let current = self.current;
        let reason = if wanted > current {
            format!("{by} above target")
        } else if wanted < current {
            "All metrics below target".to_owned()
        } else {
            String::new()
        };
        let bounds = Bounds { current, min: self.least(), max: self.spec.max_replicas };
        let window = self.tuning.downscale_window;
        let calm = memory.normalize(self.spec.behavior.as_ref(), bounds, wanted, window, self.now);
        self.show(ABLE, true, calm.able.0, calm.able.1.to_owned());
        let (limited, (limit, message)) = calm.limited;
        self.show(LIMITED, limited, limit, message.to_owned());
        if calm.replicas == current { Decision::Keep } else { Decision::Rescale(calm.replicas, reason) }
    }

    /// The scale was written, or could not be (`error` says why).
    pub fn rescaled(
        &mut self,
        replicas: i32,
        reason: &str,
        error: Option<&str>,
        memory: &mut Memory,
    ) -> Decision {
        if let Some(error) = error {
            self.tell(
                true,
                "FailedRescale",
                format!("New size: {replicas}; reason: {reason}; error: {error}"),
            );
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            self.show(ABLE, false, "FailedUpdateScale", message);
            self.metrics = self.status.current_metrics.clone();
            return Decision::Fail(error.to_owned());
        }
        let message = format!("the HPA controller was able to update the target scale to {replicas}");
        self.show(ABLE, true, "SucceededRescale", message);
        self.tell(false, "SuccessfulRescale", format!("New size: {replicas}; reason: {reason}"));
        memory.scaled(self.spec.behavior.as_ref(), self.current, replicas, self.now);
        Decision::Rescale(replicas, reason.to_owned())
    }

    /// Reports what came of it.
    pub fn finish(mut self, decision: &Decision) -> Vec<Action> {
        self.status.current_replicas = Some(self.current);
        self.status.current_metrics = self.metrics.take();
        match decision {
            Decision::Keep => self.status.desired_replicas = self.current,
            Decision::Rescale(replicas, _) => {
                self.status.desired_replicas = *replicas;
                self.status.last_scale_time = Some(seconds(self.now));
            }
            Decision::Fail(_) => {}
        }
        self.write()
    }

    fn write(mut self) -> Vec<Action> {
        let autoscaler = self.autoscaler;
        let report = status_report::report(
            &HORIZONTAL_POD_AUTOSCALERS,
            &autoscaler.metadata,
            autoscaler.status.as_ref(),
            &self.status,
        );
        self.events.extend(report);
        self.events
    }
}
