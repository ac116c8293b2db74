//! Runs the resource quota controller: counts what quotas name, from watches that start with the first quota that needs them, and writes their
//! status. Counting anew follows what frees something (admission charges what is made), changes of quotas, and once in a while the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use controller_manager_core::action::Action;
use controller_manager_core::pod_state::is_finished;
use controller_manager_core::resource_quota::charges::{Charges, SETTLE};
use controller_manager_core::resource_quota::{Counted, count, kinds, plan};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer, Watchable};
use coracle_client::store::index_by_namespace;
use coracle_client::work_queue::WorkQueue;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::Resource;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::context::Context;
use crate::executor::Executor;

const WORKERS: usize = 5;
const MOMENT: Duration = Duration::from_millis(20);
/// How long the first list of a kind may take before the quota is tried again later.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// A kind that discovery did not have this recently may be there now.
const DISCOVERY_AGE_MAX: Duration = Duration::from_secs(30);

type MetadataInformer = Informer<PartialObjectMeta<DynamicObject>>;

/// The charges of a quota, with its version up to which they are known.
type Followed = (Charges, Option<String>);

#[derive(Clone)]
struct Shared {
    context: Context,
    executor: Executor,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    charges: Arc<Mutex<HashMap<ObjectKey, Followed>>>,
    /// Kinds of which only the number counts.
    numbers: Arc<Mutex<HashMap<Counted, MetadataInformer>>>,
    started: Instant,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let controller = context.controller("resourcequota", WORKERS);
    let shared = Shared {
        executor: context.executor("resourcequota-controller"),
        quotas: context.informer().index(index_by_namespace()).start(&context.shutdown),
        queue: controller.queue(),
        charges: Arc::default(),
        numbers: Arc::default(),
        started: Instant::now(),
        context: context.clone(),
    };
    let informers = &context.informers;
    let (for_quotas, for_pods, for_services, for_claims) =
        (shared.clone(), shared.clone(), shared.clone(), shared.clone());
    controller
        .watch(&shared.quotas, move |change| for_quotas.quota_changed(change))
        .watch(&informers.pods, move |change| for_pods.freed_if(change, frees))
        .watch(&informers.services, move |change| {
            for_services.freed_if(change, |old, new| old.spec != new.spec)
        })
        .watch(&informers.claims, move |change| for_claims.freed_if(change, |old, new| old.spec != new.spec))
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

/// Whether a changed pod may use less than before.
fn frees(old: &Pod, new: &Pod) -> bool {
    is_finished(old) != is_finished(new) || old.spec != new.spec
}

impl Shared {
    /// Notes what admission charged; a changed spec is counted anew.
    fn quota_changed(&self, change: &Change<ResourceQuota>) -> Vec<ObjectKey> {
        let (key, now) = (change.key(), self.started.elapsed());
        let mut charges = self.charges.lock();
        let quota = change.object();
        let version = quota.metadata.resource_version.clone();
        let Some(old) = change.old().filter(|old| old.metadata.uid == quota.metadata.uid) else {
            if change.is_deleted() {
                charges.remove(&key);
                return Vec::new();
            }
            charges.insert(key.clone(), (Charges::new(now), version));
            return vec![key];
        };
        let (known, until) = charges.entry(key.clone()).or_insert_with(|| (Charges::new(now), None));
        known.observe(old, quota, now);
        *until = version;
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        let known = quota.status.as_ref().and_then(|status| status.hard.as_ref());
        if old.spec != quota.spec || hard != known { vec![key] } else { Vec::new() }
    }

    /// The namespace's quotas, when an object went or `frees` says that it uses less.
    fn freed_if<K: Watchable>(&self, change: &Change<K>, frees: fn(&K, &K) -> bool) -> Vec<ObjectKey> {
        let may = change.is_deleted() || change.old().is_some_and(|old| frees(old, change.object()));
        if !may {
            return Vec::new();
        }
        let quotas = self.quotas.store().indexed("namespace", &change.key().namespace);
        quotas.iter().map(|quota| ObjectKey::of(&**quota)).collect()
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(quota) = self.quotas.store().get(key) else { return Ok(Outcome::Done) };
        let as_json = serde_json::to_value(&*quota)?;
        let now = crate::clock::now();
        let mut counted = std::collections::BTreeMap::new();
        for (kind, keys) in kinds(&quota) {
            let Some(objects) = self.objects(&kind, &key.namespace).await? else { continue };
            counted.extend(count(&as_json, &kind, &keys, objects.iter(), now));
        }
        // The charges are asked after the count: what was charged since is not in it.
        let (pending, again) = {
            let mut charges = self.charges.lock();
            let now = self.started.elapsed();
            match charges.get_mut(key) {
                Some((known, until)) if *until == quota.metadata.resource_version => known.pending(now),
                // The ledger is a moment behind or ahead of the copy at hand.
                Some(_) => return Ok(Outcome::RequeueAfter(MOMENT)),
                None => return Ok(Outcome::Done),
            }
        };
        let resync = self.context.settings.quota_resync.max(SETTLE);
        let action = plan(&quota, &counted, &pending);
        if let Some(Action::Patch { target, subresource, patch }) = &action {
            // The controller's role lets it write the status, not read quotas: what was seen is sent, changed.
            let mut object = as_json;
            json_patch::merge(&mut object, patch);
            self.executor.replace(target, subresource, &object).await?;
        }
        // What a limit that is new did not count yet is counted when requests under way have come to their end.
        Ok(Outcome::RequeueAfter(again.or(action.map(|_| SETTLE)).unwrap_or(resync)))
    }

    /// The namespace's objects of a kind, as far as they matter; `None` when there is no such kind.
    async fn objects(&self, kind: &Counted, namespace: &str) -> anyhow::Result<Option<Vec<Value>>> {
        let informers = &self.context.informers;
        if kind.group.is_empty() {
            match &*kind.plural {
                "pods" => return listed(&informers.pods, namespace).map(Some),
                "services" => return listed(&informers.services, namespace).map(Some),
                "persistentvolumeclaims" => return listed(&informers.claims, namespace).map(Some),
                _ => {}
            }
        }
        let known = self.numbers.lock().get(kind).cloned();
        let informer = match known {
            Some(informer) => informer,
            None => match self.watch_number(kind).await? {
                Some(informer) => informer,
                None => return Ok(None),
            },
        };
        tokio::time::timeout(SYNC_MAX, informer.wait_synced())
            .await
            .with_context(|| format!("{}.{} cannot be listed yet", kind.plural, kind.group))?;
        Ok(Some(vec![Value::Null; informer.store().indexed_count("namespace", namespace)]))
    }

    /// Begins to watch how many objects of a kind there are.
    async fn watch_number(&self, kind: &Counted) -> anyhow::Result<Option<MetadataInformer>> {
        let catalogue = self.context.discovery.catalogue(DISCOVERY_AGE_MAX).await?;
        let found = catalogue.resources.iter().find(|found| {
            let id = &found.id;
            id.group == kind.group
                && id.plural == kind.plural
                && id.namespaced
                && found.can(&["create", "list", "watch", "delete"])
        });
        let Some(found) = found else { return Ok(None) };
        let id = &found.id;
        let resource = ApiResource {
            group: id.group.to_string(),
            version: id.version.to_string(),
            api_version: id.api_version(),
            kind: id.kind.to_string(),
            plural: id.plural.to_string(),
        };
        let mut numbers = self.numbers.lock();
        if let Some(informer) = numbers.get(kind) {
            return Ok(Some(informer.clone()));
        }
        let api = Api::all_with(self.context.client.clone(), &resource);
        let informer = Informer::builder(api)
            .index(index_by_namespace())
            .trim(|object: &mut PartialObjectMeta<DynamicObject>| {
                object.metadata.labels = None;
                object.metadata.annotations = None;
            })
            .start(&self.context.shutdown);
        let (shared, queue) = (self.clone(), self.queue.clone());
        informer.on_change(move |change| {
            for key in shared.freed_if(change, |_, _| false) {
                queue.add(key);
            }
        });
        numbers.insert(kind.clone(), informer.clone());
        Ok(Some(informer))
    }
}

fn listed<K>(informer: &Informer<K>, namespace: &str) -> anyhow::Result<Vec<Value>>
where
    K: Watchable + Resource + Serialize,
{
    let objects = informer.store().indexed("namespace", namespace);
    Ok(objects.iter().map(|object| serde_json::to_value(&**object)).collect::<Result<_, _>>()?)
}
