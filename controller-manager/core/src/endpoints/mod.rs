//! The EndpointSlice and Endpoints controllers: which addresses are behind a Service. [`ServicePod`] reads what both need
//! from a pod; [`slices`] and [`legacy`] lay it out. [`mirroring`] makes slices of Endpoints that others write.

pub mod legacy;
pub mod mirroring;
pub mod slices;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod_state::{is_finished, is_ready, is_terminating, node_name};

/// Marks what belongs to a headless Service.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether the controllers look after this Service: it selects pods and is not an alias.
pub fn is_managed(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

/// Whether the Service has no address of its own.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// A selected pod with an address of the wanted family.
pub struct ServicePod<'a> {
    pod: &'a Pod,
    /// Its address.
    pub address: String,
    /// Whether traffic may go to it.
    pub ready: bool,
    /// Whether it answers, ending or not.
    pub serving: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl<'a> ServicePod<'a> {
    /// Reads a pod; `None` if it has no address of that family or has ended.
    pub fn read(pod: &'a Pod, ipv6: bool, publish_not_ready: bool) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
        let mut fitting = all.filter(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == ipv6));
        let address = fitting.next()?.to_owned();
        if is_finished(pod) {
            return None;
        }
        let (serving, terminating) = (is_ready(pod), is_terminating(pod));
        let ready = publish_not_ready || (serving && !terminating);
        Some(Self { pod, address, ready, serving, terminating })
    }

    /// The node the pod runs on.
    pub fn node(&self) -> Option<String> {
        Some(node_name(self.pod)).filter(|node| !node.is_empty()).map(str::to_owned)
    }

    /// The pod's own DNS name, if this Service gives it one.
    pub fn hostname(&self, service: &Service) -> Option<String> {
        let spec = self.pod.spec.as_ref()?;
        let named = spec.subdomain == service.metadata.name
            && self.pod.metadata.namespace == service.metadata.namespace;
        spec.hostname.clone().filter(|name| named && !name.is_empty())
    }

    /// A reference to the pod.
    pub fn target_ref(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".into()),
            namespace: self.pod.metadata.namespace.clone(),
            name: self.pod.metadata.name.clone(),
            uid: self.pod.metadata.uid.clone(),
            ..Default::default()
        }
    }

    /// The port of the pod behind a Service's port; `None` if the pod has none of that name.
    pub fn port(&self, port: &ServicePort) -> Option<i32> {
        match port.target_port.as_ref() {
            None | Some(IntOrString::Int(0)) => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let spec = self.pod.spec.as_ref()?;
                let sidecars = spec
                    .init_containers
                    .iter()
                    .flatten()
                    .filter(|c| c.restart_policy.as_deref() == Some("Always"));
                let containers = spec.containers.iter().chain(sidecars);
                let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
                ports
                    .find(|p| {
                        p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
                    })
                    .map(|p| p.container_port)
            }
        }
    }
}
