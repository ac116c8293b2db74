//! All pods of this node: starts workers, tells them what changes, finds what has no pod any more.
//!
//! Never here: anything about a single pod's life; see [`super::worker`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_client::informer::{Change, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kubelet_core::pod_status::Waiting;
use kubelet_core::{pod_view, resize, static_pod, sysctl};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::log_rotation;
use super::worker::WorkerHandle;
use crate::context::Context;
use crate::runtime::{
    ANNOTATION_GRACE_PERIOD, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID, RuntimeError,
};

/// Between looks at the runtime when it does not tell by itself what happens.
const RELIST: Duration = Duration::from_secs(1);
/// The same when it does.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(20);
/// Between looks at the manifests of static pods.
const MANIFESTS: Duration = Duration::from_secs(1);
/// Between searches for leftovers.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// The workers of this node.
pub struct Manager {
    context: Arc<Context>,
    pods: Informer<Pod>,
    workers: Arc<Mutex<HashMap<String, WorkerHandle>>>,
    relist: Notify,
    /// Static pods that wait for their predecessor of the same name to end.
    queued: Mutex<Vec<Arc<Pod>>>,
    /// Static pods that are ending, by UID.
    ending: Mutex<HashMap<String, Arc<Pod>>>,
}

type Fingerprint = BTreeMap<String, Vec<(String, i32)>>;

impl Manager {
    /// A manager over the pods of this node. `wakes` receives the waker for what pods depend on.
    pub fn new(context: Arc<Context>, pods: Informer<Pod>) -> Arc<Self> {
        Arc::new(Self {
            context,
            pods,
            workers: Arc::default(),
            relist: Notify::new(),
            queued: Mutex::default(),
            ending: Mutex::default(),
        })
    }

    /// Tells a pod's worker that something may have happened.
    fn wake(&self, pod_uid: &str) {
        if let Some(worker) = self.workers.lock().get(pod_uid) {
            worker.wake();
        }
    }

    /// Tells a pod's worker that a ConfigMap or Secret of the pod has changed.
    pub fn content_changed(&self, pod_uid: &str) {
        if let Some(worker) = self.workers.lock().get(pod_uid) {
            worker.content_changed();
        }
    }

    /// Has all workers look again: the node's network has become ready.
    pub fn network_ready(&self) {
        self.workers.lock().values().for_each(WorkerHandle::content_changed);
    }

    /// The pods of this node as the API server has them.
    pub fn pods(&self) -> &Informer<Pod> {
        &self.pods
    }

    /// All pods of this node: a static pod stands for its mirror, with the mirror's status.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        let of_api = self.pods.store().list().into_iter().filter(|pod| !static_pod::is_mirror(pod));
        let of_files = self.context.static_pods.list().into_iter().map(|pod| {
            let mirror = self.context.static_pods.mirror(pod_view::uid(&pod));
            let status = mirror.and_then(|mirror| mirror.status.clone());
            Arc::new(Pod { status, ..(*pod).clone() })
        });
        of_api.chain(of_files).collect()
    }

    /// A pod of this node by name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let of_file = self.context.static_pods.find(namespace, name);
        of_file.or_else(|| self.pods.store().get_named(namespace, name))
    }

    /// Runs until shutdown. Containers are left as they are.
    pub async fn run(self: &Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.pods.wait_synced() => {}
        }
        let weak = Arc::downgrade(self);
        self.pods.on_change(move |change| {
            if let Some(manager) = Weak::upgrade(&weak) {
                manager.changed(change);
            }
        });
        // Before anything is taken for a leftover.
        self.look_at_manifests();
        let manifests = self.manifests_forever();
        let relist = self.relist_forever();
        let housekeeping = self.housekeeping_forever();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = relist => {}
            () = manifests => {}
            () = housekeeping => {}
        }
        self.workers.lock().clear();
    }

    async fn manifests_forever(&self) {
        loop {
            self.look_at_manifests();
            let known = self.pods.store().list();
            for uid in self.context.static_pods.mirror_all(&self.context, &known).await {
                self.wake(&uid);
            }
            tokio::time::sleep(MANIFESTS).await;
        }
    }

    /// Ends static pods that are no longer described and starts new ones. A changed pod starts when the old one has ended.
    fn look_at_manifests(&self) {
        let changes = self.context.static_pods.look();
        let mut workers = self.workers.lock();
        let mut ending = self.ending.lock();
        for pod in changes.gone {
            if let Some(worker) = workers.get(pod_view::uid(&pod)) {
                worker.vanished();
                ending.insert(pod_view::uid(&pod).to_owned(), pod);
            }
        }
        ending.retain(|uid, _| workers.contains_key(uid));
        let mut queued = self.queued.lock();
        queued.extend(changes.new);
        queued.retain(|pod| {
            let uid = pod_view::uid(pod);
            if self.context.static_pods.get(uid).is_none() {
                return false;
            }
            let same_name = |other: &Arc<Pod>| {
                pod_view::name(other) == pod_view::name(pod)
                    && pod_view::namespace(other) == pod_view::namespace(pod)
            };
            if workers.contains_key(uid) || ending.values().any(same_name) {
                return true;
            }
            let refused = self.refusal(pod);
            workers.insert(uid.to_owned(), self.start(Arc::clone(pod), refused));
            false
        });
    }

    fn changed(&self, change: &Change<Pod>) {
        let pod = Arc::clone(change.object());
        let uid = pod_view::uid(&pod).to_owned();
        if static_pod::is_mirror(&pod) {
            match change.is_deleted() {
                true => self.context.statuses.forget(&uid),
                false => self.context.statuses.reconcile(&pod),
            }
            return;
        }
        if change.is_deleted() {
            self.context.statuses.forget(&uid);
            if let Some(worker) = self.workers.lock().get(&uid) {
                worker.vanished();
            }
            return;
        }
        // The same name with another UID: the old pod is gone.
        if let Some(old) = change.old()
            && pod_view::uid(old) != uid
            && let Some(worker) = self.workers.lock().get(pod_view::uid(old))
        {
            self.context.statuses.forget(pod_view::uid(old));
            worker.vanished();
        }
        self.context.statuses.reconcile(&pod);
        let mut workers = self.workers.lock();
        match workers.get(&uid) {
            Some(worker) => worker.update(pod),
            None => {
                let refused = self.refusal(&pod);
                workers.insert(uid, self.start(pod, refused));
            }
        }
    }

    /// Why the node does not take a new pod. Pods that it has taken before, as after a restart, are not judged again.
    fn refusal(&self, pod: &Arc<Pod>) -> Option<Waiting> {
        let context = &self.context;
        if pod_view::is_terminal(pod) {
            return None;
        }
        let taken = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if taken
            || pod.metadata.deletion_timestamp.is_some()
            || context.static_pods.get(pod_view::uid(pod)).is_some()
        {
            context.allocated.keep(resize::with_allocation(pod, &resize::reported(pod)));
            return None;
        }
        let node = context.nodes.store().list().pop();
        // Without a Node nothing is known of its labels: the scheduler has looked at them.
        let labels = node.and_then(|node| node.metadata.labels.clone());
        let labels = labels.unwrap_or_else(|| pod_view::spec(pod).node_selector.clone().unwrap_or_default());
        let settings = &context.settings;
        sysctl::admit(pod, &settings.allowed_unsafe_sysctls)
            .and_then(|()| context.allocated.admit(pod, settings.allocatable, &labels, &settings.node_name))
            .err()
    }

    fn start(&self, pod: Arc<Pod>, refused: Option<Waiting>) -> WorkerHandle {
        let workers = Arc::downgrade(&self.workers);
        WorkerHandle::start(Arc::clone(&self.context), pod, refused, move |uid| {
            if let Some(workers) = workers.upgrade() {
                workers.lock().remove(uid);
            }
        })
    }

    async fn relist_forever(&self) {
        let mut before = Fingerprint::new();
        let mut events = None;
        let mut told = false;
        loop {
            if events.is_none() && !told {
                match self.context.runtime.events().await {
                    Ok(stream) => {
                        told = stream.is_none();
                        events = stream;
                    }
                    Err(error) => tracing::debug!(%error, "the runtime's events cannot be read yet"),
                }
            }
            match self.relist(&before).await {
                Ok(now) => before = now,
                Err(error) => tracing::debug!(%error, "cannot list the runtime's pods"),
            }
            let pause = if events.is_some() { RELIST_WITH_EVENTS } else { RELIST };
            let received = async {
                match &mut events {
                    Some(stream) => stream.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.relist.notified() => {}
                uid = received => match uid {
                    Some(uid) => self.wake(&uid),
                    // The runtime has gone away: ask again.
                    None => events = None,
                },
            }
        }
    }

    /// Wakes the workers of pods whose sandboxes or containers have changed.
    async fn relist(&self, before: &Fingerprint) -> Result<Fingerprint, RuntimeError> {
        let runtime = &self.context.runtime;
        let (sandboxes, containers) =
            tokio::try_join!(runtime.list_sandboxes(None), runtime.list_containers(None))?;
        let mut now = Fingerprint::new();
        let labelled = sandboxes
            .into_iter()
            .map(|sandbox| (sandbox.labels, sandbox.id, sandbox.state))
            .chain(containers.into_iter().map(|container| (container.labels, container.id, container.state)));
        for (labels, id, state) in labelled {
            if let Some(uid) = labels.get(LABEL_POD_UID) {
                now.entry(uid.clone()).or_default().push((id, state));
            }
        }
        now.values_mut().for_each(|list| list.sort());
        let uids: HashSet<&String> = now.keys().chain(before.keys()).collect();
        for uid in uids {
            if now.get(uid) != before.get(uid) {
                self.wake(uid);
            }
        }
        Ok(now)
    }

    async fn housekeeping_forever(&self) {
        loop {
            if let Err(error) = self.clean_up().await {
                tracing::debug!(%error, "cannot look for leftovers");
            }
            if !self.context.runtime.is_hollow() {
                log_rotation::rotate(&self.context, &self.list()).await;
            }
            tokio::time::sleep(HOUSEKEEPING).await;
        }
    }

    /// Ends sandboxes, and removes directories and cgroups, of pods that no longer exist.
    async fn clean_up(&self) -> Result<(), RuntimeError> {
        let sandboxes = self.context.runtime.list_sandboxes(None).await?;
        let known: HashSet<String> = self.list().iter().map(|pod| pod_view::uid(pod).to_owned()).collect();
        for sandbox in sandboxes {
            let label = |name: &str| sandbox.labels.get(name).cloned().unwrap_or_default();
            let uid = label(LABEL_POD_UID);
            if uid.is_empty() || known.contains(&uid) || self.workers.lock().contains_key(&uid) {
                continue;
            }
            tracing::info!(uid, name = label(LABEL_POD_NAME), "ending a pod that no longer exists");
            let grace = sandbox.annotations.get(ANNOTATION_GRACE_PERIOD).and_then(|text| text.parse().ok());
            let pod = Pod {
                metadata: ObjectMeta {
                    name: Some(label(LABEL_POD_NAME)),
                    namespace: Some(label(LABEL_POD_NAMESPACE)),
                    uid: Some(uid.clone()),
                    deletion_timestamp: Some(Time(Timestamp::now())),
                    deletion_grace_period_seconds: Some(grace.unwrap_or(30)),
                    ..ObjectMeta::default()
                },
                ..Pod::default()
            };
            let worker = self.start(Arc::new(pod), None);
            worker.vanished();
            self.workers.lock().insert(uid, worker);
        }
        let lost = |uid: &String| !known.contains(uid) && !self.workers.lock().contains_key(uid);
        for uid in self.context.volumes.pod_uids().into_iter().filter(lost) {
            if let Err(error) = self.context.volumes.tear_down(&uid) {
                tracing::warn!(uid, %error, "cannot remove the directory of a pod that no longer exists");
            }
        }
        if let Some(cgroups) = &self.context.cgroups {
            for uid in cgroups.pod_uids().into_iter().filter(lost) {
                if let Err(error) = cgroups.remove(&uid) {
                    tracing::debug!(uid, %error, "cannot remove the cgroup of a pod that no longer exists yet");
                }
            }
        }
        Ok(())
    }
}
