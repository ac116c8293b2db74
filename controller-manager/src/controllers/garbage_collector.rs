//! Runs the garbage collector: feeds the graph from watches over every kind (whole objects where other controllers watch them
//! anyway, metadata only elsewhere) and works off what it says is worth a decision.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use controller_manager_core::action::{
    DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, NODES, PODS, REPLICA_SETS, ResourceId, SERVICES,
    Target,
};
use controller_manager_core::garbage_collector::graph::{Graph, Work};
use controller_manager_core::garbage_collector::{Decision, decide, orphan};
use coracle_client::config::is_conflict;
use coracle_client::informer::{Informer, Watchable};
use coracle_client::work_queue::WorkQueue;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::discovery::Discovery;
use crate::executor::Executor;
use crate::informers::Informers;

const WORKERS: usize = 20;
/// How often new kinds are looked for.
const RESYNC: Duration = Duration::from_secs(30);
/// The same after the server could not say which kinds there are.
const RESYNC_AFTER_ERROR: Duration = Duration::from_secs(2);
/// How long the first lists may take before work begins without those that are missing.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// Absent owners remembered; more, and all are forgotten and looked up again.
const ABSENT_MAX: usize = 2000;
/// Resources whose objects nobody owns and that come and go too often to be watched for it.
const IGNORED: [&str; 1] = ["events"];

#[derive(Clone)]
struct Shared {
    graph: Arc<Mutex<Graph>>,
    absent: Arc<Mutex<HashSet<String>>>,
    queue: WorkQueue<Work>,
    executor: Executor,
    discovery: Discovery,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        graph: Arc::default(),
        absent: Arc::default(),
        queue: WorkQueue::new(Some(context.queue_metrics("garbage_collector"))),
        executor: context.executor("garbage-collector-controller"),
        discovery: context.discovery.clone(),
    };
    let mut monitors = Monitors::new(&context, shared.clone());
    let first = async {
        let next = monitors.sync_kinds().await;
        monitors.wait_synced().await;
        next
    };
    let mut next = RESYNC_AFTER_ERROR;
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        synced = tokio::time::timeout(SYNC_MAX, first) => match synced {
            Ok(after) => next = after,
            Err(_) => {
                tracing::warn!("the garbage collector starts before all kinds are listed; absent owners are looked up one by one");
            }
        }
    }
    tracing::info!(objects = shared.graph.lock().len(), "garbage collector started");
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let shared = shared.clone();
        tasks.spawn(async move {
            while let Some(work) = shared.queue.get().await {
                shared.handle(&work).await;
                shared.queue.done(&work);
            }
        });
    }
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => break,
            () = tokio::time::sleep(next) => next = monitors.sync_kinds().await,
        }
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
}

impl Shared {
    fn feed<K: Watchable>(&self, informer: &Informer<K>, resource: ResourceId) {
        let (resource, shared) = (Arc::new(resource), self.clone());
        informer.on_change(move |change| {
            let meta = change.object().meta();
            let mut graph = shared.graph.lock();
            let work = if change.is_deleted() {
                graph.forget(meta.uid.as_deref().unwrap_or_default())
            } else {
                let old = change
                    .old()
                    .and_then(|old| old.meta().uid.clone())
                    .filter(|old| Some(old) != meta.uid.as_ref());
                let mut work = old.map(|replaced| graph.forget(&replaced)).unwrap_or_default();
                work.extend(graph.observe(&resource, meta));
                work
            };
            drop(graph);
            for item in work {
                shared.queue.add(item);
            }
        });
    }

    async fn handle(&self, work: &Work) {
        let result = match work {
            Work::Decide(uid) => self.decide(uid).await,
            Work::Orphan(uid) => {
                let actions = orphan(&self.graph.lock(), uid);
                self.executor.execute_all(&actions).await
            }
        };
        match result {
            Ok(()) => self.queue.forget(work),
            Err(error) => {
                if !is_conflict(&error) {
                    tracing::warn!(
                        error = super::message(&error),
                        ?work,
                        "collecting garbage failed, trying again"
                    );
                }
                self.queue.add_rate_limited(work.clone());
            }
        }
    }

    async fn decide(&self, uid: &str) -> Result<(), kube::Error> {
        // Each round looks at the server for owners that the graph lacks; afterwards all are known.
        for _ in 0..2 {
            let decision = decide(&self.graph.lock(), uid, &self.absent.lock());
            match decision {
                Decision::Nothing => return Ok(()),
                Decision::Act(actions) => return self.executor.execute_all(&actions).await,
                Decision::Dependents(uids) => {
                    for uid in uids {
                        self.queue.add(Work::Decide(uid));
                    }
                    return Ok(());
                }
                Decision::CheckExists => return self.check_virtual(uid).await,
                Decision::CheckOwners(owners) => {
                    let namespace =
                        self.graph.lock().get(uid).map(|object| object.namespace.clone()).unwrap_or_default();
                    let mut unknown = false;
                    for owner in owners {
                        match self.owner_exists(&owner, &namespace).await? {
                            Some(true) | None => unknown = true,
                            Some(false) => self.remember_absent(&owner.uid),
                        }
                    }
                    if unknown {
                        // It exists but is not in the graph yet, or cannot be judged: its arrival comes back here.
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn remember_absent(&self, uid: &str) {
        let mut absent = self.absent.lock();
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(uid.to_owned());
    }

    /// An owner only heard of: if the server does not have it, its dependents are to be decided about.
    async fn check_virtual(&self, uid: &str) -> Result<(), kube::Error> {
        let Some(object) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        let owner = OwnerReference {
            api_version: object.resource.api_version(),
            kind: object.resource.kind.to_string(),
            name: object.name.clone(),
            uid: uid.to_owned(),
            ..Default::default()
        };
        if self.owner_exists(&owner, &object.namespace).await? == Some(false) {
            self.remember_absent(uid);
            let work = self.graph.lock().forget(uid);
            for item in work {
                self.queue.add(item);
            }
        }
        Ok(())
    }

    /// Whether the server has the owner; `None` if the kind is unknown or the reference can never hold.
    async fn owner_exists(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<bool>, kube::Error> {
        let group = ResourceId::group_of(&owner.api_version);
        let Some(resource) = self.discovery.resource_of_kind(group, &owner.kind).await? else {
            return Ok(None);
        };
        if resource.namespaced && namespace.is_empty() {
            tracing::warn!(
                kind = owner.kind,
                name = owner.name,
                "a cluster-scoped object names a namespaced owner: it is left alone"
            );
            return Ok(None);
        }
        let namespace = if resource.namespaced { namespace } else { "" };
        let live = self.executor.metadata(&Target::new(&resource, namespace, &owner.name)).await?;
        Ok(Some(live.is_some_and(|live| live.uid.as_deref() == Some(&owner.uid))))
    }
}

type MetadataInformer = Informer<PartialObjectMeta<DynamicObject>>;

/// The watches that feed the graph.
struct Monitors {
    context: Context,
    shared: Shared,
    /// Kinds whose whole objects are watched for other controllers.
    common: HashSet<ResourceId>,
    own: HashMap<ResourceId, (MetadataInformer, CancellationToken)>,
}

impl Monitors {
    fn new(context: &Context, shared: Shared) -> Self {
        let Informers {
            pods,
            replica_sets,
            deployments,
            services,
            slices,
            endpoints,
            nodes,
            leases,
            namespaces,
            ..
        } = &context.informers;
        let lease = ResourceId {
            group: "coordination.k8s.io".into(),
            version: "v1".into(),
            kind: "Lease".into(),
            plural: "leases".into(),
            namespaced: true,
        };
        shared.feed(pods, PODS);
        shared.feed(replica_sets, REPLICA_SETS);
        shared.feed(deployments, DEPLOYMENTS);
        shared.feed(services, SERVICES);
        shared.feed(slices, ENDPOINT_SLICES);
        shared.feed(endpoints, ENDPOINTS);
        shared.feed(nodes, NODES);
        shared.feed(leases, lease.clone());
        shared.feed(namespaces, NAMESPACES);
        let common =
            [PODS, REPLICA_SETS, DEPLOYMENTS, SERVICES, ENDPOINT_SLICES, ENDPOINTS, NODES, lease, NAMESPACES]
                .into();
        Self { context: context.clone(), shared, common, own: HashMap::new() }
    }

    async fn wait_synced(&self) {
        let common = &self.context.informers;
        common.pods.wait_synced().await;
        common.replica_sets.wait_synced().await;
        common.deployments.wait_synced().await;
        common.services.wait_synced().await;
        common.slices.wait_synced().await;
        common.endpoints.wait_synced().await;
        common.nodes.wait_synced().await;
        common.leases.wait_synced().await;
        common.namespaces.wait_synced().await;
        for (informer, _) in self.own.values() {
            informer.wait_synced().await;
        }
    }

    /// Watches kinds that are new, lets go of those that are gone. Returns when to do so again.
    async fn sync_kinds(&mut self) -> Duration {
        let catalogue = match self.context.discovery.catalogue(RESYNC / 2).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                tracing::warn!(
                    error = super::message(&error),
                    "cannot find out which kinds there are, trying again"
                );
                return RESYNC_AFTER_ERROR;
            }
        };
        let watchable = |id: &ResourceId| !self.common.contains(id) && !IGNORED.contains(&&*id.plural);
        let wanted: HashSet<ResourceId> = catalogue
            .resources
            .iter()
            .filter(|found| found.can(&["list", "watch", "delete"]) && watchable(&found.id))
            .map(|found| found.id.clone())
            .collect();
        for id in wanted.iter().filter(|id| !self.own.contains_key(*id)).cloned().collect::<Vec<_>>() {
            let resource = ApiResource {
                group: id.group.to_string(),
                version: id.version.to_string(),
                api_version: id.api_version(),
                kind: id.kind.to_string(),
                plural: id.plural.to_string(),
            };
            let stop = self.context.shutdown.child_token();
            let api = Api::all_with(self.context.client.clone(), &resource);
            let informer = Informer::builder(api)
                .trim(|object: &mut PartialObjectMeta<DynamicObject>| {
                    object.metadata.labels = None;
                    object.metadata.annotations = None;
                })
                .start(&stop);
            self.shared.feed(&informer, id.clone());
            self.own.insert(id, (informer, stop));
        }
        if !catalogue.errors.is_empty() {
            return RESYNC_AFTER_ERROR;
        }
        let gone: Vec<_> = self.own.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in gone {
            if let Some((_, stop)) = self.own.remove(&id) {
                stop.cancel();
            }
            let mut graph = self.shared.graph.lock();
            let work: Vec<_> = graph.uids_of(&id).iter().flat_map(|uid| graph.forget(uid)).collect();
            drop(graph);
            for item in work {
                self.shared.queue.add(item);
            }
        }
        RESYNC
    }
}
