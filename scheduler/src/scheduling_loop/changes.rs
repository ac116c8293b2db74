//! What the watches tell the loop. Owns what each change means for the snapshot, the queue and the nominations.

use std::sync::Arc;

use coracle_client::informer::{Change, Informer, Subscription};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1alpha1::Workload;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::profile::scheduler_name;
use scheduler_core::queue_events::{ClusterEvent, node_events};

use super::SchedulingLoop;
use crate::informers::Informers;

/// Changes in a row before decisions are made again.
const CHANGES_MAX: usize = 512;

/// A change of anything that is watched.
pub(super) enum Seen {
    Node(Change<Node>),
    Service(Change<Service>),
    ReplicaSet(Change<ReplicaSet>),
    Namespace(Change<Namespace>),
    Budget(Change<PodDisruptionBudget>),
    Claim(Change<PersistentVolumeClaim>),
    Volume(Change<PersistentVolume>),
    Class(Change<StorageClass>),
    Drivers(Change<CSINode>),
    CsiDriver(Change<CSIDriver>),
    Capacity(Change<CSIStorageCapacity>),
    Workload(Change<Workload>),
    Pod(Change<Pod>),
}

pub(super) struct Subscriptions {
    nodes: Subscription<Node>,
    services: Subscription<Service>,
    replica_sets: Subscription<ReplicaSet>,
    namespaces: Subscription<Namespace>,
    budgets: Subscription<PodDisruptionBudget>,
    claims: Subscription<PersistentVolumeClaim>,
    volumes: Subscription<PersistentVolume>,
    classes: Subscription<StorageClass>,
    drivers: Subscription<CSINode>,
    csi_drivers: Subscription<CSIDriver>,
    capacities: Subscription<CSIStorageCapacity>,
    workloads: Option<Subscription<Workload>>,
    pods: Subscription<Pod>,
}

impl Subscriptions {
    pub(super) fn start(informers: &Informers) -> Self {
        Self {
            nodes: informers.nodes.subscribe(),
            services: informers.services.subscribe(),
            replica_sets: informers.replica_sets.subscribe(),
            namespaces: informers.namespaces.subscribe(),
            budgets: informers.budgets.subscribe(),
            claims: informers.claims.subscribe(),
            volumes: informers.volumes.subscribe(),
            classes: informers.classes.subscribe(),
            drivers: informers.drivers.subscribe(),
            csi_drivers: informers.csi_drivers.subscribe(),
            capacities: informers.capacities.subscribe(),
            workloads: informers.workloads.as_ref().map(Informer::subscribe),
            pods: informers.pods.subscribe(),
        }
    }

    /// The next change of anything.
    pub(super) async fn next(&mut self) -> Seen {
        tokio::select! {
            change = self.nodes.next() => Seen::Node(change),
            change = self.services.next() => Seen::Service(change),
            change = self.replica_sets.next() => Seen::ReplicaSet(change),
            change = self.namespaces.next() => Seen::Namespace(change),
            change = self.budgets.next() => Seen::Budget(change),
            change = self.claims.next() => Seen::Claim(change),
            change = self.volumes.next() => Seen::Volume(change),
            change = self.classes.next() => Seen::Class(change),
            change = self.drivers.next() => Seen::Drivers(change),
            change = self.csi_drivers.next() => Seen::CsiDriver(change),
            change = self.capacities.next() => Seen::Capacity(change),
            change = next_workload(&mut self.workloads) => Seen::Workload(change),
            change = self.pods.next() => Seen::Pod(change),
        }
    }

    /// A change that is there already; pods come last, since what is decided for them depends on all the rest.
    fn try_next(&mut self) -> Option<Seen> {
        let node = self.nodes.try_next().map(Seen::Node);
        node.or_else(|| self.services.try_next().map(Seen::Service))
            .or_else(|| self.replica_sets.try_next().map(Seen::ReplicaSet))
            .or_else(|| self.namespaces.try_next().map(Seen::Namespace))
            .or_else(|| self.budgets.try_next().map(Seen::Budget))
            .or_else(|| self.claims.try_next().map(Seen::Claim))
            .or_else(|| self.volumes.try_next().map(Seen::Volume))
            .or_else(|| self.classes.try_next().map(Seen::Class))
            .or_else(|| self.drivers.try_next().map(Seen::Drivers))
            .or_else(|| self.csi_drivers.try_next().map(Seen::CsiDriver))
            .or_else(|| self.capacities.try_next().map(Seen::Capacity))
            .or_else(|| self.workloads.as_mut()?.try_next().map(Seen::Workload))
            .or_else(|| self.pods.try_next().map(Seen::Pod))
    }
}

/// The next change of a workload; none ever comes where they are not watched.
async fn next_workload(workloads: &mut Option<Subscription<Workload>>) -> Change<Workload> {
    match workloads {
        Some(workloads) => workloads.next().await,
        None => std::future::pending().await,
    }
}

impl SchedulingLoop {
    /// Takes in what is known by now. Bounded, so that a flood of changes does not keep decisions from being made.
    pub(super) fn take_changes(&mut self, changes: &mut Subscriptions) {
        for _ in 0..CHANGES_MAX {
            let Some(seen) = changes.try_next() else { return };
            self.take(&seen);
        }
    }

    /// Takes in one change.
    pub(super) fn take(&mut self, seen: &Seen) {
        match seen {
            Seen::Node(change) => self.node_changed(change),
            Seen::Service(change) => self.service_changed(change),
            Seen::ReplicaSet(change) => self.replica_set_changed(change),
            Seen::Namespace(change) => self.namespace_changed(change),
            Seen::Budget(Change::Applied { new, .. }) => self.snapshot.budgets.set(new),
            Seen::Budget(Change::Deleted(budget)) => self.snapshot.budgets.remove(budget),
            Seen::Claim(Change::Applied { new, .. }) => self.snapshot.volumes.set_claim(Arc::clone(new)),
            Seen::Claim(Change::Deleted(claim)) => self.snapshot.volumes.remove_claim(claim),
            Seen::Volume(Change::Applied { new, .. }) => self.snapshot.volumes.set_volume(Arc::clone(new)),
            Seen::Volume(Change::Deleted(volume)) => self.snapshot.volumes.remove_volume(volume),
            Seen::Class(Change::Applied { new, .. }) => self.snapshot.volumes.set_class(Arc::clone(new)),
            Seen::Class(Change::Deleted(class)) => self.snapshot.volumes.remove_class(class),
            Seen::Drivers(Change::Applied { new, .. }) => self.snapshot.volumes.set_drivers(Arc::clone(new)),
            Seen::Drivers(Change::Deleted(drivers)) => self.snapshot.volumes.remove_drivers(drivers),
            Seen::CsiDriver(Change::Applied { new, .. }) => self.snapshot.volumes.set_driver(new),
            Seen::CsiDriver(Change::Deleted(driver)) => self.snapshot.volumes.remove_driver(driver),
            Seen::Capacity(Change::Applied { new, .. }) => {
                self.snapshot.volumes.set_capacity(Arc::clone(new));
            }
            Seen::Capacity(Change::Deleted(capacity)) => self.snapshot.volumes.remove_capacity(capacity),
            Seen::Workload(change) => self.workload_changed(change),
            Seen::Pod(change) => self.pod_changed(change),
        }
        if matches!(
            seen,
            Seen::Claim(_)
                | Seen::Volume(_)
                | Seen::Class(_)
                | Seen::Drivers(_)
                | Seen::CsiDriver(_)
                | Seen::Capacity(_)
        ) {
            let now = self.now();
            self.queue.notify(ClusterEvent::Volumes, now);
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let now = self.now();
        match change {
            Change::Applied { old, new } => {
                let known = self.snapshot.node(new.metadata.name.as_deref().unwrap_or_default()).is_some();
                self.snapshot.set_node(Arc::clone(new));
                let events = match old {
                    Some(old) if known => node_events(old, new),
                    _ => vec![ClusterEvent::NodeAdded],
                };
                for event in events {
                    self.queue.notify(event, now);
                }
            }
            Change::Deleted(node) => {
                self.snapshot.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                self.queue.notify(ClusterEvent::NodeDeleted, now);
            }
        }
    }

    fn service_changed(&mut self, change: &Change<Service>) {
        let key = change.key();
        let spec = change.object().spec.as_ref();
        match spec.and_then(|spec| spec.selector.clone()).filter(|_| !change.is_deleted()) {
            Some(selector) => self.snapshot.selectors.set_service(&key.namespace, &key.name, selector),
            None => self.snapshot.selectors.remove_service(&key.namespace, &key.name),
        }
    }

    fn replica_set_changed(&mut self, change: &Change<ReplicaSet>) {
        let key = change.key();
        match change.object().spec.as_ref().filter(|_| !change.is_deleted()) {
            Some(spec) => self.snapshot.selectors.set_owner(
                "ReplicaSet",
                &key.namespace,
                &key.name,
                spec.selector.clone(),
            ),
            None => self.snapshot.selectors.remove_owner("ReplicaSet", &key.namespace, &key.name),
        }
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        match change {
            Change::Applied { new, .. } => {
                self.snapshot.set_namespace(name, new.metadata.labels.clone().unwrap_or_default());
            }
            Change::Deleted(_) => self.snapshot.remove_namespace(name),
        }
    }

    fn workload_changed(&mut self, change: &Change<Workload>) {
        match change {
            Change::Applied { new, .. } => {
                let now = self.now();
                self.queue.set_workload(new, now);
            }
            Change::Deleted(workload) => self.queue.gangs.remove_workload(workload),
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(old) = change.old()
            && old.metadata.uid != pod.metadata.uid
        {
            // Deleted and made again under the same name between two looks.
            self.pod_gone(old);
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if change.is_deleted() || matches!(phase, Some("Succeeded" | "Failed")) {
            return self.pod_gone(pod);
        }
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()) {
            Some(node) => self.pod_on_node(change, uid, node),
            None => self.pod_waiting(change, uid),
        }
    }

    fn pod_gone(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        self.queue.gangs.leave(pod);
        self.forget_reserved(uid);
        self.snapshot.nominations.remove(uid);
        if self.snapshot.remove_pod(uid) {
            let now = self.now();
            self.queue.notify(ClusterEvent::PodRemoved, now);
        }
    }

    fn pod_on_node(&mut self, change: &Change<Pod>, uid: &str, node: &str) {
        self.queue.remove(uid);
        self.forget_reserved(uid);
        let pod = change.object();
        let there = self.snapshot.node_of(uid).is_some_and(|there| **there == *node);
        let same = |old: &Arc<Pod>| {
            old.metadata.labels == pod.metadata.labels
                && old.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
                && old.spec == pod.spec
                && old.status.as_ref().map(|status| &status.start_time)
                    == pod.status.as_ref().map(|status| &status.start_time)
        };
        if there && change.old().is_some_and(same) {
            return;
        }
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        let now = self.now();
        self.queue.join(&info, true, now);
        self.snapshot.place(info, node);
        let had_node = |old: &Arc<Pod>| old.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let relabelled = |old: &Arc<Pod>| old.metadata.labels != pod.metadata.labels;
        if !change.old().is_some_and(|old| had_node(old) && !relabelled(old)) {
            let now = self.now();
            self.queue.notify(ClusterEvent::PodPlaced, now);
        }
    }

    fn pod_waiting(&mut self, change: &Change<Pod>, uid: &str) {
        let pod = change.object();
        if self.snapshot.node_of(uid).is_some() {
            // Assumed: its binding is on the way and this version is older.
            return;
        }
        let ours = self.deciders.contains_key(scheduler_name(pod));
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(uid);
            self.queue.gangs.leave(pod);
            self.snapshot.nominations.remove(uid);
            return;
        }
        let now = self.now();
        let pod = PodToSchedule::new(Arc::clone(pod));
        let nominated_before = |old: &Arc<Pod>| {
            old.status.as_ref().is_some_and(|status| {
                status.nominated_node_name.as_deref().is_some_and(|name| !name.is_empty())
            })
        };
        self.snapshot.nominations.refresh(&pod.info, change.old().is_some_and(nominated_before));
        self.queue.set(Arc::new(pod), now);
    }
}
