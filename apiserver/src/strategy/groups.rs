//! Which strategy a resource has, by group. A kind that is not here only holds what clients put in.

use super::{
    Strategy, autoscaler, control_kinds, custom_resource_definition, device_kinds, event, limit_kinds,
    namespace, network_kinds, node, plain, pod, service, signing_request, storage_kinds, workload,
};

type Found = Option<&'static dyn Strategy>;

pub(super) fn core(plural: &str) -> Found {
    Some(match plural {
        "configmaps" => &plain::CONFIG_MAP,
        "endpoints" => &plain::ENDPOINTS,
        "events" => &event::Event,
        "limitranges" => &limit_kinds::LIMIT_RANGE,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "persistentvolumeclaims" => &storage_kinds::PERSISTENT_VOLUME_CLAIM,
        "persistentvolumes" => &storage_kinds::PERSISTENT_VOLUME,
        "pods" => &pod::Pod,
        "podtemplates" => &plain::POD_TEMPLATE,
        "replicationcontrollers" => &workload::REPLICATION_CONTROLLER,
        "resourcequotas" => &limit_kinds::RESOURCE_QUOTA,
        "secrets" => &plain::SECRET,
        "serviceaccounts" => &plain::SERVICE_ACCOUNT,
        "services" => &service::Service,
        _ => return None,
    })
}

pub(super) fn apiextensions(plural: &str) -> Found {
    Some(match plural {
        "customresourcedefinitions" => &custom_resource_definition::CustomResourceDefinition,
        _ => return None,
    })
}

pub(super) fn apps(plural: &str) -> Found {
    Some(match plural {
        "controllerrevisions" => &plain::CONTROLLER_REVISION,
        "daemonsets" => &workload::DAEMON_SET,
        "deployments" => &workload::DEPLOYMENT,
        "replicasets" => &workload::REPLICA_SET,
        "statefulsets" => &workload::STATEFUL_SET,
        _ => return None,
    })
}

pub(super) fn autoscaling(version: &str, plural: &str) -> Found {
    Some(match (version, plural) {
        ("v1", "horizontalpodautoscalers") => &autoscaler::AutoscalerV1,
        ("v2", "horizontalpodautoscalers") => &workload::HORIZONTAL_POD_AUTOSCALER,
        _ => return None,
    })
}

pub(super) fn batch(plural: &str) -> Found {
    Some(match plural {
        "cronjobs" => &workload::CRON_JOB,
        "jobs" => &workload::JOB,
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

pub(super) fn policy(plural: &str) -> Found {
    Some(match plural {
        "poddisruptionbudgets" => &workload::POD_DISRUPTION_BUDGET,
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
        "workloads" => &plain::WORKLOAD,
        _ => return None,
    })
}

pub(super) fn networking(plural: &str) -> Found {
    Some(match plural {
        "ingressclasses" => &network_kinds::INGRESS_CLASS,
        "ingresses" => &network_kinds::INGRESS,
        "ipaddresses" => &network_kinds::IP_ADDRESS,
        "networkpolicies" => &network_kinds::NETWORK_POLICY,
        "servicecidrs" => &network_kinds::SERVICE_CIDR,
        _ => return None,
    })
}

pub(super) fn node(plural: &str) -> Found {
    Some(match plural {
        "runtimeclasses" => &limit_kinds::RUNTIME_CLASS,
        _ => return None,
    })
}

pub(super) fn storage(plural: &str) -> Found {
    Some(match plural {
        "csidrivers" => &storage_kinds::CSI_DRIVER,
        "csinodes" => &storage_kinds::CSI_NODE,
        "csistoragecapacities" => &storage_kinds::CSI_STORAGE_CAPACITY,
        "storageclasses" => &storage_kinds::STORAGE_CLASS,
        "volumeattachments" => &storage_kinds::VOLUME_ATTACHMENT,
        "volumeattributesclasses" => &storage_kinds::VOLUME_ATTRIBUTES_CLASS,
        _ => return None,
    })
}

pub(super) fn admission_registration(plural: &str) -> Found {
    Some(match plural {
        "mutatingadmissionpolicies" => &control_kinds::MUTATING_POLICY,
        "mutatingadmissionpolicybindings" => &control_kinds::MUTATING_POLICY_BINDING,
        "mutatingwebhookconfigurations" => &control_kinds::MUTATING_WEBHOOKS,
        "validatingadmissionpolicies" => &control_kinds::ADMISSION_POLICY,
        "validatingadmissionpolicybindings" => &control_kinds::ADMISSION_POLICY_BINDING,
        "validatingwebhookconfigurations" => &control_kinds::VALIDATING_WEBHOOKS,
        _ => return None,
    })
}

pub(super) fn api_registration(plural: &str) -> Found {
    Some(match plural {
        "apiservices" => &control_kinds::API_SERVICE,
        _ => return None,
    })
}

pub(super) fn certificates(plural: &str) -> Found {
    Some(match plural {
        "certificatesigningrequests" => &signing_request::SigningRequest,
        _ => return None,
    })
}

pub(super) fn devices(plural: &str) -> Found {
    Some(match plural {
        "deviceclasses" => &device_kinds::DEVICE_CLASS,
        "resourceclaims" => &device_kinds::RESOURCE_CLAIM,
        "resourceclaimtemplates" => &device_kinds::RESOURCE_CLAIM_TEMPLATE,
        "resourceslices" => &device_kinds::RESOURCE_SLICE,
        _ => return None,
    })
}

pub(super) fn flow_control(plural: &str) -> Found {
    Some(match plural {
        "flowschemas" => &control_kinds::FLOW_SCHEMA,
        "prioritylevelconfigurations" => &control_kinds::PRIORITY_LEVEL,
        _ => return None,
    })
}
