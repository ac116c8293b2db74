//! Runs the EndpointSlice and Endpoints controllers: which Services a pod, node or slice concerns, one plan a Service.

use std::collections::BTreeSet;
use std::sync::Arc;

use controller_manager_core::action::Action;
use controller_manager_core::endpoints::{is_managed, legacy, slices};
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

use crate::context::{Context, outcome};
use crate::executor::{is_namespace_terminating, retry_soon};
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

fn service_of_slice(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(slices::SERVICE_NAME)?;
    slices::is_ours(slice).then(|| ObjectKey::new(namespace(&slice.metadata), name.as_str()))
}

/// Runs the EndpointSlice controller until shutdown.
pub async fn run_slices(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("endpoint-slice-controller");
    let expectations: Arc<Mutex<Expectations>> = Arc::default();
    let (for_pods, for_slices) = (informers.clone(), Arc::clone(&expectations));
    let (for_nodes, started) = (informers.clone(), Instant::now());
    context
        .controller("endpoint_slice", WORKERS)
        .watch(&informers.services, |change| vec![change.key()])
        .watch(&informers.pods, move |change| services_of_pod(&for_pods, change))
        .watch(&informers.slices, move |change| {
            let Some(key) = service_of_slice(change.object()) else { return Vec::new() };
            if change.old().is_none() {
                for_slices.lock().created(&key.to_string(), 1);
            }
            vec![key]
        })
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
            let (informers, executor, expectations) =
                (informers.clone(), executor.clone(), Arc::clone(&expectations));
            async move {
                let key_text = key.to_string();
                if !expectations.lock().satisfied(&key_text, started.elapsed()) {
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
                let creations =
                    actions.iter().filter(|action| matches!(action, Action::Create { .. })).count();
                if creations > 0 {
                    expectations.lock().expect(&key_text, creations, [], started.elapsed());
                } else if service.is_none() {
                    expectations.lock().forget(&key_text);
                }
                let mut left = creations;
                for action in &actions {
                    let result = executor.execute(action).await;
                    if let Err(error) = &result {
                        expectations.lock().created(&key_text, left);
                        if is_namespace_terminating(error) {
                            return Ok(Outcome::Done);
                        }
                    } else if matches!(action, Action::Create { .. }) {
                        left -= 1;
                    }
                    if let Some(after) = retry_soon(result)? {
                        return Ok(outcome(Some(after)));
                    }
                }
                Ok(Outcome::Done)
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
                    result => Ok(outcome(retry_soon(result)?)),
                }
            }
        })
        .await;
}
