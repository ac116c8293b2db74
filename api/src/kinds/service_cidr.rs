//! ServiceCIDRs and IPAddresses: the blocks that cluster IPs come from, and the IPs that are taken.

use serde_json::Value;

use super::access::{items, present, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// What a new ServiceCIDR's status is.
pub fn initial_status() -> Value {
    serde_json::json!({})
}

fn blocks(object: &Value) -> &[Value] {
    object.get("spec").map(|spec| items(spec, "cidrs")).unwrap_or_default()
}

/// Everything wrong with a new ServiceCIDR.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("cidrs");
    let list = blocks(object);
    if list.is_empty() {
        errors.push(field::required(path, "at least one CIDR required"));
        return;
    }
    if list.len() > 2 {
        let shown = object.get("spec").cloned().unwrap_or(Value::Null);
        errors.push(field::invalid(path, shown, "may only hold up to 2 values"));
        return;
    }
    for (index, block) in list.iter().enumerate() {
        check::canonical_cidr(block.as_str().unwrap_or_default(), &path.index(index), errors);
    }
    let families: Vec<bool> = list
        .iter()
        .filter_map(|block| check::Cidr::parse(block.as_str().unwrap_or_default()))
        .map(|block| block.is_ipv4())
        .collect();
    if let [one, other] = families[..]
        && one == other
    {
        errors.push(field::invalid(
            path,
            Value::Array(list.to_vec()),
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ));
    }
}

/// Everything wrong with a changed ServiceCIDR: a second block may come, nothing else changes.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec").child("cidrs");
    let (after, before) = (blocks(new), blocks(old));
    let grows = before.len() == 1 && after.len() == 2;
    if after.len() != before.len() && !grows {
        errors.push(object_meta::immutable(path, Some(&Value::Array(after.to_vec()))));
        return errors;
    }
    for (index, (block, earlier)) in after.iter().zip(before).enumerate() {
        if block != earlier {
            errors.push(object_meta::immutable(path.index(index), Some(block)));
        }
    }
    if grows {
        content(new, &mut errors);
    }
    errors
}

fn canonical_ip(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Err(_) => names::ip_address(value),
        Ok(ip) if ip.to_string() != value => vec![format!("must be in canonical form (\"{ip}\")")],
        Ok(_) => Vec::new(),
    }
}

/// Everything wrong with a new IPAddress.
pub fn validate_address(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, canonical_ip);
    let path = FieldPath::new("spec").child("parentRef");
    let Some(parent) = object.get("spec").and_then(|spec| present(spec, "parentRef")) else {
        errors.push(field::required(path, ""));
        return errors;
    };
    let group = text(parent, "group");
    if !group.is_empty() {
        check::name(group, names::dns1123_subdomain, &path.child("group"), &mut errors);
    }
    for name in ["resource", "name"] {
        check::required_name(text(parent, name), names::path_segment, &path.child(name), &mut errors);
    }
    check::name(text(parent, "namespace"), names::path_segment, &path.child("namespace"), &mut errors);
    errors
}

/// Everything wrong with a changed IPAddress: its owner stays.
pub fn validate_address_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let parent = |object: &Value| object.pointer("/spec/parentRef").cloned();
    let (after, before) = (parent(new), parent(old));
    let path = FieldPath::new("spec").child("parentRef");
    object_meta::check_immutable(after.as_ref(), before.as_ref(), &path, &mut errors);
    errors
}
