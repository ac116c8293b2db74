//! Runs the HorizontalPodAutoscaler controller: reads the scale of anything that has one and the metrics that autoscalers name, writes the scale,
//! reports. Each autoscaler is looked at once in a period.

use std::collections::HashMap;
use std::sync::Arc;

use controller_manager_core::action::ResourceId;
use controller_manager_core::horizontal_autoscaler::sources::query;
use controller_manager_core::horizontal_autoscaler::stabilization::Memory;
use controller_manager_core::horizontal_autoscaler::{Decision, FirstLook, Look};
use coracle_api::selector::LabelSelector;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer};
use http::Method;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use super::message;
use crate::context::Context;
use crate::discovery::Discovery;
use crate::executor::{Executor, path};
use crate::informers::Informers;
use crate::metrics_client::MetricsClient;

const WORKERS: usize = 5;

/// What is remembered of one autoscaler. All of it may be lost.
#[derive(Default)]
struct Known {
    memory: Memory,
    /// By what its scale finds pods, when that was last known.
    selector: Option<LabelSelector>,
}

#[derive(Clone)]
struct Shared {
    informers: Informers,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    known: Arc<Mutex<HashMap<ObjectKey, Known>>>,
    discovery: Discovery,
    executor: Executor,
    metrics: MetricsClient,
    context: Context,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let executor = context.executor("horizontal-pod-autoscaler");
    let shared = Shared {
        informers: context.informers.clone(),
        autoscalers: context.informer().start(&context.shutdown),
        known: Arc::default(),
        discovery: context.discovery.clone(),
        metrics: MetricsClient::new(executor.clone(), context.discovery.clone()),
        executor,
        context: context.clone(),
    };
    let for_changes = shared.clone();
    context
        .controller("horizontalpodautoscaler", WORKERS)
        .watch(&shared.autoscalers, move |change| for_changes.changed(change))
        .wait_for(&context.informers.pods)
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

impl Shared {
    /// News is what is asked for; the status is our own.
    fn changed(&self, change: &Change<HorizontalPodAutoscaler>) -> Vec<ObjectKey> {
        if change.is_deleted() {
            self.known.lock().remove(&change.key());
            return Vec::new();
        }
        let before = change.old().filter(|old| old.metadata.uid == change.object().metadata.uid);
        let is_news = before.is_none_or(|old| old.spec != change.object().spec);
        is_news.then(|| change.key()).into_iter().collect()
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(autoscaler) = self.autoscalers.store().get(key) else {
            self.known.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let tuning = self.context.settings.autoscaling;
        let Some(look) = Look::new(&autoscaler, tuning, crate::clock::now()) else {
            return Ok(Outcome::Done);
        };
        let mut memory = self.known.lock().entry(key.clone()).or_default().memory.clone();
        let target = autoscaler.spec.as_ref().map(|spec| spec.scale_target_ref.clone()).unwrap_or_default();
        let actions = match self.scale(&target, &key.namespace).await {
            Err(error) => look.no_scale(error),
            Ok((resource, scale)) => self.look(key, look, &resource, scale, &mut memory).await,
        };
        if let Some(known) = self.known.lock().get_mut(key) {
            known.memory = memory;
        }
        // Failures are shown by conditions and events; the next try is due after the period in any case.
        match self.executor.execute_all(&actions).await {
            Ok(()) => {}
            Err(error) if is_conflict(&error) => tracing::debug!(%key, "the autoscaler changed meanwhile"),
            Err(error) => {
                tracing::warn!(%key, error = %error, "an autoscaler's status is not written")
            }
        }
        Ok(Outcome::RequeueAfter(tuning.period))
    }

    async fn look(
        &self,
        key: &ObjectKey,
        mut look: Look<'_>,
        resource: &ResourceId,
        mut scale: Scale,
        memory: &mut Memory,
    ) -> Vec<controller_manager_core::action::Action> {
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let mut decision = match look.first(current, memory) {
            FirstLook::Decided(decision) => decision,
            FirstLook::Measure => self.measure(key, &mut look, &scale, memory).await,
        };
        if let Decision::Rescale(replicas, reason) = decision {
            scale.spec.get_or_insert_default().replicas = Some(replicas);
            let name = scale.metadata.name.clone().unwrap_or_default();
            let address = path(resource, &key.namespace, &name, "scale");
            let json = "application/json";
            let body = json!(scale).to_string().into_bytes();
            let result = self.executor.call::<IgnoredAny>(Method::PUT, &address, json, json, body).await;
            let error = result.err().map(|error| message(&error));
            decision = look.rescaled(replicas, &reason, error.as_deref(), memory);
        }
        if let Decision::Fail(error) = &decision {
            tracing::debug!(%key, error, "an autoscaler finds no size");
        }
        look.finish(&decision)
    }

    async fn measure(
        &self,
        key: &ObjectKey,
        look: &mut Look<'_>,
        scale: &Scale,
        memory: &mut Memory,
    ) -> Decision {
        let text = scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        let selector = match look.selector(text) {
            Ok(selector) => selector,
            Err(decision) => return decision,
        };
        let all = self.informers.pods.store().indexed("namespace", &key.namespace);
        let pods: Vec<Arc<Pod>> = all.into_iter().filter(|pod| finds(&selector, pod)).collect();
        let rivals = self.autoscalers_of(key, selector, &pods);
        if rivals.len() > 1 {
            return look.ambiguous(text, &rivals);
        }
        let mut samples = Vec::new();
        for metric in look.metrics() {
            samples.push(self.metrics.sample(query(metric), &key.namespace, text).await);
        }
        let reported = scale.status.as_ref().map_or(0, |status| status.replicas);
        look.decide(reported, &pods, samples, memory)
    }

    /// The autoscalers whose scales find any of the pods, after noting by what this one's does.
    fn autoscalers_of(&self, key: &ObjectKey, selector: LabelSelector, pods: &[Arc<Pod>]) -> Vec<String> {
        let mut known = self.known.lock();
        if let Some(own) = known.get_mut(key) {
            own.selector = Some(selector);
        }
        let concerns = |known: &Known| {
            known.selector.as_ref().is_some_and(|selector| pods.iter().any(|pod| finds(selector, pod)))
        };
        let near = known.iter().filter(|(other, _)| other.namespace == key.namespace);
        let mut found: Vec<String> =
            near.filter(|(_, known)| concerns(known)).map(|(other, _)| other.to_string()).collect();
        found.sort();
        found
    }

    /// The scale of anything that has one, and what that is to the API.
    async fn scale(
        &self,
        target: &CrossVersionObjectReference,
        namespace: &str,
    ) -> Result<(ResourceId, Scale), String> {
        let api_version = target.api_version.as_deref().unwrap_or_default();
        if api_version.matches('/').count() > 1 {
            return Err(format!("unexpected GroupVersion string: {api_version}"));
        }
        let group = ResourceId::group_of(api_version);
        let found = self.discovery.resource_of_kind(group, &target.kind).await;
        let Some(resource) = found.map_err(|error| message(&error))? else {
            return Err(format!("no matches for kind {:?} in group {group:?}", target.kind));
        };
        let address = path(&resource, namespace, &target.name, "scale");
        let scale = self.executor.read::<Scale>(&address).await.map_err(|error| message(&error))?;
        Ok((resource, scale))
    }
}

fn finds(selector: &LabelSelector, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.matches_with(|key| labels?.get(key).map(String::as_str))
}
