//! The watches that all controllers share, one per kind, cut down to what decisions need. Owns the informers.

use controller_manager_core::endpoints::slices::SERVICE_NAME;
use controller_manager_core::object_meta::controller;
use coracle_client::informer::Informer;
use coracle_client::store::{Index, index_by_namespace, index_by_node, index_by_owner_uid};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMap, Container, ContainerState, ContainerStateTerminated, Endpoints, Namespace, Node,
    PersistentVolume, PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ReplicationController, Service,
    ServiceAccount, Volume,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;

use crate::controllers::volume_binder::index_by_claim;

/// Index of objects that nobody controls, by namespace.
pub const ORPHANS: &str = "orphans";
/// Index `label:kubernetes.io/service-name` of slices.
pub const SLICES_OF: &str = "service";
/// Name of the ConfigMap with the cluster's root certificate.
pub const ROOT_CA_NAME: &str = "kube-root-ca.crt";

/// The watches.
#[derive(Clone)]
pub struct Informers {
    /// All pods.
    pub pods: Informer<Pod>,
    /// All ReplicaSets.
    pub replica_sets: Informer<ReplicaSet>,
    /// All ReplicationControllers.
    pub replication_controllers: Informer<ReplicationController>,
    /// All Deployments.
    pub deployments: Informer<Deployment>,
    /// All StatefulSets.
    pub stateful_sets: Informer<StatefulSet>,
    /// All DaemonSets.
    pub daemon_sets: Informer<DaemonSet>,
    /// All ControllerRevisions.
    pub revisions: Informer<ControllerRevision>,
    /// All CronJobs.
    pub cron_jobs: Informer<CronJob>,
    /// All Jobs.
    pub jobs: Informer<Job>,
    /// All Services.
    pub services: Informer<Service>,
    /// All EndpointSlices.
    pub slices: Informer<EndpointSlice>,
    /// All Endpoints.
    pub endpoints: Informer<Endpoints>,
    /// All claims of volumes.
    pub claims: Informer<PersistentVolumeClaim>,
    /// All volumes.
    pub volumes: Informer<PersistentVolume>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// All Leases.
    pub leases: Informer<Lease>,
    /// All namespaces.
    pub namespaces: Informer<Namespace>,
    /// All ServiceAccounts.
    pub service_accounts: Informer<ServiceAccount>,
    /// The root certificate's ConfigMap of each namespace.
    pub root_certificates: Informer<ConfigMap>,
    /// All CertificateSigningRequests.
    pub certificate_requests: Informer<CertificateSigningRequest>,
}

fn orphans<K: Resource>() -> Index<K> {
    Index::new(ORPHANS, |object: &K| match controller(object.meta()) {
        Some(_) => Vec::new(),
        None => object.meta().namespace.clone().into_iter().collect(),
    })
}

impl Informers {
    /// Starts all watches.
    pub fn start(client: &Client, shutdown: &CancellationToken) -> Self {
        let all = || client.clone();
        Self {
            pods: Informer::builder(Api::all(all()))
                .index(index_by_owner_uid())
                .index(index_by_namespace())
                .index(index_by_node())
                .index(orphans())
                .trim(trim_pod)
                .start(shutdown),
            replica_sets: Informer::builder(Api::all(all()))
                .index(index_by_owner_uid())
                .index(index_by_namespace())
                .index(orphans())
                .start(shutdown),
            replication_controllers: Informer::builder(Api::all(all()))
                .index(index_by_namespace())
                .start(shutdown),
            deployments: Informer::builder(Api::all(all())).index(index_by_namespace()).start(shutdown),
            stateful_sets: Informer::builder(Api::all(all())).index(index_by_namespace()).start(shutdown),
            daemon_sets: Informer::builder(Api::all(all())).index(index_by_namespace()).start(shutdown),
            revisions: Informer::builder(Api::all(all()))
                .index(index_by_owner_uid())
                .index(orphans())
                .start(shutdown),
            cron_jobs: Informer::builder(Api::all(all())).start(shutdown),
            jobs: Informer::builder(Api::all(all()))
                .index(index_by_owner_uid())
                .index(index_by_namespace())
                .start(shutdown),
            services: Informer::builder(Api::all(all())).index(index_by_namespace()).start(shutdown),
            slices: Informer::builder(Api::all(all()))
                .index(coracle_client::store::index_by_label(SLICES_OF, SERVICE_NAME))
                .start(shutdown),
            endpoints: Informer::builder(Api::all(all())).start(shutdown),
            claims: Informer::builder(Api::all(all())).index(index_by_namespace()).start(shutdown),
            volumes: Informer::builder(Api::all(all())).index(index_by_claim()).start(shutdown),
            nodes: Informer::builder(Api::all(all())).trim(trim_node).start(shutdown),
            leases: Informer::builder(Api::all(all())).start(shutdown),
            namespaces: Informer::builder(Api::all(all())).start(shutdown),
            service_accounts: Informer::builder(Api::all(all())).start(shutdown),
            root_certificates: Informer::builder(Api::all(all()))
                .fields(&format!("metadata.name={ROOT_CA_NAME}"))
                .start(shutdown),
            certificate_requests: Informer::builder(Api::all(all())).start(shutdown),
        }
    }
}

fn trim_containers(containers: &mut [Container]) {
    for container in containers {
        *container = Container {
            name: std::mem::take(&mut container.name),
            ports: container.ports.take(),
            resources: container.resources.take(),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
}

/// Whether a volume is a claim's, now or when it is made.
fn has_claim(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

/// Whether pods of other namespaces matter to the pod.
fn crosses_namespaces(affinity: &Affinity) -> bool {
    let crosses = |term: &PodAffinityTerm| term.namespaces.is_some() || term.namespace_selector.is_some();
    let near = affinity.pod_affinity.iter().flat_map(|all| {
        let preferred = all.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = all.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    let apart = affinity.pod_anti_affinity.iter().flat_map(|all| {
        let preferred = all.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = all.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    near.chain(apart).any(crosses)
}

/// Whether the pod names its node: DaemonSets find by it what waits for a node.
fn names_node(affinity: &Affinity) -> bool {
    let node = affinity.node_affinity.as_ref();
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required
        .is_some_and(|required| required.node_selector_terms.iter().any(|term| term.match_fields.is_some()))
}

fn trim_pod(pod: &mut Pod) {
    if let Some(spec) = pod.spec.take() {
        let mut kept = PodSpec {
            containers: spec.containers,
            init_containers: spec.init_containers,
            node_name: spec.node_name,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            tolerations: spec.tolerations,
            volumes: spec.volumes.map(|all| all.into_iter().filter(has_claim).collect()),
            // What quotas count, and by what they choose.
            overhead: spec.overhead,
            resources: spec.resources,
            priority_class_name: spec.priority_class_name,
            active_deadline_seconds: spec.active_deadline_seconds,
            affinity: spec.affinity.filter(|affinity| crosses_namespaces(affinity) || names_node(affinity)),
            ..PodSpec::default()
        };
        trim_containers(&mut kept.containers);
        kept.init_containers.iter_mut().for_each(|list| trim_containers(list));
        pod.spec = Some(kept);
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        let init = status.init_container_statuses.iter_mut().flatten();
        for container in init.chain(status.container_statuses.iter_mut().flatten()) {
            // How and when it ended: Jobs count and wait by it.
            let ended = container.state.take().and_then(|state| state.terminated);
            container.state = ended.map(|ended| ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: ended.exit_code,
                    finished_at: ended.finished_at,
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
            container.last_state = None;
            container.resources = None;
            container.allocated_resources = None;
            container.volume_mounts = None;
        }
    }
}

fn trim_node(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}
