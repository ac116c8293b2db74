//! CSIDrivers and CSINodes: what storage drivers can do, and which nodes they run on.

use serde_json::{Value, json};

use super::access::{default_to, integer, items, present, remove, struct_mut, text};
use super::replica_set::not_negative;
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const NODE_ID_BYTES_MAX: usize = 256;

/// Upstream's defaults of a CSIDriver.
pub fn default(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    for (name, value) in [
        ("attachRequired", json!(true)),
        ("podInfoOnMount", json!(false)),
        ("storageCapacity", json!(false)),
        ("requiresRepublish", json!(false)),
        ("seLinuxMount", json!(false)),
        ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
    ] {
        default_to(spec, name, value);
    }
    if items(spec, "volumeLifecycleModes").is_empty() {
        remove(spec, "volumeLifecycleModes");
        default_to(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}

/// Everything wrong with a new CSIDriver.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    spec(object, &mut errors);
    errors
}

fn spec(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let policy = text(spec, "fsGroupPolicy");
    let policies = &["File", "None", "ReadWriteOnceWithFSType"];
    check::one_of(policy, policies, &path.child("fsGroupPolicy"), errors);
    token_requests(spec, &path.child("tokenRequests"), errors);
    for mode in items(spec, "volumeLifecycleModes") {
        let modes = &["Ephemeral", "Persistent"];
        check::one_of(mode.as_str().unwrap_or_default(), modes, &path.child("volumeLifecycleModes"), errors);
    }
    if let Some(period) = integer(spec, "nodeAllocatableUpdatePeriodSeconds")
        && period < 10
    {
        errors.push(field::invalid(
            path.child("nodeAllocatableUpdatePeriodSeconds"),
            period,
            "must be greater than or equal to 10 seconds",
        ));
    }
}

fn token_requests(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let requests = items(spec, "tokenRequests");
    for (index, request) in requests.iter().enumerate() {
        let at = path.index(index);
        let audience = text(request, "audience");
        if requests[..index].iter().any(|earlier| text(earlier, "audience") == audience) {
            errors.push(field::duplicate(at.child("audience"), audience));
            continue;
        }
        let Some(seconds) = integer(request, "expirationSeconds") else { continue };
        if seconds < 600 {
            let text = "may not specify a duration less than 10 minutes";
            errors.push(field::invalid(at.child("expirationSeconds"), seconds, text));
        }
        if seconds > 1 << 32 {
            let text = "may not specify a duration larger than 2^32 seconds";
            errors.push(field::invalid(at.child("expirationSeconds"), seconds, text));
        }
    }
}

/// Everything wrong with a changed CSIDriver.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    spec(new, &mut errors);
    let path = FieldPath::new("spec");
    // Upstream names the first of them so.
    for (name, shown) in
        [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
    {
        let of = |object: &Value| object.get("spec").and_then(|spec| spec.get(name)).cloned();
        let (after, before) = (of(new), of(old));
        object_meta::check_immutable(after.as_ref(), before.as_ref(), &path.child(shown), &mut errors);
    }
    errors
}

/// Everything wrong with a new CSINode.
pub fn validate_node(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    drivers(object, &mut errors);
    errors
}

fn node_drivers(object: &Value) -> &[Value] {
    object.get("spec").map(|spec| items(spec, "drivers")).unwrap_or_default()
}

fn drivers(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec").child("drivers");
    let drivers = node_drivers(object);
    for (index, driver) in drivers.iter().enumerate() {
        let at = path.index(index);
        let name = text(driver, "name");
        driver_name(name, &at.child("name"), errors);
        let id = text(driver, "nodeID");
        if id.is_empty() {
            errors.push(field::required(at.child("nodeID"), ""));
        }
        if id.len() > NODE_ID_BYTES_MAX {
            let text = format!("must be {NODE_ID_BYTES_MAX} characters or less");
            errors.push(field::invalid(at.child("nodeID"), id, text));
        }
        if let Some(allocatable) = present(driver, "allocatable") {
            not_negative(allocatable, "count", &at.child("allocatable"), errors);
        }
        if drivers[..index].iter().any(|earlier| text(earlier, "name") == name) {
            errors.push(field::duplicate(at.child("name"), name));
        }
        let keys = items(driver, "topologyKeys");
        for (number, key) in keys.iter().enumerate() {
            if keys[..number].contains(key) {
                errors.push(field::duplicate(&at, key.clone()));
            }
            check::required_name(key.as_str().unwrap_or_default(), names::qualified_name, &at, errors);
        }
    }
}

/// The name of a CSI driver.
pub fn driver_name(name: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    if name.len() > names::LABEL_MAX_LENGTH {
        errors.push(field::too_long(path, names::LABEL_MAX_LENGTH));
    }
    check::name(&name.to_lowercase(), names::dns1123_subdomain, path, errors);
}

/// Everything wrong with a changed CSINode: a driver that stays on the node does not change, but for how much it can take.
pub fn validate_node_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    drivers(new, &mut errors);
    let without_count = |driver: &Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    for driver in node_drivers(new) {
        let before = node_drivers(old).iter().find(|before| text(before, "name") == text(driver, "name"));
        if let Some(before) = before {
            let (after, before) = (without_count(driver), without_count(before));
            let path = FieldPath::new("spec").child("drivers");
            object_meta::check_immutable(Some(&after), Some(&before), &path, &mut errors);
        }
    }
    errors
}
