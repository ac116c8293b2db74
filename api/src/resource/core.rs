//! The resources of the core group.

use super::{
    CONNECT, CREATE, GET, NAMESPACE_VERBS, NOTHING, PROXY, READ, READ_AND_WRITE, Resource, core, sub,
};

pub(super) const ROWS: &[Resource] = &[
    Resource {
        verbs: CREATE,
        storage_api_version: "",
        ..core("Binding", "bindings", "binding", NOTHING, "")
    },
    Resource {
        namespaced: false,
        verbs: READ,
        storage_api_version: "",
        ..core("ComponentStatus", "componentstatuses", "componentstatus", &["cs"], "")
    },
    core("ConfigMap", "configmaps", "configmap", &["cm"], "configmaps"),
    core("Endpoints", "endpoints", "endpoints", &["ep"], "services/endpoints"),
    core("Event", "events", "event", &["ev"], "events"),
    core("LimitRange", "limitranges", "limitrange", &["limits"], "limitranges"),
    Resource {
        namespaced: false,
        verbs: NAMESPACE_VERBS,
        subresources: &[
            sub("finalize", "", "v1", "Namespace", &["update"]),
            sub("status", "", "v1", "Namespace", READ_AND_WRITE),
        ],
        ..core("Namespace", "namespaces", "namespace", &["ns"], "namespaces")
    },
    Resource {
        namespaced: false,
        subresources: &[
            sub("proxy", "", "v1", "NodeProxyOptions", PROXY),
            sub("status", "", "v1", "Node", READ_AND_WRITE),
        ],
        ..core("Node", "nodes", "node", &["no"], "minions")
    },
    Resource {
        subresources: &[sub("status", "", "v1", "PersistentVolumeClaim", READ_AND_WRITE)],
        ..core(
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            &["pvc"],
            "persistentvolumeclaims",
        )
    },
    Resource {
        namespaced: false,
        subresources: &[sub("status", "", "v1", "PersistentVolume", READ_AND_WRITE)],
        ..core("PersistentVolume", "persistentvolumes", "persistentvolume", &["pv"], "persistentvolumes")
    },
    Resource {
        categories: &["all"],
        subresources: &[
            sub("attach", "", "v1", "PodAttachOptions", CONNECT),
            sub("binding", "", "v1", "Binding", CREATE),
            sub("eviction", "policy", "v1", "Eviction", CREATE),
            sub("ephemeralcontainers", "", "v1", "Pod", READ_AND_WRITE),
            sub("exec", "", "v1", "PodExecOptions", CONNECT),
            sub("log", "", "v1", "Pod", GET),
            sub("portforward", "", "v1", "PodPortForwardOptions", CONNECT),
            sub("proxy", "", "v1", "PodProxyOptions", PROXY),
            sub("resize", "", "v1", "Pod", READ_AND_WRITE),
            sub("status", "", "v1", "Pod", READ_AND_WRITE),
        ],
        ..core("Pod", "pods", "pod", &["po"], "pods")
    },
    core("PodTemplate", "podtemplates", "podtemplate", NOTHING, "podtemplates"),
    Resource {
        categories: &["all"],
        subresources: &[
            sub("scale", "autoscaling", "v1", "Scale", READ_AND_WRITE),
            sub("status", "", "v1", "ReplicationController", READ_AND_WRITE),
        ],
        ..core(
            "ReplicationController",
            "replicationcontrollers",
            "replicationcontroller",
            &["rc"],
            "controllers",
        )
    },
    Resource {
        subresources: &[sub("status", "", "v1", "ResourceQuota", READ_AND_WRITE)],
        ..core("ResourceQuota", "resourcequotas", "resourcequota", &["quota"], "resourcequotas")
    },
    core("Secret", "secrets", "secret", NOTHING, "secrets"),
    Resource {
        subresources: &[sub("token", "authentication.k8s.io", "v1", "TokenRequest", CREATE)],
        ..core("ServiceAccount", "serviceaccounts", "serviceaccount", &["sa"], "serviceaccounts")
    },
    Resource {
        categories: &["all"],
        subresources: &[
            sub("proxy", "", "v1", "ServiceProxyOptions", PROXY),
            sub("status", "", "v1", "Service", READ_AND_WRITE),
        ],
        ..core("Service", "services", "service", &["svc"], "services/specs")
    },
];
