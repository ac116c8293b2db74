//! EndpointSlices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::access::{default_text, default_to, each_mut, integer, items, present, same, text};
use super::{endpoints, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    default_to(object, "endpoints", Value::Null);
    default_to(object, "ports", Value::Null);
    each_mut(object, "ports", |port| {
        default_to(port, "name", "");
        default_text(port, "protocol", "TCP");
    });
}

/// Everything wrong with a new slice.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

/// Everything wrong with a changed slice.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    if !same(new.get("addressType"), old.get("addressType")) {
        errors.push(object_meta::immutable("addressType", new.get("addressType")));
    }
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let kind = text(object, "addressType");
    let path = FieldPath::new("addressType");
    if kind.is_empty() {
        errors.push(field::required(path, ""));
    } else if !ADDRESS_TYPES.contains(&kind) {
        errors.push(field::not_supported(path, kind, ADDRESS_TYPES));
    }
    all_endpoints(items(object, "endpoints"), kind, errors);
    ports(items(object, "ports"), errors);
}

fn all_endpoints(list: &[Value], kind: &str, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("endpoints");
    if list.len() > ENDPOINTS_MAX {
        errors.push(field::too_many(path, list.len(), ENDPOINTS_MAX));
        return;
    }
    for (index, endpoint) in list.iter().enumerate() {
        let at = path.index(index);
        let addresses = items(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(field::required(at.child("addresses"), "must contain at least 1 address"));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(field::too_many(at.child("addresses"), addresses.len(), ADDRESSES_MAX));
        }
        for (number, address) in addresses.iter().enumerate() {
            let address = address.as_str().unwrap_or_default();
            validate_address(address, kind, &at.child("addresses").index(number), errors);
        }
        for (key, rule) in [
            ("nodeName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
            ("hostname", names::dns1123_label),
        ] {
            if let Some(name) = present(endpoint, key).and_then(Value::as_str) {
                let problems = rule(name);
                errors
                    .extend(problems.into_iter().map(|problem| field::invalid(at.child(key), name, problem)));
            }
        }
    }
}

fn validate_address(address: &str, kind: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (kind, address.parse::<std::net::IpAddr>()) {
        ("IPv4", Ok(ip)) if !ip.is_ipv4() => {
            errors.push(field::invalid(path, address, "must be an IPv4 address"));
        }
        ("IPv6", Ok(ip)) if !ip.is_ipv6() => {
            errors.push(field::invalid(path, address, "must be an IPv6 address"));
        }
        ("IPv4" | "IPv6", _) => endpoints::validate_ip(address, path, errors),
        ("FQDN", _) => {
            let problems = names::dns1123_subdomain(address.strip_suffix('.').unwrap_or(address));
            errors.extend(problems.into_iter().map(|problem| field::invalid(path, address, problem)));
        }
        _ => {}
    }
}

fn ports(list: &[Value], errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("ports");
    if list.len() > PORTS_MAX {
        errors.push(field::too_many(path, list.len(), PORTS_MAX));
        return;
    }
    let mut taken = BTreeSet::new();
    for (index, port) in list.iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::dns1123_label(name);
            errors
                .extend(problems.into_iter().map(|problem| field::invalid(at.child("name"), name, problem)));
        }
        if !taken.insert(name) {
            errors.push(field::duplicate(at.child("name"), name));
        }
        let protocol = text(port, "protocol");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.push(field::not_supported(at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
        }
        if let Some(number) = integer(port, "port") {
            let problems = names::port_number(number);
            errors.extend(
                problems.into_iter().map(|problem| field::invalid(at.child("port"), number, problem)),
            );
        }
    }
}
