//! LimitRanges.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::access::{each_mut, items, map, set, struct_mut, text};
use super::{object_meta, resources};
use crate::field::{self, FieldError, FieldPath};
use crate::names;
use crate::quantity::Quantity;

const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];
const STANDARD: &[&str] = &["cpu", "ephemeral-storage", "memory", "storage"];

/// Upstream's defaults: of containers, limits follow from the maximum, requests from the limits, then from the minimum.
pub fn default(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    each_mut(spec, "limits", |item| {
        if text(item, "type") != "Container" {
            return;
        }
        let list = |item: &Value, key: &str| map(item, key).cloned().unwrap_or_default();
        let mut limits = list(item, "default");
        add_missing(&mut limits, &list(item, "max"));
        let mut requests = list(item, "defaultRequest");
        add_missing(&mut requests, &limits);
        add_missing(&mut requests, &list(item, "min"));
        for (key, values) in [("default", limits), ("defaultRequest", requests)] {
            if !values.is_empty() {
                set(item, key, values);
            }
        }
    });
}

fn add_missing(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        into.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// Everything wrong with a new range.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

/// Everything wrong with a changed range.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("limits");
    let list = object.get("spec").map(|spec| items(spec, "limits")).unwrap_or_default();
    for (index, item) in list.iter().enumerate() {
        let at = path.index(index);
        let kind = text(item, "type");
        type_name(kind, &at.child("type"), errors);
        if list[..index].iter().any(|earlier| text(earlier, "type") == kind) {
            errors.push(field::duplicate(at.child("type"), kind));
        }
        limits(item, kind, &at, errors);
    }
}

fn type_name(kind: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let problems = names::qualified_name(kind);
    let well_formed = problems.is_empty();
    errors.extend(problems.into_iter().map(|problem| field::invalid(path, kind, problem)));
    if well_formed && !kind.contains('/') && !TYPES.contains(&kind) {
        errors.push(field::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
}

/// Whether a name without a domain is one of the resources that Kubernetes itself knows.
pub fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || resources::is_huge_page(name)
}

fn resource_name(kind: &str, name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if matches!(kind, "Pod" | "Container") {
        resources::validate_name(name, path, errors);
        return;
    }
    errors.extend(names::qualified_name(name).into_iter().map(|problem| field::invalid(path, name, problem)));
    if !name.contains('/') && !is_standard(name) {
        errors.push(field::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

fn limits(item: &Value, kind: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let Some(values) = map(item, list).filter(|values| !values.is_empty()) else { continue };
        if kind == "Pod" && list.starts_with("default") {
            errors.push(field::forbidden(path.child(list), "may not be specified when `type` is 'Pod'"));
            continue;
        }
        for name in values.keys() {
            resource_name(kind, name, &path.child(list).key(name), errors);
            seen.insert(name.as_str());
        }
    }
    let has_storage = |list: &str| map(item, list).is_some_and(|values| values.contains_key("storage"));
    if kind == "PersistentVolumeClaim" && !has_storage("min") && !has_storage("max") {
        errors.push(field::required(
            path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
    for name in seen {
        order(item, name, path, errors);
    }
}

/// The values of one resource fit together.
fn order(item: &Value, name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let value = |list: &str| resources::quantity(item.get(list), name);
    let (min, max, ratio) = (value("min"), value("max"), value("maxLimitRequestRatio"));
    let (limit, request) = (value("default"), value("defaultRequest"));
    let mut wrong = |list: &str, shown: Quantity, text: String| {
        errors.push(field::invalid(path.child(list).key(name), shown.to_string(), text));
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let (Some(request), Some(min)) = (request, min)
        && min > request
    {
        let text = format!("min value {min} is greater than default request value {request}");
        wrong("defaultRequest", request, text);
    }
    if let (Some(request), Some(max)) = (request, max)
        && request > max
    {
        let text = format!("default request value {request} is greater than max value {max}");
        wrong("defaultRequest", request, text);
    }
    if let (Some(request), Some(limit)) = (request, limit)
        && request > limit
    {
        let text = format!("default request value {request} is greater than default limit value {limit}");
        wrong("defaultRequest", request, text);
    }
    if let (Some(limit), Some(min)) = (limit, min)
        && min > limit
    {
        wrong("default", min, format!("min value {min} is greater than default value {limit}"));
    }
    if let (Some(limit), Some(max)) = (limit, max)
        && limit > max
    {
        wrong("default", max, format!("default value {limit} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_units(1, ratio.format()) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.milli_value() as f64 / min.milli_value() as f64;
            if ratio.milli_value() as f64 / 1000.0 > most {
                let text = format!("ratio {ratio} is greater than max/min = {most:.6}");
                wrong("maxLimitRequestRatio", ratio, text);
            }
        }
    }
    if let (Some(limit), Some(request)) = (limit, request)
        && !resources::is_overcommit_allowed(name)
        && limit != request
    {
        let text = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        wrong("defaultRequest", request, text);
    }
}
