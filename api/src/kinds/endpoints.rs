//! Endpoints: the older form of the addresses behind a Service.

use serde_json::Value;

use super::access::{default_text, each_mut, integer, items, text};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    each_mut(object, "subsets", |subset| {
        each_mut(subset, "ports", |port| default_text(port, "protocol", "TCP"));
    });
}

/// Everything wrong with new endpoints.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    subsets(object, &mut errors);
    errors
}

/// Everything wrong with changed endpoints.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    subsets(new, &mut errors);
    errors
}

fn subsets(object: &Value, errors: &mut Vec<FieldError>) {
    for (index, subset) in items(object, "subsets").iter().enumerate() {
        let path = FieldPath::new("subsets").index(index);
        let (ready, not_ready) = (items(subset, "addresses"), items(subset, "notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(field::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (list, name) in [(ready, "addresses"), (not_ready, "notReadyAddresses")] {
            for (number, address) in list.iter().enumerate() {
                let at = path.child(name).index(number);
                validate_ip(text(address, "ip"), &at.child("ip"), errors);
            }
        }
        let ports = items(subset, "ports");
        for (number, port) in ports.iter().enumerate() {
            validate_port(port, ports.len() > 1, &path.child("ports").index(number), errors);
        }
    }
}

/// An address that traffic can be sent to: not unspecified, loopback, link-local.
pub fn validate_ip(address: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let problems = names::ip_address(address);
    errors.extend(problems.into_iter().map(|problem| field::invalid(path, address, problem)));
    let Ok(ip) = address.parse::<std::net::IpAddr>() else { return };
    let (link_local, multicast) = match ip {
        std::net::IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] == 0xff02),
    };
    for (found, problem) in [
        (ip.is_unspecified(), "may not be unspecified"),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if found {
            errors.push(field::invalid(path, address, problem));
        }
    }
}

fn validate_port(port: &Value, needs_name: bool, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let name = text(port, "name");
    if name.is_empty() {
        if needs_name {
            errors.push(field::required(path.child("name"), ""));
        }
    } else {
        let problems = names::dns1123_label(name);
        errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("name"), name, problem)));
    }
    let number = integer(port, "port").unwrap_or(0);
    let problems = names::port_number(number);
    errors.extend(problems.into_iter().map(|problem| field::invalid(path.child("port"), number, problem)));
    let protocol = text(port, "protocol");
    if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        errors.push(field::not_supported(path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
    }
}
