//! How lists, maps and types of the API merge: facts that the published types do not carry.
//!
//! Source: the `x-kubernetes-*` extensions of the API's OpenAPI documents. A list that is not here is atomic and is
//! replaced by strategic merge patches; a map or type that is not here merges field by field.

use super::{ListType, PatchStrategy};

/// What is known about one field of one type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldFact {
    /// The type, without `io.k8s.`.
    type_name: &'static str,
    field: &'static str,
    /// For lists: what identifies an item.
    pub(crate) list_type: ListType,
    /// For maps: whether it is one value.
    pub(crate) map_atomic: bool,
    /// How strategic merge patches treat it.
    pub(crate) patch: PatchStrategy,
}

const NO_PATCH: PatchStrategy = PatchStrategy { merge: false, retain_keys: false, merge_key: "" };

/// A list identified by keys, the first of which is the patch merge key.
const fn keyed(type_name: &'static str, field: &'static str, keys: &'static [&'static str]) -> FieldFact {
    FieldFact {
        type_name,
        field,
        list_type: ListType::Map(keys),
        map_atomic: false,
        patch: PatchStrategy { merge: true, retain_keys: false, merge_key: keys[0] },
    }
}

/// As [`keyed`], with `retainKeys`.
const fn keyed_retain(
    type_name: &'static str,
    field: &'static str,
    keys: &'static [&'static str],
) -> FieldFact {
    let fact = keyed(type_name, field, keys);
    FieldFact { patch: PatchStrategy { retain_keys: true, ..fact.patch }, ..fact }
}

/// A list identified by keys that strategic merge patches replace.
const fn keyed_replace(
    type_name: &'static str,
    field: &'static str,
    keys: &'static [&'static str],
) -> FieldFact {
    FieldFact { patch: NO_PATCH, ..keyed(type_name, field, keys) }
}

/// A set of scalars.
const fn set(type_name: &'static str, field: &'static str, merge: bool) -> FieldFact {
    FieldFact {
        type_name,
        field,
        list_type: ListType::Set,
        map_atomic: false,
        patch: PatchStrategy { merge, ..NO_PATCH },
    }
}

/// A map that is one value.
const fn atomic_map(type_name: &'static str, field: &'static str) -> FieldFact {
    FieldFact { type_name, field, list_type: ListType::Atomic, map_atomic: true, patch: NO_PATCH }
}

const NAME: &[&str] = &["name"];
const TYPE: &[&str] = &["type"];

static FIELD_FACTS: &[FieldFact] = &[
    set("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", true),
    keyed("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", &["uid"]),
    keyed("api.admissionregistration.v1.MutatingWebhook", "matchConditions", NAME),
    keyed("api.admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", NAME),
    set("api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", "validationActions", false),
    keyed("api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "matchConditions", NAME),
    keyed("api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", NAME),
    keyed_replace("api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", TYPE),
    keyed("api.admissionregistration.v1.ValidatingWebhook", "matchConditions", NAME),
    keyed("api.admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", NAME),
    keyed("api.admissionregistration.v1beta1.MutatingAdmissionPolicySpec", "matchConditions", NAME),
    keyed("api.apps.v1.DaemonSetStatus", "conditions", TYPE),
    FieldFact {
        patch: PatchStrategy { retain_keys: true, ..NO_PATCH },
        ..atomic_map("api.apps.v1.DeploymentSpec", "strategy")
    },
    keyed("api.apps.v1.DeploymentStatus", "conditions", TYPE),
    keyed("api.apps.v1.ReplicaSetStatus", "conditions", TYPE),
    keyed("api.apps.v1.StatefulSetStatus", "conditions", TYPE),
    keyed("api.autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", TYPE),
    FieldFact { list_type: ListType::Atomic, ..keyed("api.batch.v1.JobStatus", "conditions", TYPE) },
    set("api.batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", false),
    set("api.batch.v1.UncountedTerminatedPods", "failed", false),
    set("api.batch.v1.UncountedTerminatedPods", "succeeded", false),
    keyed_replace("api.certificates.v1.CertificateSigningRequestStatus", "conditions", TYPE),
    keyed("api.core.v1.Container", "env", NAME),
    keyed("api.core.v1.Container", "ports", &["containerPort", "protocol"]),
    keyed("api.core.v1.Container", "volumeDevices", &["devicePath"]),
    keyed("api.core.v1.Container", "volumeMounts", &["mountPath"]),
    keyed("api.core.v1.ContainerStatus", "allocatedResourcesStatus", NAME),
    keyed("api.core.v1.ContainerStatus", "volumeMounts", &["mountPath"]),
    set("api.discovery.v1.Endpoint", "addresses", false),
    keyed("api.core.v1.EphemeralContainer", "env", NAME),
    keyed("api.core.v1.EphemeralContainer", "ports", &["containerPort", "protocol"]),
    keyed("api.core.v1.EphemeralContainer", "volumeDevices", &["devicePath"]),
    keyed("api.core.v1.EphemeralContainer", "volumeMounts", &["mountPath"]),
    keyed("api.core.v1.NamespaceStatus", "conditions", TYPE),
    set("api.core.v1.NodeSpec", "podCIDRs", true),
    keyed("api.core.v1.NodeStatus", "addresses", TYPE),
    keyed("api.core.v1.NodeStatus", "conditions", TYPE),
    keyed("api.core.v1.PersistentVolumeClaimStatus", "conditions", TYPE),
    keyed("api.core.v1.PodSpec", "containers", NAME),
    keyed("api.core.v1.PodSpec", "ephemeralContainers", NAME),
    keyed("api.core.v1.PodSpec", "hostAliases", &["ip"]),
    keyed("api.core.v1.PodSpec", "imagePullSecrets", NAME),
    keyed("api.core.v1.PodSpec", "initContainers", NAME),
    atomic_map("api.core.v1.PodSpec", "nodeSelector"),
    keyed_retain("api.core.v1.PodSpec", "resourceClaims", NAME),
    keyed("api.core.v1.PodSpec", "schedulingGates", NAME),
    keyed("api.core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    keyed_retain("api.core.v1.PodSpec", "volumes", NAME),
    keyed("api.core.v1.PodStatus", "conditions", TYPE),
    FieldFact { list_type: ListType::Atomic, ..keyed("api.core.v1.PodStatus", "hostIPs", &["ip"]) },
    keyed("api.core.v1.PodStatus", "podIPs", &["ip"]),
    keyed_retain("api.core.v1.PodStatus", "resourceClaimStatuses", NAME),
    atomic_map("api.core.v1.ReplicationControllerSpec", "selector"),
    keyed("api.core.v1.ReplicationControllerStatus", "conditions", TYPE),
    keyed_replace("api.core.v1.ResourceRequirements", "claims", NAME),
    keyed_replace("api.core.v1.ResourceStatus", "resources", &["resourceID"]),
    keyed("api.core.v1.ServiceAccount", "secrets", NAME),
    keyed("api.core.v1.ServiceSpec", "ports", &["port", "protocol"]),
    atomic_map("api.core.v1.ServiceSpec", "selector"),
    keyed("api.core.v1.ServiceStatus", "conditions", TYPE),
    keyed("api.policy.v1.PodDisruptionBudgetStatus", "conditions", TYPE),
    keyed("api.flowcontrol.v1.FlowSchemaStatus", "conditions", TYPE),
    set("api.flowcontrol.v1.NonResourcePolicyRule", "nonResourceURLs", false),
    set("api.flowcontrol.v1.NonResourcePolicyRule", "verbs", false),
    keyed("api.flowcontrol.v1.PriorityLevelConfigurationStatus", "conditions", TYPE),
    set("api.flowcontrol.v1.ResourcePolicyRule", "apiGroups", false),
    set("api.flowcontrol.v1.ResourcePolicyRule", "namespaces", false),
    set("api.flowcontrol.v1.ResourcePolicyRule", "resources", false),
    set("api.flowcontrol.v1.ResourcePolicyRule", "verbs", false),
    keyed("api.networking.v1.ServiceCIDRStatus", "conditions", TYPE),
    atomic_map("api.node.v1.Scheduling", "nodeSelector"),
    keyed_replace("api.resource.v1.AllocatedDeviceStatus", "conditions", TYPE),
    keyed_replace("api.resource.v1.ResourceClaimStatus", "devices", &["driver", "device", "pool", "shareID"]),
    keyed("api.resource.v1.ResourceClaimStatus", "reservedFor", &["uid"]),
    keyed_replace("api.scheduling.v1alpha1.WorkloadSpec", "podGroups", NAME),
    set("api.storage.v1.CSIDriverSpec", "volumeLifecycleModes", false),
    keyed("api.storage.v1.CSINodeSpec", "drivers", NAME),
    keyed("kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus", "conditions", TYPE),
];

/// Types that are one value for server-side apply, without `io.k8s.`.
static ATOMIC_STRUCTS: &[&str] = &[
    "api.admissionregistration.v1.MatchResources",
    "api.admissionregistration.v1.NamedRuleWithOperations",
    "api.admissionregistration.v1.ParamKind",
    "api.admissionregistration.v1.ParamRef",
    "api.admissionregistration.v1beta1.MatchResources",
    "api.admissionregistration.v1beta1.NamedRuleWithOperations",
    "api.admissionregistration.v1beta1.ParamKind",
    "api.admissionregistration.v1beta1.ParamRef",
    "api.autoscaling.v1.CrossVersionObjectReference",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.ScopeSelector",
    "api.core.v1.ScopedResourceSelectorRequirement",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.SecretReference",
    "api.core.v1.TopologySelectorTerm",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
    "api.networking.v1.ServiceBackendPort",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// What is known about `field` of the type `type_name` (with its `io.k8s.`).
pub(crate) fn field_fact(type_name: &str, field: &str) -> Option<&'static FieldFact> {
    let type_name = type_name.strip_prefix("io.k8s.")?;
    FIELD_FACTS.iter().find(|fact| fact.field == field && fact.type_name == type_name)
}

/// Whether the type `type_name` (with its `io.k8s.`) is one value for server-side apply.
pub(crate) fn is_atomic_type(type_name: &str) -> bool {
    type_name.strip_prefix("io.k8s.").is_some_and(|short| ATOMIC_STRUCTS.contains(&short))
}
