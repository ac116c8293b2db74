//! Which strategy a resource has, by group. A kind that is not here only holds what clients put in.

use super::{Strategy, event, namespace, node, plain, pod, service, workload};

type Found = Option<&'static dyn Strategy>;

pub(super) fn core(plural: &str) -> Found {
    Some(match plural {
        "configmaps" => &plain::CONFIG_MAP,
        "endpoints" => &plain::ENDPOINTS,
        "events" => &event::Event,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "pods" => &pod::Pod,
        "secrets" => &plain::SECRET,
        "serviceaccounts" => &plain::SERVICE_ACCOUNT,
        "services" => &service::Service,
        _ => return None,
    })
}

pub(super) fn apps(plural: &str) -> Found {
    Some(match plural {
        "deployments" => &workload::DEPLOYMENT,
        "replicasets" => &workload::REPLICA_SET,
        _ => return None,
    })
}

pub(super) fn coordination(plural: &str) -> Found {
    Some(match plural {
        "leases" => &plain::LEASE,
        _ => return None,
    })
}

pub(super) fn discovery(plural: &str) -> Found {
    Some(match plural {
        "endpointslices" => &plain::ENDPOINT_SLICE,
        _ => return None,
    })
}

pub(super) fn events(plural: &str) -> Found {
    Some(match plural {
        "events" => &event::EventOfEventsGroup,
        _ => return None,
    })
}

pub(super) fn rbac(plural: &str) -> Found {
    Some(match plural {
        "clusterrolebindings" => &plain::CLUSTER_ROLE_BINDING,
        "clusterroles" => &plain::CLUSTER_ROLE,
        "rolebindings" => &plain::ROLE_BINDING,
        "roles" => &plain::ROLE,
        _ => return None,
    })
}

pub(super) fn scheduling(plural: &str) -> Found {
    Some(match plural {
        "priorityclasses" => &plain::PRIORITY_CLASS,
        _ => return None,
    })
}
