//! The tables of devices that drivers hand out to pods.

use coracle_api::meta;
use serde_json::Value;

use super::Context;
use super::cells::{age, list, name, text};
use super::columns::{AGE, Column, NAME, text as column};

pub(super) const NAME_AND_AGE: &[Column] = &[NAME, AGE];

/// DeviceClasses and ResourceClaimTemplates.
pub(super) fn name_and_age(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), age(object, context)]
}

pub(super) const RESOURCE_CLAIM: &[Column] = &[NAME, column("State", "What became of the claim"), AGE];

pub(super) fn resource_claim(object: &Value, context: &Context) -> Vec<Value> {
    let deleted = meta::is_being_deleted(object);
    let allocated = meta::get(object, &["status", "allocation"]).is_some_and(Value::is_object);
    let reserved = allocated && !list(object, &["status", "reservedFor"]).is_empty();
    let states: Vec<&str> = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ]
    .into_iter()
    .filter(|(holds, _)| *holds)
    .map(|(_, state)| state)
    .collect();
    vec![name(object), states.join(",").into(), age(object, context)]
}

pub(super) const RESOURCE_SLICE: &[Column] = &[
    NAME,
    column("Node", "The node that has the devices"),
    column("Driver", "The driver that manages them"),
    column("Pool", "The pool that the slice is a part of"),
    AGE,
];

pub(super) fn resource_slice(object: &Value, context: &Context) -> Vec<Value> {
    let spec = &object["spec"];
    let node = match text(spec, &["nodeName"]) {
        "" if spec["allNodes"] == true => "<all>",
        "" if spec["nodeSelector"].is_object() => "<selector>",
        "" => "<unset>",
        node => node,
    };
    vec![
        name(object),
        node.into(),
        text(spec, &["driver"]).into(),
        text(spec, &["pool", "name"]).into(),
        age(object, context),
    ]
}
