//! What the scheduler watches, cut down to what decisions need. Owns the informers.

use coracle_client::informer::Informer;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{
    Container, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplateSpec, Service,
    ServiceSpec,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1alpha1::Workload;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

/// The watches.
#[derive(Clone)]
pub struct Informers {
    /// All pods that have not ended.
    pub pods: Informer<Pod>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// All Services, for their selectors.
    pub services: Informer<Service>,
    /// All ReplicaSets, for their selectors.
    pub replica_sets: Informer<ReplicaSet>,
    /// All Namespaces, for their labels.
    pub namespaces: Informer<Namespace>,
    /// All PodDisruptionBudgets, for choosing victims.
    pub budgets: Informer<PodDisruptionBudget>,
    /// All PersistentVolumeClaims.
    pub claims: Informer<PersistentVolumeClaim>,
    /// All PersistentVolumes.
    pub volumes: Informer<PersistentVolume>,
    /// All StorageClasses.
    pub classes: Informer<StorageClass>,
    /// All CSINodes, for how many volumes nodes take.
    pub drivers: Informer<CSINode>,
    /// All CSIDrivers, for whether they say where they have room.
    pub csi_drivers: Informer<CSIDriver>,
    /// All CSIStorageCapacities, for where that is.
    pub capacities: Informer<CSIStorageCapacity>,
    /// All Workloads, if they are served.
    pub workloads: Option<Informer<Workload>>,
}

impl Informers {
    /// Starts all watches, that of Workloads if they are asked for.
    pub fn start(client: &Client, with_workloads: bool, shutdown: &CancellationToken) -> Self {
        Self {
            pods: Informer::builder(Api::all(client.clone()))
                .fields("status.phase!=Succeeded,status.phase!=Failed")
                .trim(trim_pod)
                .start(shutdown),
            nodes: Informer::builder(Api::all(client.clone())).start(shutdown),
            services: Informer::builder(Api::all(client.clone())).trim(trim_service).start(shutdown),
            replica_sets: Informer::builder(Api::all(client.clone())).trim(trim_replica_set).start(shutdown),
            namespaces: Informer::builder(Api::all(client.clone())).start(shutdown),
            budgets: Informer::builder(Api::all(client.clone())).start(shutdown),
            claims: Informer::builder(Api::all(client.clone())).start(shutdown),
            volumes: Informer::builder(Api::all(client.clone())).start(shutdown),
            classes: Informer::builder(Api::all(client.clone())).start(shutdown),
            drivers: Informer::builder(Api::all(client.clone())).start(shutdown),
            csi_drivers: Informer::builder(Api::all(client.clone())).start(shutdown),
            capacities: Informer::builder(Api::all(client.clone())).start(shutdown),
            workloads: with_workloads.then(|| Informer::builder(Api::all(client.clone())).start(shutdown)),
        }
    }

    /// A resource whose first list is not complete yet.
    pub fn missing(&self) -> Option<&'static str> {
        [
            ("pods", self.pods.is_synced()),
            ("nodes", self.nodes.is_synced()),
            ("services", self.services.is_synced()),
            ("replicasets", self.replica_sets.is_synced()),
            ("namespaces", self.namespaces.is_synced()),
            ("poddisruptionbudgets", self.budgets.is_synced()),
            ("persistentvolumeclaims", self.claims.is_synced()),
            ("persistentvolumes", self.volumes.is_synced()),
            ("storageclasses", self.classes.is_synced()),
            ("csinodes", self.drivers.is_synced()),
            ("csidrivers", self.csi_drivers.is_synced()),
            ("csistoragecapacities", self.capacities.is_synced()),
            ("workloads", self.workloads.as_ref().is_none_or(Informer::is_synced)),
        ]
        .into_iter()
        .find_map(|(kind, synced)| (!synced).then_some(kind))
    }

    /// Waits for all first lists.
    pub async fn wait_synced(&self) {
        self.pods.wait_synced().await;
        self.nodes.wait_synced().await;
        self.services.wait_synced().await;
        self.replica_sets.wait_synced().await;
        self.namespaces.wait_synced().await;
        self.budgets.wait_synced().await;
        self.claims.wait_synced().await;
        self.volumes.wait_synced().await;
        self.classes.wait_synced().await;
        self.drivers.wait_synced().await;
        self.csi_drivers.wait_synced().await;
        self.capacities.wait_synced().await;
        if let Some(workloads) = &self.workloads {
            workloads.wait_synced().await;
        }
    }
}

fn trim_container(container: &mut Container) {
    *container = Container {
        name: std::mem::take(&mut container.name),
        image: container.image.take(),
        ports: container.ports.take(),
        resources: container.resources.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
}

fn trim_pod(pod: &mut Pod) {
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        spec.containers.iter_mut().for_each(trim_container);
        spec.init_containers.iter_mut().flatten().for_each(trim_container);
        spec.ephemeral_containers = None;
    }
    if let Some(status) = &mut pod.status {
        let mut conditions = status.conditions.take();
        let kept = ["PodScheduled", "DisruptionTarget"];
        conditions
            .iter_mut()
            .for_each(|list| list.retain(|condition| kept.contains(&condition.type_.as_str())));
        *status = k8s_openapi::api::core::v1::PodStatus {
            phase: status.phase.take(),
            conditions,
            start_time: status.start_time.take(),
            nominated_node_name: status.nominated_node_name.take(),
            ..Default::default()
        };
    }
}

fn trim_service(service: &mut Service) {
    service.metadata.annotations = None;
    service.status = None;
    if let Some(spec) = &mut service.spec {
        *spec = ServiceSpec { selector: spec.selector.take(), ..ServiceSpec::default() };
    }
}

fn trim_replica_set(set: &mut ReplicaSet) {
    set.metadata.annotations = None;
    set.status = None;
    if let Some(spec) = &mut set.spec {
        spec.template = Some(PodTemplateSpec::default());
    }
}
