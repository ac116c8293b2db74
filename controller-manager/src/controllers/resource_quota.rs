//! Runs the resource quota controller: counts what quotas name, from watches that start with the first quota that needs them, and writes their
//! status. Counting anew follows what frees something (admission charges what is made), changes of quotas, and once in a while the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use controller_manager_core::action::Action;
use controller_manager_core::pod_state::is_finished;
use controller_manager_core::resource_quota::charges::{Charges, SETTLE};
use controller_manager_core::resource_quota::tally::Tally;
use controller_manager_core::resource_quota::{Counted, kinds, plan, usage};
use coracle_api::kinds::pod_resources::Amounts;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer, Watchable};
use coracle_client::store::index_by_namespace;
use coracle_client::work_queue::WorkQueue;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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

/// What is known of a quota beside its copy.
struct Followed {
    charges: Charges,
    /// Its version up to which they are known.
    version: Option<String>,
    tally: Tally,
}

impl Followed {
    fn new(version: Option<String>, now: Duration) -> Self {
        Self { charges: Charges::new(now), version, tally: Tally::default() }
    }
}

#[derive(Clone)]
struct Shared {
    context: Context,
    executor: Executor,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    followed: Arc<Mutex<HashMap<ObjectKey, Followed>>>,
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
        followed: Arc::default(),
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
        let mut followed = self.followed.lock();
        let quota = change.object();
        let version = quota.metadata.resource_version.clone();
        let Some(old) = change.old().filter(|old| old.metadata.uid == quota.metadata.uid) else {
            if change.is_deleted() {
                followed.remove(&key);
                return Vec::new();
            }
            followed.insert(key.clone(), Followed::new(version, now));
            return vec![key];
        };
        let known = followed.entry(key.clone()).or_insert_with(|| Followed::new(None, now));
        known.charges.observe(old, quota, now);
        known.version = version;
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
        let mut usages = Vec::new();
        for (kind, keys) in kinds(&quota) {
            let Some(objects) = self.objects(&kind, &key.namespace).await? else { continue };
            let usage = |(uid, object): (String, Value)| (uid, usage(&as_json, &kind, &keys, &object, now));
            let usage = objects.into_iter().map(usage).collect();
            usages.push((kind, keys, usage));
        }
        // The charges are asked after the count: what was charged since is not in it.
        let (action, again) = {
            let mut followed = self.followed.lock();
            let now = self.started.elapsed();
            let Some(known) = followed.get_mut(key) else { return Ok(Outcome::Done) };
            if known.version != quota.metadata.resource_version {
                // The ledger is a moment behind or ahead of the copy at hand.
                return Ok(Outcome::RequeueAfter(MOMENT));
            }
            let mut counted = Amounts::new();
            for (kind, keys, usage) in usages {
                counted.extend(known.tally.look(&kind, &keys, usage));
            }
            let (pending, again) = known.charges.pending(now);
            let action = plan(&quota, &counted, known.tally.freed(), &pending);
            if action.is_none() {
                known.tally.settle();
            }
            (action, again)
        };
        let resync = self.context.settings.quota_resync.max(SETTLE);
        let Some(Action::Patch { target, subresource, patch }) = &action else {
            return Ok(Outcome::RequeueAfter(again.unwrap_or(resync)));
        };
        // The controller's role lets it write the status, not read quotas: what was seen is sent, changed.
        let mut object = as_json;
        json_patch::merge(&mut object, patch);
        let result = self.executor.replace(target, subresource, &object).await.map(|_| ());
        // A write that failed some other way may have had its effect: nothing may be subtracted twice.
        if !result.as_ref().is_err_and(is_conflict)
            && let Some(known) = self.followed.lock().get_mut(key)
        {
            known.tally.settle();
        }
        result?;
        // What a limit that is new did not count yet is counted when requests under way have come to their end.
        Ok(Outcome::RequeueAfter(again.unwrap_or(SETTLE)))
    }

    /// The namespace's objects of a kind by uid, as far as they matter; `None` when there is no such kind.
    async fn objects(&self, kind: &Counted, namespace: &str) -> anyhow::Result<Option<Vec<(String, Value)>>> {
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
        let objects = informer.store().indexed("namespace", namespace);
        Ok(Some(objects.iter().map(|object| (uid(&object.metadata), Value::Null)).collect()))
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

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn listed<K>(informer: &Informer<K>, namespace: &str) -> anyhow::Result<Vec<(String, Value)>>
where
    K: Watchable + Resource + Serialize,
{
    let objects = informer.store().indexed("namespace", namespace);
    let listed = |object: &Arc<K>| anyhow::Ok((uid(object.meta()), serde_json::to_value(&**object)?));
    objects.iter().map(listed).collect()
}
