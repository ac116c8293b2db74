//! Devices that drivers hand out to pods: DeviceClasses, ResourceClaims and their templates, ResourceSlices. Expressions are only checked for
//! being there.

use serde_json::Value;

use super::access::{boolean, default_number, default_text, each_mut, integer, items, present, text};
use super::{affinity, check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const REQUESTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const RESERVED_FOR_MAX: usize = 256;
const DEVICES_MAX: usize = 128;
const OPAQUE_BYTES_MAX: usize = 10 << 10;

/// What a new claim's status is.
pub fn initial_status() -> Value {
    serde_json::json!({})
}

/// Upstream's defaults of a ResourceClaim.
pub fn default_claim(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        default_claim_spec(spec);
    }
}

/// Upstream's defaults of a ResourceClaimTemplate.
pub fn default_template(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/spec") {
        default_claim_spec(spec);
    }
}

fn default_claim_spec(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    each_mut(devices, "requests", |request| {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        each_mut(request, "firstAvailable", default_request);
    });
}

fn default_request(request: &mut Value) {
    default_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        default_number(request, "count", 1);
    }
    each_mut(request, "tolerations", |toleration| default_text(toleration, "operator", "Equal"));
}

/// Everything wrong with a new DeviceClass.
pub fn validate_class(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    class(object, &mut errors);
    errors
}

/// Everything wrong with a changed DeviceClass.
pub fn validate_class_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    class(new, &mut errors);
    errors
}

fn class(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    selectors(spec, &path, errors);
    configs(spec, &path, errors);
}

fn bounded<'a>(
    object: &'a Value,
    key: &str,
    most: usize,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) -> &'a [Value] {
    let list = items(object, key);
    if list.len() > most {
        errors.push(field::too_many(path.child(key), list.len(), most));
    }
    list
}

fn selectors(object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, selector) in bounded(object, "selectors", SELECTORS_MAX, path, errors).iter().enumerate() {
        let at = path.child("selectors").index(index).child("cel");
        match present(selector, "cel") {
            None => errors.push(field::required(at, "")),
            Some(cel) => check::required(cel, "expression", &at, errors),
        }
    }
}

fn configs(object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, config) in bounded(object, "config", CONFIGS_MAX, path, errors).iter().enumerate() {
        let at = path.child("config").index(index);
        let Some(opaque) = present(config, "opaque") else {
            errors.push(field::required(at, "exactly one field must be set"));
            continue;
        };
        let at = at.child("opaque");
        driver(text(opaque, "driver"), &at.child("driver"), errors);
        match present(opaque, "parameters") {
            None => errors.push(field::required(at.child("parameters"), "")),
            Some(parameters) if parameters.to_string().len() > OPAQUE_BYTES_MAX => {
                errors.push(field::too_long(at.child("parameters"), OPAQUE_BYTES_MAX));
            }
            Some(_) => {}
        }
    }
}

fn driver(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if name.len() > names::LABEL_MAX_LENGTH {
        errors.push(field::too_long(path, names::LABEL_MAX_LENGTH));
    }
    check::required_name(name, names::dns1123_subdomain, path, errors);
}

/// Everything wrong with a new ResourceClaim.
pub fn validate_claim(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    claim_spec(object.get("spec").unwrap_or(&Value::Null), &FieldPath::new("spec"), &mut errors);
    errors
}

/// Everything wrong with a changed ResourceClaim: its spec stays.
pub fn validate_claim_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    object_meta::check_immutable(new.get("spec"), old.get("spec"), &FieldPath::new("spec"), &mut errors);
    errors
}

/// Everything wrong with a new ResourceClaimTemplate.
pub fn validate_template(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    let spec = object.pointer("/spec/spec").unwrap_or(&Value::Null);
    claim_spec(spec, &FieldPath::new("spec").child("spec"), &mut errors);
    errors
}

fn claim_spec(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("devices");
    let none = Value::Null;
    let devices = spec.get("devices").unwrap_or(&none);
    let requests = bounded(devices, "requests", REQUESTS_MAX, &path, errors);
    for (index, request) in requests.iter().enumerate() {
        let (at, name) = (path.child("requests").index(index), text(request, "name"));
        check::required_name(name, names::dns1123_label, &at.child("name"), errors);
        if !name.is_empty() && requests[..index].iter().any(|earlier| text(earlier, "name") == name) {
            errors.push(field::duplicate(at.child("name"), name));
        }
        match (present(request, "exactly"), items(request, "firstAvailable")) {
            (None, []) => {
                let text = "exactly one of `exactly` or `firstAvailable` is required";
                errors.push(field::required(at, text));
            }
            (Some(_), [_, ..]) => {
                let text =
                    "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(field::invalid(at, Value::Null, text));
            }
            (Some(exactly), []) => one_request(exactly, &at.child("exactly"), errors),
            (None, several) => {
                for (number, one) in several.iter().enumerate() {
                    let at = at.child("firstAvailable").index(number);
                    check::required_name(text(one, "name"), names::dns1123_label, &at.child("name"), errors);
                    one_request(one, &at, errors);
                }
            }
        }
    }
    for (index, constraint) in
        bounded(devices, "constraints", CONSTRAINTS_MAX, &path, errors).iter().enumerate()
    {
        let at = path.child("constraints").index(index);
        request_names(constraint, requests, &at, errors);
        if present(constraint, "matchAttribute").is_none()
            && present(constraint, "distinctAttribute").is_none()
        {
            errors.push(field::required(at.child("matchAttribute"), ""));
        }
    }
    for (index, config) in items(devices, "config").iter().enumerate() {
        request_names(config, requests, &path.child("config").index(index), errors);
    }
    configs(devices, &path, errors);
}

fn request_names(object: &Value, requests: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, name) in items(object, "requests").iter().enumerate() {
        let named = name.as_str().unwrap_or_default();
        let first = named.split('/').next().unwrap_or_default();
        if !requests.iter().any(|request| text(request, "name") == first) {
            errors.push(field::invalid(
                path.child("requests").index(index),
                named,
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            ));
        }
    }
}

fn one_request(request: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let class = text(request, "deviceClassName");
    check::required_name(class, names::dns1123_subdomain, &path.child("deviceClassName"), errors);
    selectors(request, path, errors);
    let count = integer(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "ExactCount" if count <= 0 => {
            errors.push(field::invalid(path.child("count"), count, "must be greater than zero"));
        }
        "All" if count != 0 => {
            let text = "must not be specified when allocationMode is 'All'";
            errors.push(field::invalid(path.child("count"), count, text));
        }
        "ExactCount" | "All" => {}
        other => {
            errors.push(field::not_supported(path.child("allocationMode"), other, &["All", "ExactCount"]))
        }
    }
}

/// Everything wrong with a claim's changed status.
pub fn validate_claim_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status");
    let none = Value::Null;
    let (status, before) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let consumers = bounded(status, "reservedFor", RESERVED_FOR_MAX, &path, &mut errors);
    for (index, consumer) in consumers.iter().enumerate() {
        let at = path.child("reservedFor").index(index);
        for name in ["resource", "name", "uid"] {
            check::required(consumer, name, &at, &mut errors);
        }
        let uid = text(consumer, "uid");
        if consumers[..index].iter().any(|earlier| text(earlier, "uid") == uid) {
            errors.push(field::duplicate(at.child("uid"), uid));
        }
    }
    let allocation = present(status, "allocation");
    if !consumers.is_empty() && allocation.is_none() {
        let text = "may not be specified when `allocated` is not set";
        errors.push(field::forbidden(path.child("reservedFor"), text));
    }
    if let (Some(after), Some(earlier)) = (allocation, present(before, "allocation")) {
        let at = path.child("allocation");
        object_meta::check_immutable(Some(after), Some(earlier), &at, &mut errors);
    }
    errors
}

/// Everything wrong with a new ResourceSlice.
pub fn validate_slice(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    slice(object, &mut errors);
    errors
}

fn slice(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    driver(text(spec, "driver"), &path.child("driver"), errors);
    let pool = spec.get("pool").unwrap_or(&none);
    check::required(pool, "name", &path.child("pool"), errors);
    for part in text(pool, "name").split('/').filter(|part| !part.is_empty()) {
        check::name(part, names::dns1123_subdomain, &path.child("pool").child("name"), errors);
    }
    if integer(pool, "resourceSliceCount").unwrap_or(0) <= 0 {
        let count = integer(pool, "resourceSliceCount").unwrap_or(0);
        let at = path.child("pool").child("resourceSliceCount");
        errors.push(field::invalid(at, count, "must be greater than zero"));
    }
    if integer(pool, "generation").is_some_and(|generation| generation < 0) {
        let generation = integer(pool, "generation").unwrap_or(0);
        let at = path.child("pool").child("generation");
        errors.push(field::invalid(at, generation, "must be greater than or equal to zero"));
    }
    let places = [
        !text(spec, "nodeName").is_empty(),
        present(spec, "nodeSelector").is_some(),
        boolean(spec, "allNodes"),
        boolean(spec, "perDeviceNodeSelection"),
    ];
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match places.iter().filter(|place| **place).count() {
        1 => {}
        0 => errors.push(field::required(&path, ONE)),
        _ => errors.push(field::invalid(&path, Value::Null, format!("{ONE}, but multiple fields are set"))),
    }
    if let Some(selector) = present(spec, "nodeSelector") {
        affinity::validate_terms(selector, &path.child("nodeSelector"), errors);
    }
    let devices = bounded(spec, "devices", DEVICES_MAX, &path, errors);
    for (index, device) in devices.iter().enumerate() {
        let (at, name) = (path.child("devices").index(index).child("name"), text(device, "name"));
        check::required_name(name, names::dns1123_label, &at, errors);
        if !name.is_empty() && devices[..index].iter().any(|earlier| text(earlier, "name") == name) {
            errors.push(field::duplicate(at, name));
        }
    }
}

/// Everything wrong with a changed ResourceSlice: driver, pool and node stay.
pub fn validate_slice_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    slice(new, &mut errors);
    for pointer in ["driver", "pool/name", "nodeName"] {
        let of = |object: &Value| object.pointer(&format!("/spec/{pointer}")).cloned();
        let (after, before) = (of(new), of(old));
        let path = format!("spec.{}", pointer.replace('/', "."));
        object_meta::check_immutable(after.as_ref(), before.as_ref(), &FieldPath::new(&path), &mut errors);
    }
    errors
}
