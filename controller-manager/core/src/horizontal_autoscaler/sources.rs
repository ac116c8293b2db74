//! One metric of an autoscaler: what has to be asked for it, and what the answer comes to in pods, in its status and in words.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, CrossVersionObjectReference, ExternalMetricStatus, MetricIdentifier,
    MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use coracle_api::quantity::{Format, Quantity};

use super::calculator::{
    PodMetrics, Pods, Proposal, Tolerances, by_average, by_utilization, by_value, by_value_per_pod, millis,
};
use crate::label_selector::printed;

/// What has to be asked for one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Query<'a> {
    /// What the pods use of a resource, in one container or in all.
    Resource {
        /// The resource.
        name: &'a str,
        /// The container.
        container: Option<&'a str>,
    },
    /// A metric of each pod.
    Pods(&'a MetricIdentifier),
    /// A metric of one object.
    Object(&'a CrossVersionObjectReference, &'a MetricIdentifier),
    /// A metric of something that is no object of the cluster.
    External(&'a MetricIdentifier),
    /// Nothing: the metric is of no known kind.
    Unknown,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Of each pod.
    Pods(PodMetrics),
    /// One value, or all values there are, in thousandths.
    Values(Vec<i64>),
}

/// The scale as far as it matters to a metric.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// As many pods as are asked for.
    pub wanted: i32,
    /// As many as are reported to be there.
    pub reported: i32,
}

/// What a metric comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// So many pods.
    pub replicas: i32,
    /// Its name for people.
    pub name: String,
    /// Its part of the status.
    pub status: MetricStatus,
}

/// Why a metric says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of the event and the condition.
    pub reason: &'static str,
    /// Their text.
    pub text: String,
    /// The text in the event about all metrics.
    pub outer: String,
}

/// What has to be asked for a metric.
pub fn query(spec: &MetricSpec) -> Query<'_> {
    if let Some(of) = &spec.resource {
        Query::Resource { name: &of.name, container: None }
    } else if let Some(of) = &spec.container_resource {
        Query::Resource { name: &of.name, container: Some(&of.container) }
    } else if let Some(of) = &spec.pods {
        Query::Pods(&of.metric)
    } else if let Some(of) = &spec.object {
        Query::Object(&of.described_object, &of.metric)
    } else if let Some(of) = &spec.external {
        Query::External(&of.metric)
    } else {
        Query::Unknown
    }
}

fn text(millis: i64) -> Text {
    Text(Quantity::from_millis(millis, Format::DecimalSi).to_string())
}

fn averaged(proposal: &Proposal) -> MetricValueStatus {
    MetricValueStatus {
        average_value: Some(text(proposal.measured)),
        average_utilization: proposal.utilization,
        value: None,
    }
}

fn valued(proposal: &Proposal) -> MetricValueStatus {
    MetricValueStatus { value: Some(text(proposal.measured)), ..MetricValueStatus::default() }
}

fn pods_of(sample: Result<Sample, String>) -> Result<PodMetrics, String> {
    match sample? {
        Sample::Pods(metrics) => Ok(metrics),
        Sample::Values(_) => Err("the answer is not about pods".to_owned()),
    }
}

fn sum_of(sample: Result<Sample, String>) -> Result<i64, String> {
    match sample? {
        Sample::Values(values) => Ok(values.into_iter().fold(0, i64::saturating_add)),
        Sample::Pods(_) => Err("the answer is about pods".to_owned()),
    }
}

/// What is common to the metrics of one look.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The autoscaler's namespace.
    pub namespace: &'a str,
    /// The scale.
    pub sizes: Sizes,
    /// The pods it counts.
    pub pods: Pods<'a>,
    /// The tolerances.
    pub tolerances: Tolerances,
}

impl Circumstances<'_> {
    /// What the metric comes to.
    ///
    /// # Errors
    /// Nothing can be said.
    pub fn judge(&self, spec: &MetricSpec, sample: Result<Sample, String>) -> Result<Verdict, Failure> {
        let fail = |reason, outer: String| {
            move |text: String| Failure { reason, outer: format!("{outer}: {text}"), text }
        };
        if let Some(of) = &spec.resource {
            let outer = format!("failed to get {} resource metric value", of.name);
            let (proposal, name) = self
                .resource(&of.name, None, &of.target, sample)
                .map_err(fail("FailedGetResourceMetric", outer))?;
            let status = ResourceMetricStatus { name: of.name.clone(), current: averaged(&proposal) };
            return Ok(verdict(proposal, name, "Resource", |all| all.resource = Some(status)));
        }
        if let Some(of) = &spec.container_resource {
            let outer = format!("failed to get {} container metric value", of.container);
            let (proposal, name) = self
                .resource(&of.name, Some(&of.container), &of.target, sample)
                .map_err(fail("FailedGetContainerResourceMetric", outer))?;
            let status = ContainerResourceMetricStatus {
                container: of.container.clone(),
                name: of.name.clone(),
                current: averaged(&proposal),
            };
            return Ok(verdict(proposal, name, "ContainerResource", |all| {
                all.container_resource = Some(status)
            }));
        }
        if let Some(of) = &spec.pods {
            let failed = fail("FailedGetPodsMetric", "failed to get pods metric value".to_owned());
            let proposal = self.pods(&of.metric, &of.target, sample).map_err(failed)?;
            let status = PodsMetricStatus { metric: of.metric.clone(), current: averaged(&proposal) };
            let name = format!("pods metric {}", of.metric.name);
            return Ok(verdict(proposal, name, "Pods", |all| all.pods = Some(status)));
        }
        if let Some(of) = &spec.object {
            let outer = "failed to get object metric value".to_owned();
            let (object, metric) = (&of.described_object, &of.metric);
            let (proposal, shared) = self
                .object(object, metric, &of.target, sample)
                .map_err(fail("FailedGetObjectMetric", outer))?;
            let current = if shared { averaged(&proposal) } else { valued(&proposal) };
            let name = if shared {
                format!("external metric {}({})", metric.name, printed(metric.selector.as_ref()))
            } else {
                format!("{} metric {}", object.kind, metric.name)
            };
            let status =
                ObjectMetricStatus { current, described_object: object.clone(), metric: metric.clone() };
            return Ok(verdict(proposal, name, "Object", |all| all.object = Some(status)));
        }
        if let Some(of) = &spec.external {
            let outer = format!("failed to get {} external metric value", of.metric.name);
            let (proposal, shared) = self
                .external(&of.metric, &of.target, sample)
                .map_err(fail("FailedGetExternalMetric", outer))?;
            let current = if shared { averaged(&proposal) } else { valued(&proposal) };
            let name =
                format!("external metric {}({})", of.metric.name, printed(of.metric.selector.as_ref()));
            let status = ExternalMetricStatus { current, metric: of.metric.clone() };
            return Ok(verdict(proposal, name, "External", |all| all.external = Some(status)));
        }
        let text = format!("unknown metric source type {:?}", spec.type_);
        Err(Failure { reason: "InvalidMetricSourceType", outer: text.clone(), text })
    }

    fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
        sample: Result<Sample, String>,
    ) -> Result<(Proposal, String), String> {
        let current = self.sizes.wanted;
        let metrics = pods_of(sample)
            .map_err(|error| format!("unable to get metrics for resource {resource}: {error}"));
        if let Some(value) = &target.average_value {
            let proposal = metrics.and_then(|metrics| {
                by_average(current, millis(value), resource, metrics, self.pods, self.tolerances)
            });
            let proposal = proposal.map_err(|error| format!("failed to get {resource} usage: {error}"))?;
            return Ok((proposal, format!("{resource} resource")));
        }
        let Some(percent) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
        };
        let proposal = metrics.and_then(|metrics| {
            by_utilization(current, percent, resource, container, metrics, self.pods, self.tolerances)
        });
        let proposal = proposal.map_err(|error| format!("failed to get {resource} utilization: {error}"))?;
        let of = if container.is_some() { "container resource" } else { "resource" };
        Ok((proposal, format!("{resource} {of} utilization (percentage of request)")))
    }

    fn pods(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
        sample: Result<Sample, String>,
    ) -> Result<Proposal, String> {
        let Some(value) = &target.average_value else {
            return Err("invalid pods metric source: no average value target was set".to_owned());
        };
        let metrics =
            pods_of(sample).map_err(|error| format!("unable to get metric {}: {error}", metric.name))?;
        by_average(self.sizes.wanted, millis(value), "", metrics, self.pods, self.tolerances)
    }

    /// Also whether the target is for each pod.
    fn object(
        &self,
        object: &CrossVersionObjectReference,
        metric: &MetricIdentifier,
        target: &MetricTarget,
        sample: Result<Sample, String>,
    ) -> Result<(Proposal, bool), String> {
        let measured = sum_of(sample).map_err(|error| {
            // The order of the words is upstream's.
            let on = format!("{} on {} {}", object.kind, self.namespace, object.name);
            format!("unable to get metric {}: {on}/{error}", metric.name)
        });
        match (&*target.type_, &target.value, &target.average_value) {
            ("Value", Some(value), _) => self.value(measured?, value).map(|proposal| (proposal, false)),
            ("AverageValue", _, Some(value)) => {
                let measured = measured
                    .map_err(|error| format!("failed to get {} object metric: {error}", metric.name))?;
                Ok((self.share(measured, value), true))
            }
            _ => Err(
                "invalid object metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            ),
        }
    }

    /// Also whether the target is for each pod.
    fn external(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
        sample: Result<Sample, String>,
    ) -> Result<(Proposal, bool), String> {
        let measured = sum_of(sample).map_err(|error| {
            let of = format!("{}/{}/{}", self.namespace, metric.name, printed(metric.selector.as_ref()));
            format!("unable to get external metric {of}: {error}")
        });
        if let Some(value) = &target.average_value {
            let measured = measured
                .map_err(|error| format!("failed to get {} external metric: {error}", metric.name))?;
            return Ok((self.share(measured, value), true));
        }
        if let Some(value) = &target.value {
            let proposal = measured.and_then(|measured| self.value(measured, value));
            let proposal = proposal
                .map_err(|error| format!("failed to get external metric {}: {error}", metric.name))?;
            return Ok((proposal, false));
        }
        Err("invalid external metric source: neither a value target nor an average value target was set"
            .to_owned())
    }

    fn value(&self, measured: i64, target: &Text) -> Result<Proposal, String> {
        by_value(self.sizes.wanted, measured, millis(target), self.pods, self.tolerances)
    }

    fn share(&self, measured: i64, target: &Text) -> Proposal {
        by_value_per_pod(self.sizes.reported, measured, millis(target), self.tolerances)
    }
}

fn verdict(proposal: Proposal, name: String, kind: &str, fill: impl FnOnce(&mut MetricStatus)) -> Verdict {
    let mut status = MetricStatus { type_: kind.to_owned(), ..MetricStatus::default() };
    fill(&mut status);
    Verdict { replicas: proposal.replicas, name, status }
}
