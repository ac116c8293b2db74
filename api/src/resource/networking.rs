//! The resources of `networking.k8s.io`.

use super::{NOTHING, READ_AND_WRITE, Resource, of_group, sub};

const GROUP: &str = "networking.k8s.io";
const VERSION: &str = "networking.k8s.io/v1";

pub(super) const ROWS: &[Resource] = &[
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "IngressClass", "ingressclasses", "ingressclass", NOTHING)
    },
    Resource {
        subresources: &[sub("status", GROUP, "v1", "Ingress", READ_AND_WRITE)],
        storage_prefix: "ingress",
        ..of_group(GROUP, VERSION, "Ingress", "ingresses", "ingress", &["ing"])
    },
    Resource {
        namespaced: false,
        ..of_group(GROUP, VERSION, "IPAddress", "ipaddresses", "ipaddress", &["ip"])
    },
    of_group(GROUP, VERSION, "NetworkPolicy", "networkpolicies", "networkpolicy", &["netpol"]),
    Resource {
        namespaced: false,
        subresources: &[sub("status", GROUP, "v1", "ServiceCIDR", READ_AND_WRITE)],
        ..of_group(GROUP, VERSION, "ServiceCIDR", "servicecidrs", "servicecidr", NOTHING)
    },
];
