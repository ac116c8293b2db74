//! Roles of the components: nodes, scheduler, controller-manager, proxy, and what runs beside them.

use component_base::feature_gates::FeatureGates;

use super::{
    APPS, APPS_AND_EXTENSIONS, AUTHENTICATION, AUTHORIZATION, Binding, CERTIFICATES, COORDINATION, CORE,
    DISCOVERY, EVERY, EXTENSIONS, NETWORKING, POLICY, PolicyRule, READ, RESOURCE, Role, SCHEDULING, STORAGE,
    Subject, binding, events, named, on, role,
};

/// What a node may do, before the Node authorizer narrows it down to the node's own.
pub fn node_rules() -> Vec<PolicyRule> {
    vec![
        on("create", AUTHENTICATION, "tokenreviews"),
        on("create", AUTHORIZATION, "subjectaccessreviews localsubjectaccessreviews"),
        on(READ, CORE, "services"),
        on("create get list watch", CORE, "nodes"),
        on("update patch", CORE, "nodes/status"),
        on("update patch", CORE, "nodes"),
        on("create update patch", CORE, "events"),
        on(READ, CORE, "pods"),
        on("create delete", CORE, "pods"),
        on("update patch", CORE, "pods/status"),
        on("create", CORE, "pods/eviction"),
        on(READ, CORE, "secrets configmaps"),
        on("get", CORE, "persistentvolumeclaims persistentvolumes"),
        on("get", CORE, "endpoints"),
        on("create get list watch", CERTIFICATES, "certificatesigningrequests"),
        on("get create update patch delete", COORDINATION, "leases"),
        on("get", STORAGE, "volumeattachments"),
        on("create", CORE, "serviceaccounts/token"),
        on("get update patch", CORE, "persistentvolumeclaims/status"),
        on(READ, STORAGE, "csidrivers"),
        on("get create update patch delete", STORAGE, "csinodes"),
        on(READ, &["node.k8s.io"], "runtimeclasses"),
        on("get", RESOURCE, "resourceclaims"),
        on("deletecollection", RESOURCE, "resourceslices"),
        on("get", CORE, "serviceaccounts"),
    ]
}

pub(super) fn roles(gates: &FeatureGates) -> Vec<Role> {
    vec![
        role("system:node", node_rules()),
        role(
            "system:node-bootstrapper",
            vec![on("create get list watch", CERTIFICATES, "certificatesigningrequests")],
        ),
        role("system:node-proxier", node_proxier()),
        role("system:kubelet-api-admin", kubelet_api_admin()),
        role("system:kube-controller-manager", controller_manager()),
        role("system:kube-scheduler", scheduler(gates)),
        role(
            "system:volume-scheduler",
            vec![
                on("get list watch update patch", CORE, "persistentvolumes"),
                on(READ, STORAGE, "storageclasses"),
                on("get list watch update patch", CORE, "persistentvolumeclaims"),
            ],
        ),
        role("system:kube-dns", vec![on("list watch", CORE, "endpoints services")]),
        role("system:kube-aggregator", vec![on(READ, CORE, "services endpoints")]),
        role(
            "system:heapster",
            vec![on(READ, CORE, "events pods nodes namespaces"), on(READ, EXTENSIONS, "deployments")],
        ),
        role(
            "system:persistent-volume-provisioner",
            vec![
                on("get list watch create delete", CORE, "persistentvolumes"),
                on("get list watch update", CORE, "persistentvolumeclaims"),
                on(READ, STORAGE, "storageclasses"),
                on("watch", CORE, "events"),
                events(),
            ],
        ),
    ]
}

fn node_proxier() -> Vec<PolicyRule> {
    vec![
        on("list watch", CORE, "services endpoints"),
        on(READ, CORE, "nodes"),
        events(),
        on("list watch", NETWORKING, "servicecidrs"),
        on("list watch", DISCOVERY, "endpointslices"),
    ]
}

fn kubelet_api_admin() -> Vec<PolicyRule> {
    vec![
        on(READ, CORE, "nodes"),
        on("proxy", CORE, "nodes"),
        on("*", CORE, "nodes/proxy nodes/metrics nodes/stats nodes/log"),
        on("*", CORE, "nodes/configz nodes/healthz nodes/pods"),
    ]
}

fn controller_manager() -> Vec<PolicyRule> {
    vec![
        events(),
        on("create", COORDINATION, "leases"),
        named("get update", COORDINATION, "leases", "kube-controller-manager"),
        on("create", CORE, "secrets serviceaccounts"),
        on("delete", CORE, "secrets"),
        on("get", CORE, "namespaces secrets serviceaccounts configmaps"),
        on("update", CORE, "secrets serviceaccounts"),
        on("create", AUTHENTICATION, "tokenreviews"),
        on("create", AUTHORIZATION, "subjectaccessreviews"),
        on("list watch", EVERY, "*"),
        on("create", CORE, "serviceaccounts/token"),
    ]
}

fn scheduler(gates: &FeatureGates) -> Vec<PolicyRule> {
    let mut rules = vec![
        events(),
        on("create", COORDINATION, "leases"),
        named("get update", COORDINATION, "leases", "kube-scheduler"),
        on(READ, CORE, "nodes"),
        on("get list watch delete", CORE, "pods"),
        on("create", CORE, "pods/binding bindings"),
        on("patch update", CORE, "pods/status"),
        on(READ, CORE, "services replicationcontrollers"),
        on(READ, APPS_AND_EXTENSIONS, "replicasets"),
        on(READ, APPS, "statefulsets"),
        on(READ, POLICY, "poddisruptionbudgets"),
        on(READ, CORE, "persistentvolumeclaims persistentvolumes"),
        on("create", AUTHENTICATION, "tokenreviews"),
        on("create", AUTHORIZATION, "subjectaccessreviews"),
        on(READ, STORAGE, "csinodes"),
        on(READ, STORAGE, "volumeattachments"),
        on(READ, CORE, "namespaces"),
        on(READ, STORAGE, "csidrivers"),
        on(READ, STORAGE, "csistoragecapacities"),
        on(READ, RESOURCE, "deviceclasses"),
        on("get list patch update watch", RESOURCE, "resourceclaims"),
        on("get list patch update watch", RESOURCE, "resourceclaims/status"),
        on("get list patch update watch", CORE, "pods/finalizers"),
        on(READ, RESOURCE, "resourceslices"),
    ];
    if gates.is_on("GenericWorkload") {
        rules.push(on(READ, SCHEDULING, "workloads"));
    }
    rules
}

pub(super) fn bindings() -> Vec<Binding> {
    let scheduler = [Subject::User("system:kube-scheduler")];
    vec![
        // Nodes go through the Node authorizer; the binding is there for those who want them to have the role.
        binding("system:node", &[]),
        binding("system:node-proxier", &[Subject::User("system:kube-proxy")]),
        binding("system:kube-controller-manager", &[Subject::User("system:kube-controller-manager")]),
        binding("system:kube-dns", &[Subject::ServiceAccount("kube-dns")]),
        binding("system:kube-scheduler", &scheduler),
        binding("system:volume-scheduler", &scheduler),
    ]
}
