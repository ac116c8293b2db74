//! Runs the EndpointSlice and Endpoints controllers: which Services a pod, node or slice concerns, one plan a Service.

use std::collections::BTreeSet;
use std::sync::Arc;

use controller_manager_core::action::Action;
use controller_manager_core::endpoints::{is_managed, legacy, mirroring, slices};
use controller_manager_core::expectations::{EXPIRY, Expectations};
use controller_manager_core::label_selector::matches_map;
use controller_manager_core::object_meta::namespace;
use controller_manager_core::pod_state::{is_finished, is_ready, is_terminating};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::Change;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::Context;
use crate::executor::{Executor, done, is_namespace_terminating};
use crate::informers::{Informers, SLICES_OF};

const WORKERS: usize = 5;

/// The Services that select a pod, before or after the change; none if nothing changed that endpoints show.
fn services_of_pod(informers: &Informers, change: &Change<Pod>) -> Vec<ObjectKey> {
    type Shown<'a> =
        (Option<&'a Vec<k8s_openapi::api::core::v1::PodIP>>, Option<&'a String>, bool, bool, bool);
    fn shown(pod: &Pod) -> (Shown<'_>, Option<&std::collections::BTreeMap<String, String>>) {
        let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        ((ips, node, is_ready(pod), is_terminating(pod), is_finished(pod)), pod.metadata.labels.as_ref())
    }
    let pod = change.object();
    if !change.is_deleted() && change.old().is_some_and(|old| shown(old) == shown(pod)) {
        return Vec::new();
    }
    let selects = |service: &Arc<Service>| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.filter(|selector| !selector.is_empty()).is_some_and(|selector| {
            matches_map(selector, pod.metadata.labels.as_ref())
                || change.old().is_some_and(|old| matches_map(selector, old.metadata.labels.as_ref()))
        })
    };
    let services = informers.services.store().indexed("namespace", namespace(&pod.metadata));
    services.into_iter().filter(selects).map(|service| ObjectKey::of(&*service)).collect()
}

fn selected_pods(informers: &Informers, service: &Service) -> Vec<Arc<Pod>> {
    let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return Vec::new();
    };
    let mut pods = informers.pods.store().indexed("namespace", namespace(&service.metadata));
    pods.retain(|pod| matches_map(selector, pod.metadata.labels.as_ref()));
    pods
}

/// The Service of a slice that this manager looks after.
fn service_of_slice(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(slices::SERVICE_NAME)?;
    slices::is_managed_by(slice, manager).then(|| ObjectKey::new(namespace(&slice.metadata), name.as_str()))
}

/// Writes slices, with expectations about those that are made. Cheap to clone.
#[derive(Clone)]
struct SliceControl {
    executor: Executor,
    expectations: Arc<Mutex<Expectations>>,
    started: Instant,
}

impl SliceControl {
    fn new(executor: Executor) -> Self {
        Self { executor, expectations: Arc::default(), started: Instant::now() }
    }

    /// Takes in what the watch shows of a slice; the Service that it concerns.
    fn observe(&self, change: &Change<EndpointSlice>, manager: &str) -> Vec<ObjectKey> {
        let Some(key) = service_of_slice(change.object(), manager) else { return Vec::new() };
        if change.old().is_none() {
            self.expectations.lock().created(&key.to_string(), 1);
        }
        vec![key]
    }

    fn satisfied(&self, key: &ObjectKey) -> bool {
        self.expectations.lock().satisfied(&key.to_string(), self.started.elapsed())
    }

    /// Carries out a plan; `is_gone` if there is nothing to make slices for any more.
    async fn carry_out(&self, key: &ObjectKey, actions: &[Action], is_gone: bool) -> anyhow::Result<Outcome> {
        let key = key.to_string();
        let mut left = actions.iter().filter(|action| matches!(action, Action::Create { .. })).count();
        if left > 0 {
            self.expectations.lock().expect(&key, left, [], self.started.elapsed());
        } else if is_gone {
            self.expectations.lock().forget(&key);
        }
        for action in actions {
            let result = self.executor.execute(action).await;
            if let Err(error) = &result {
                self.expectations.lock().created(&key, left);
                if is_namespace_terminating(error) {
                    return Ok(Outcome::Done);
                }
            } else if matches!(action, Action::Create { .. }) {
                left -= 1;
            }
            result?;
        }
        Ok(Outcome::Done)
    }
}

/// Runs the EndpointSlice controller until shutdown.
pub async fn run_slices(context: Context) {
    let informers = context.informers.clone();
    let control = SliceControl::new(context.executor("endpoint-slice-controller"));
    let (for_pods, for_slices, for_nodes) = (informers.clone(), control.clone(), informers.clone());
    context
        .controller("endpoint_slice", WORKERS)
        .watch(&informers.services, |change| vec![change.key()])
        .watch(&informers.pods, move |change| services_of_pod(&for_pods, change))
        .watch(&informers.slices, move |change| for_slices.observe(change, slices::MANAGER))
        .watch(&informers.nodes, move |change| {
            // A zone that becomes known concerns the Services with pods there.
            let zone = |node: &k8s_openapi::api::core::v1::Node| {
                node.metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get("topology.kubernetes.io/zone").cloned())
            };
            if change.is_deleted() || change.old().is_some_and(|old| zone(old) == zone(change.object())) {
                return Vec::new();
            }
            let pods = for_nodes.pods.store().indexed("nodeName", &change.key().name);
            let created = pods.into_iter().map(|pod| Change::Applied { old: None, new: pod });
            let keys: BTreeSet<_> = created.flat_map(|change| services_of_pod(&for_nodes, &change)).collect();
            keys.into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let (informers, control) = (informers.clone(), control.clone());
            async move {
                if !control.satisfied(&key) {
                    // A slice we made is not in our copy yet: its arrival brings the Service here again.
                    return Ok(Outcome::RequeueAfter(EXPIRY));
                }
                let service = informers.services.store().get(&key);
                if service.as_ref().is_some_and(|service| !is_managed(service)) {
                    return Ok(Outcome::Done);
                }
                let existing =
                    informers.slices.store().indexed(SLICES_OF, &format!("{}/{}", key.namespace, key.name));
                let pods =
                    service.as_deref().map(|service| selected_pods(&informers, service)).unwrap_or_default();
                let nodes = |name: &str| informers.nodes.store().get_named("", name);
                let actions = slices::plan(service.as_deref(), &pods, nodes, &existing);
                control.carry_out(&key, &actions, service.is_none()).await
            }
        })
        .await;
}

/// Runs the EndpointSlice mirroring controller until shutdown.
pub async fn run_mirroring(context: Context) {
    let informers = context.informers.clone();
    let control = SliceControl::new(context.executor("endpoint-slice-mirroring-controller"));
    let (for_slices, most) = (control.clone(), context.settings.mirrored_endpoints_max);
    context
        .controller("endpoint_slice_mirroring", WORKERS)
        .watch(&informers.endpoints, |change| vec![change.key()])
        .watch(&informers.services, |change| vec![change.key()])
        .watch(&informers.slices, move |change| for_slices.observe(change, mirroring::MANAGER))
        .run(&context.shutdown, move |key| {
            let (informers, control) = (informers.clone(), control.clone());
            async move {
                if !control.satisfied(&key) {
                    return Ok(Outcome::RequeueAfter(EXPIRY));
                }
                let endpoints = informers.endpoints.store().get(&key);
                let service = informers.services.store().get(&key);
                let existing =
                    informers.slices.store().indexed(SLICES_OF, &format!("{}/{}", key.namespace, key.name));
                let actions = mirroring::plan(endpoints.as_deref(), service.as_deref(), &existing, most);
                control.carry_out(&key, &actions, endpoints.is_none()).await
            }
        })
        .await;
}

/// Runs the Endpoints controller until shutdown.
pub async fn run_legacy(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("endpoint-controller");
    let for_pods = informers.clone();
    context
        .controller("endpoint", WORKERS)
        .watch(&informers.services, |change| vec![change.key()])
        .watch(&informers.pods, move |change| services_of_pod(&for_pods, change))
        .watch(&informers.endpoints, |change| vec![change.key()])
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                let service = informers.services.store().get(&key);
                let existing = informers.endpoints.store().get(&key);
                let ours = existing.as_ref().is_some_and(|endpoints| {
                    let labels = endpoints.metadata.labels.as_ref();
                    labels
                        .and_then(|labels| labels.get(legacy::MANAGED_BY))
                        .is_some_and(|by| by == legacy::MANAGER)
                });
                match &service {
                    Some(service) if !is_managed(service) => return Ok(Outcome::Done),
                    None if !ours => return Ok(Outcome::Done),
                    _ => {}
                }
                let pods =
                    service.as_deref().map(|service| selected_pods(&informers, service)).unwrap_or_default();
                let Some(action) = legacy::plan(service.as_deref(), &pods, existing.as_deref()) else {
                    return Ok(Outcome::Done);
                };
                match executor.execute(&action).await {
                    Err(error) if is_namespace_terminating(&error) => Ok(Outcome::Done),
                    result => done(result),
                }
            }
        })
        .await;
}
