//! Roles of the controllers, each bound to the ServiceAccount in `kube-system` that the controller runs as.

use super::{
    APPS, APPS_AND_EXTENSIONS, AUTHORIZATION, AUTOSCALING, BATCH, Binding, CERTIFICATES, CORE, DISCOVERY,
    EVERY, NETWORKING, POLICY, PolicyRule, RBAC, READ, RESOURCE, Role, STORAGE, Subject, binding, events,
    named, on, role,
};

const ADMISSION: &[&str] = &["admissionregistration.k8s.io"];

pub(super) fn all() -> (Vec<Role>, Vec<Binding>) {
    [workloads(), services(), volumes(), cluster(), certificates()]
        .into_iter()
        .flatten()
        .map(|(account, rules)| {
            let name = format!("system:controller:{account}");
            (role(&name, rules), binding(&name, &[Subject::ServiceAccount(account)]))
        })
        .unzip()
}

type Controllers = Vec<(&'static str, Vec<PolicyRule>)>;

fn workloads() -> Controllers {
    const PODS: &str = "list watch patch create delete";
    vec![
        (
            "cronjob-controller",
            vec![
                on("get list watch update", BATCH, "cronjobs"),
                on("get list watch create update delete patch", BATCH, "jobs"),
                on("update", BATCH, "cronjobs/status"),
                on("update", BATCH, "cronjobs/finalizers"),
                on("list watch delete", CORE, "pods"),
                events(),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                on(READ, APPS_AND_EXTENSIONS, "daemonsets"),
                on("update", APPS_AND_EXTENSIONS, "daemonsets/status"),
                on("update", APPS_AND_EXTENSIONS, "daemonsets/finalizers"),
                on("list watch", CORE, "nodes"),
                on(PODS, CORE, "pods"),
                on("create", CORE, "pods/binding"),
                on("get list watch create delete update patch", APPS, "controllerrevisions"),
                events(),
            ],
        ),
        (
            "deployment-controller",
            vec![
                on("get list watch update", APPS_AND_EXTENSIONS, "deployments"),
                on("update", APPS_AND_EXTENSIONS, "deployments/status"),
                on("update", APPS_AND_EXTENSIONS, "deployments/finalizers"),
                on("get list watch create update patch delete", APPS_AND_EXTENSIONS, "replicasets"),
                on("get list watch update", CORE, "pods"),
                events(),
            ],
        ),
        (
            "disruption-controller",
            vec![
                on(READ, APPS_AND_EXTENSIONS, "deployments"),
                on(READ, APPS_AND_EXTENSIONS, "replicasets"),
                on(READ, CORE, "replicationcontrollers"),
                on(READ, POLICY, "poddisruptionbudgets"),
                on(READ, APPS, "statefulsets"),
                on("update", POLICY, "poddisruptionbudgets/status"),
                on("patch update", CORE, "pods/status"),
                on("get", EVERY, "*/scale"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                on(READ, AUTOSCALING, "horizontalpodautoscalers"),
                on("update", AUTOSCALING, "horizontalpodautoscalers/status"),
                on("get update", EVERY, "*/scale"),
                on("list watch", CORE, "pods"),
                on("list watch", &["metrics.k8s.io"], "pods"),
                on(READ, &["custom.metrics.k8s.io"], "*"),
                on(READ, &["external.metrics.k8s.io"], "*"),
                events(),
            ],
        ),
        (
            "job-controller",
            vec![
                on("get list watch update patch", BATCH, "jobs"),
                on("update", BATCH, "jobs/status"),
                on("update", BATCH, "jobs/finalizers"),
                on(PODS, CORE, "pods"),
                events(),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                on("list watch delete", CORE, "pods"),
                on(READ, CORE, "nodes"),
                on("patch", CORE, "pods/status"),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                on("get list watch update", APPS_AND_EXTENSIONS, "replicasets"),
                on("update", APPS_AND_EXTENSIONS, "replicasets/status"),
                on("update", APPS_AND_EXTENSIONS, "replicasets/finalizers"),
                on(PODS, CORE, "pods"),
                events(),
            ],
        ),
        (
            "replication-controller",
            vec![
                on("get list watch update", CORE, "replicationcontrollers"),
                on("update", CORE, "replicationcontrollers/status"),
                on("update", CORE, "replicationcontrollers/finalizers"),
                on(PODS, CORE, "pods"),
                events(),
            ],
        ),
        (
            "resource-claim-controller",
            vec![
                on(READ, CORE, "pods"),
                on("update", CORE, "pods/finalizers"),
                on("get list watch create delete", RESOURCE, "resourceclaims"),
                on("update patch", RESOURCE, "resourceclaims resourceclaims/status"),
                on("update patch", CORE, "pods/status"),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                on("list watch", CORE, "pods"),
                on(READ, APPS, "statefulsets"),
                on("update", APPS, "statefulsets/status"),
                on("update", APPS, "statefulsets/finalizers"),
                on("get create delete update patch", CORE, "pods"),
                on("get create delete update patch list watch", APPS, "controllerrevisions"),
                on("get create list watch", CORE, "persistentvolumeclaims"),
                on("update delete", CORE, "persistentvolumeclaims"),
                on("update", CORE, "pods/finalizers"),
                events(),
            ],
        ),
        ("ttl-after-finished-controller", vec![on("get list watch delete", BATCH, "jobs"), events()]),
    ]
}

fn services() -> Controllers {
    const SLICES: &str = "get list watch create update delete";
    vec![
        (
            "endpoint-controller",
            vec![
                on(READ, CORE, "services pods"),
                on(SLICES, CORE, "endpoints"),
                on("create", CORE, "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                on(READ, CORE, "services pods nodes"),
                on("update", CORE, "services/finalizers"),
                on(SLICES, DISCOVERY, "endpointslices"),
                events(),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                on(READ, CORE, "services endpoints"),
                on("update", CORE, "services/finalizers"),
                on("update", CORE, "endpoints/finalizers"),
                on(SLICES, DISCOVERY, "endpointslices"),
                events(),
            ],
        ),
        (
            "service-controller",
            vec![
                on(READ, CORE, "services"),
                on("patch update", CORE, "services/status"),
                on("list watch", CORE, "nodes"),
                events(),
            ],
        ),
        (
            "service-cidrs-controller",
            vec![
                on("get list watch patch update", NETWORKING, "servicecidrs"),
                on("patch update", NETWORKING, "servicecidrs/finalizers"),
                on("patch update", NETWORKING, "servicecidrs/status"),
                on(READ, NETWORKING, "ipaddresses"),
                events(),
            ],
        ),
    ]
}

fn volumes() -> Controllers {
    vec![
        (
            "attachdetach-controller",
            vec![
                on("list watch", CORE, "persistentvolumes persistentvolumeclaims"),
                on(READ, CORE, "nodes"),
                on("patch update", CORE, "nodes/status"),
                on("list watch", CORE, "pods"),
                events(),
                on("get create delete list watch", STORAGE, "volumeattachments"),
                on(READ, STORAGE, "csidrivers"),
                on(READ, STORAGE, "csinodes"),
            ],
        ),
        (
            "expand-controller",
            vec![
                on("get list watch update patch", CORE, "persistentvolumes"),
                on("update patch", CORE, "persistentvolumeclaims/status"),
                on(READ, CORE, "persistentvolumeclaims"),
                events(),
                on("get", CORE, "services"),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                on(READ, CORE, "pods"),
                on("update", CORE, "pods/finalizers"),
                on("get list watch create", CORE, "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                on("get list watch update create delete", CORE, "persistentvolumes"),
                on("update", CORE, "persistentvolumes/status"),
                on("get list watch update", CORE, "persistentvolumeclaims"),
                on("update", CORE, "persistentvolumeclaims/status"),
                on("list watch get create delete", CORE, "pods"),
                on(READ, STORAGE, "storageclasses"),
                on("list watch", CORE, "nodes"),
                events(),
                on("watch", CORE, "events"),
                on("get", CORE, "services"),
            ],
        ),
        (
            "pvc-protection-controller",
            vec![
                on("get list watch update", CORE, "persistentvolumeclaims"),
                on(READ, CORE, "pods"),
                events(),
            ],
        ),
        ("pv-protection-controller", vec![on("get list watch update", CORE, "persistentvolumes"), events()]),
        (
            "selinux-warning-controller",
            vec![
                events(),
                on(READ, CORE, "persistentvolumes"),
                on(READ, CORE, "persistentvolumeclaims"),
                on(READ, CORE, "pods"),
                on(READ, STORAGE, "csidrivers"),
            ],
        ),
        (
            "volumeattributesclass-protection-controller",
            vec![
                on(READ, CORE, "persistentvolumeclaims"),
                on(READ, CORE, "persistentvolumes"),
                on("get list watch update", STORAGE, "volumeattributesclasses"),
                events(),
            ],
        ),
    ]
}

fn cluster() -> Controllers {
    vec![
        (
            "clusterrole-aggregation-controller",
            vec![on("escalate get list watch update patch", RBAC, "clusterroles")],
        ),
        ("generic-garbage-collector", vec![on("get list watch patch update delete", EVERY, "*"), events()]),
        (
            "namespace-controller",
            vec![
                on("get list watch delete", CORE, "namespaces"),
                on("update", CORE, "namespaces/finalize namespaces/status"),
                on("get list watch delete deletecollection", EVERY, "*"),
            ],
        ),
        (
            "node-controller",
            vec![
                on("get list watch update delete patch", CORE, "nodes"),
                on("patch update", CORE, "nodes/status"),
                on("patch update", CORE, "pods/status"),
                on("list watch get delete", CORE, "pods"),
                events(),
            ],
        ),
        (
            "resourcequota-controller",
            vec![on("list watch", EVERY, "*"), on("update", CORE, "resourcequotas/status"), events()],
        ),
        (
            "route-controller",
            vec![on("list watch", CORE, "nodes"), on("patch", CORE, "nodes/status"), events()],
        ),
        ("service-account-controller", vec![on("create", CORE, "serviceaccounts"), events()]),
        ("ttl-controller", vec![on("update patch list watch", CORE, "nodes"), events()]),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                on(READ, ADMISSION, "validatingadmissionpolicies"),
                on("get patch update", ADMISSION, "validatingadmissionpolicies/status"),
                events(),
            ],
        ),
    ]
}

fn certificates() -> Controllers {
    vec![
        (
            "certificate-controller",
            vec![
                on("get list watch delete", CERTIFICATES, "certificatesigningrequests"),
                on(
                    "update",
                    CERTIFICATES,
                    "certificatesigningrequests/status certificatesigningrequests/approval",
                ),
                named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
                named(
                    "sign",
                    CERTIFICATES,
                    "signers",
                    "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client
                     kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
                ),
                on("create", AUTHORIZATION, "subjectaccessreviews"),
                events(),
            ],
        ),
        ("root-ca-cert-publisher", vec![on("create update", CORE, "configmaps"), events()]),
        (
            "legacy-service-account-token-cleaner",
            vec![
                named("get", CORE, "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
                on("patch delete", CORE, "secrets"),
            ],
        ),
    ]
}
