//! Resource lists, requests and limits.

use serde_json::Value;

use super::access::{map, text};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::quantity::Quantity;

/// Resources of containers that need no domain.
const CONTAINER_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// A quantity out of a resource list.
pub fn quantity(list: Option<&Value>, name: &str) -> Option<Quantity> {
    match list?.get(name)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Whether a name is one of huge pages of a size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a name is one of the core's own: without a domain, or of kubernetes.io.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io"))
}

/// Whether a resource may be promised more often than it is there.
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// The name of a resource of a container.
pub fn validate_name(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for problem in names::qualified_name(name) {
        errors.push(field::invalid(path, name, problem));
    }
    if !name.contains('/') && !CONTAINER_RESOURCES.contains(&name) && !is_huge_page(name) {
        if !super::limit_range::is_standard(name) {
            errors.push(field::invalid(path, name, "must be a standard resource type or fully qualified"));
        }
        errors.push(field::invalid(path, name, "must be a standard resource for containers"));
    }
}

/// One value of a list: not negative, whole where halves make no sense.
pub fn validate_value(name: &str, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let shown = value.as_str().unwrap_or_default();
    let Ok(quantity) = shown.parse::<Quantity>() else {
        errors.push(field::invalid(
            path,
            value.clone(),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ));
        return;
    };
    if quantity.is_negative() {
        errors.push(field::invalid(path, shown, "must be greater than or equal to 0"));
    }
    let whole = !matches!(name, "cpu" | "memory" | "ephemeral-storage" | "storage");
    if whole && quantity.milli_value() % 1000 != 0 {
        errors.push(field::invalid(path, shown, "must be an integer"));
    }
}

/// Requests and limits of a container at `resources`.
pub fn validate(resources: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut has_cpu_or_memory = false;
    let mut huge_pages = false;
    for (name, value) in map(resources, "limits").into_iter().flatten() {
        let at = path.child("limits").key(name);
        validate_name(name, &at, errors);
        validate_value(name, value, &at, errors);
        huge_pages |= is_huge_page(name);
        has_cpu_or_memory |= matches!(name.as_str(), "cpu" | "memory");
    }
    for (name, value) in map(resources, "requests").into_iter().flatten() {
        let at = path.child("requests").key(name);
        validate_name(name, &at, errors);
        validate_value(name, value, &at, errors);
        huge_pages |= is_huge_page(name);
        has_cpu_or_memory |= matches!(name.as_str(), "cpu" | "memory");
        let requested = quantity(requests, name);
        match (requested, quantity(limits, name)) {
            (Some(requested), Some(limit)) => {
                if !is_overcommit_allowed(name) && requested != limit {
                    errors.push(field::invalid(
                        path.child("requests"),
                        requested.to_string(),
                        format!("must be equal to {name} limit of {limit}"),
                    ));
                } else if requested > limit {
                    errors.push(field::invalid(
                        path.child("requests"),
                        requested.to_string(),
                        format!("must be less than or equal to {name} limit of {limit}"),
                    ));
                }
            }
            (Some(_), None) if !is_overcommit_allowed(name) => {
                errors.push(field::required(
                    path.child("limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            _ => {}
        }
    }
    if huge_pages && !has_cpu_or_memory {
        errors.push(field::forbidden(path, "HugePages require cpu or memory"));
    }
    for (index, claim) in super::access::items(resources, "claims").iter().enumerate() {
        if text(claim, "name").is_empty() {
            errors.push(field::required(path.child("claims").index(index), ""));
        }
    }
}

/// A resource list of a node or a pod's overhead.
pub fn validate_list(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (name, value) in map(object, key).into_iter().flatten() {
        let at = path.child(key).key(name);
        for problem in names::qualified_name(name) {
            errors.push(field::invalid(&at, name.as_str(), problem));
        }
        validate_value(name, value, &at, errors);
    }
}
