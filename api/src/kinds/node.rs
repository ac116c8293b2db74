//! Nodes.

use serde_json::Value;

use super::access::{items, present, struct_mut, text};
use super::{affinity, object_meta, resources};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults: what can be used is what there is.
pub fn default(object: &mut Value) {
    struct_mut(object, "spec");
    if let Some(status) = struct_mut(object, "status")
        && present(status, "allocatable").is_none()
        && let Some(capacity) = present(status, "capacity").cloned()
    {
        super::access::set(status, "allocatable", capacity);
    }
    if let Some(status) = object.get_mut("status") {
        struct_mut(status, "daemonEndpoints");
        if let Some(endpoints) = status.get_mut("daemonEndpoints")
            && let Some(kubelet) = struct_mut(endpoints, "kubeletEndpoint")
        {
            super::access::default_to(kubelet, "Port", 0);
        }
        if let Some(info) = struct_mut(status, "nodeInfo") {
            for name in [
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ] {
                super::access::default_to(info, name, "");
            }
        }
    }
}

/// Everything wrong with a new node.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    spec(object, &mut errors);
    status(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let Some(spec) = present(object, "spec") else { return };
    let mut taken: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in items(spec, "taints").iter().enumerate() {
        let at = path.child("taints").index(index);
        affinity::validate_taint(taint, &at, errors);
        let key = (text(taint, "key"), text(taint, "effect"));
        if taken.contains(&key) {
            let mut error = field::duplicate(&at, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        taken.push(key);
    }
    for (index, range) in items(spec, "podCIDRs").iter().enumerate() {
        let range = range.as_str().unwrap_or_default();
        if !is_cidr(range) {
            errors.push(field::invalid(
                path.child("podCIDRs").index(index),
                range,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ));
        }
    }
}

/// Whether a text is an address range.
pub fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<std::net::IpAddr>(), bits.parse::<u8>()) {
        (Ok(address), Ok(bits)) => bits <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

fn status(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("status");
    let Some(status) = present(object, "status") else { return };
    for key in ["capacity", "allocatable"] {
        resources::validate_list(status, key, &path, errors);
    }
    let mut taken: Vec<(&str, &str)> = Vec::new();
    for (index, address) in items(status, "addresses").iter().enumerate() {
        let key = (text(address, "type"), text(address, "address"));
        if taken.contains(&key) {
            errors.push(field::duplicate(path.child("addresses").index(index), address.clone()));
        }
        taken.push(key);
    }
}

/// Everything wrong with a changed node.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    status(new, &mut errors);
    let none = Value::Null;
    let (after, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let path = FieldPath::new("spec");
    if !items(before, "podCIDRs").is_empty() && items(after, "podCIDRs") != items(before, "podCIDRs") {
        errors.push(field::forbidden(
            path.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
    if !text(before, "providerID").is_empty() && text(after, "providerID") != text(before, "providerID") {
        errors.push(field::forbidden(
            path.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    errors
}
