//! What a controller can ask for: one vocabulary for all of them, carried out by one executor. Owns the data, never a call.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;

/// A resource of the API, as discovery names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version inside the group.
    pub version: Cow<'static, str>,
    /// Kind of one object.
    pub kind: Cow<'static, str>,
    /// Name in URLs.
    pub plural: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceId {
    const fn known(group: &'static str, kind: &'static str, plural: &'static str, namespaced: bool) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed("v1"),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The group of an `apiVersion`.
    pub fn group_of(api_version: &str) -> &str {
        api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// Pods.
pub const PODS: ResourceId = ResourceId::known("", "Pod", "pods", true);
/// Nodes.
pub const NODES: ResourceId = ResourceId::known("", "Node", "nodes", false);
/// Namespaces.
pub const NAMESPACES: ResourceId = ResourceId::known("", "Namespace", "namespaces", false);
/// Services.
pub const SERVICES: ResourceId = ResourceId::known("", "Service", "services", true);
/// Endpoints.
pub const ENDPOINTS: ResourceId = ResourceId::known("", "Endpoints", "endpoints", true);
/// ConfigMaps.
pub const CONFIG_MAPS: ResourceId = ResourceId::known("", "ConfigMap", "configmaps", true);
/// Secrets.
pub const SECRETS: ResourceId = ResourceId::known("", "Secret", "secrets", true);
/// ServiceAccounts.
pub const SERVICE_ACCOUNTS: ResourceId = ResourceId::known("", "ServiceAccount", "serviceaccounts", true);
/// ReplicaSets.
pub const REPLICA_SETS: ResourceId = ResourceId::known("apps", "ReplicaSet", "replicasets", true);
/// ReplicationControllers.
pub const REPLICATION_CONTROLLERS: ResourceId =
    ResourceId::known("", "ReplicationController", "replicationcontrollers", true);
/// Deployments.
pub const DEPLOYMENTS: ResourceId = ResourceId::known("apps", "Deployment", "deployments", true);
/// StatefulSets.
pub const STATEFUL_SETS: ResourceId = ResourceId::known("apps", "StatefulSet", "statefulsets", true);
/// DaemonSets.
pub const DAEMON_SETS: ResourceId = ResourceId::known("apps", "DaemonSet", "daemonsets", true);
/// ControllerRevisions.
pub const CONTROLLER_REVISIONS: ResourceId =
    ResourceId::known("apps", "ControllerRevision", "controllerrevisions", true);
/// CronJobs.
pub const CRON_JOBS: ResourceId = ResourceId::known("batch", "CronJob", "cronjobs", true);
/// Jobs.
pub const JOBS: ResourceId = ResourceId::known("batch", "Job", "jobs", true);
/// PodDisruptionBudgets.
pub const POD_DISRUPTION_BUDGETS: ResourceId =
    ResourceId::known("policy", "PodDisruptionBudget", "poddisruptionbudgets", true);
/// ResourceQuotas.
pub const RESOURCE_QUOTAS: ResourceId = ResourceId::known("", "ResourceQuota", "resourcequotas", true);
/// CertificateSigningRequests.
pub const CERTIFICATE_SIGNING_REQUESTS: ResourceId = ResourceId::known(
    "certificates.k8s.io",
    "CertificateSigningRequest",
    "certificatesigningrequests",
    false,
);
/// PersistentVolumes.
pub const PERSISTENT_VOLUMES: ResourceId =
    ResourceId::known("", "PersistentVolume", "persistentvolumes", false);
/// PersistentVolumeClaims.
pub const PERSISTENT_VOLUME_CLAIMS: ResourceId =
    ResourceId::known("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
/// VolumeAttachments.
pub const VOLUME_ATTACHMENTS: ResourceId =
    ResourceId::known("storage.k8s.io", "VolumeAttachment", "volumeattachments", false);
/// HorizontalPodAutoscalers.
pub const HORIZONTAL_POD_AUTOSCALERS: ResourceId = ResourceId {
    group: Cow::Borrowed("autoscaling"),
    version: Cow::Borrowed("v2"),
    kind: Cow::Borrowed("HorizontalPodAutoscaler"),
    plural: Cow::Borrowed("horizontalpodautoscalers"),
    namespaced: true,
};
/// EndpointSlices.
pub const ENDPOINT_SLICES: ResourceId =
    ResourceId::known("discovery.k8s.io", "EndpointSlice", "endpointslices", true);

/// One object of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its resource.
    pub resource: ResourceId,
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// An object by its parts.
    pub fn new(resource: &ResourceId, namespace: &str, name: &str) -> Self {
        Self { resource: resource.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// How an object's dependents go when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, its dependents after it.
    Background,
    /// The dependents go first.
    Foreground,
    /// The dependents stay.
    Orphan,
}

/// One step for the executor. Steps of one plan are carried out in order; the first that fails ends the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create an object.
    Create {
        /// Where.
        resource: ResourceId,
        /// In which namespace; empty for cluster-scoped objects.
        namespace: String,
        /// The object as JSON; `apiVersion` and `kind` are filled in by the executor.
        object: Value,
    },
    /// Change an object by a JSON merge patch. A `metadata.resourceVersion` or `metadata.uid` in it is a precondition.
    Patch {
        /// Which object.
        target: Target,
        /// Its subresource; empty for the object itself.
        subresource: &'static str,
        /// The patch.
        patch: Value,
    },
    /// Delete an object.
    Delete {
        /// Which object.
        target: Target,
        /// Only if it still has this uid.
        uid: Option<String>,
        /// Only if it still has this version.
        resource_version: Option<String>,
        /// What becomes of its dependents; the kind's default if absent.
        propagation: Option<Propagation>,
        /// Seconds to end gracefully; the object's own if absent.
        grace_seconds: Option<u32>,
    },
    /// Tell people.
    Event {
        /// What it is about.
        regarding: Box<ObjectReference>,
        /// Whether it may need attention.
        warning: bool,
        /// The reason in CamelCase.
        reason: &'static str,
        /// The text.
        message: String,
    },
}
