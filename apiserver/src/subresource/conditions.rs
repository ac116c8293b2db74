//! Conditions that the server itself sets in an object's status. Pure.

use serde_json::{Value, json};

/// Sets a condition; it keeps the time of its last transition when its status stays the same.
pub fn put(object: &mut Value, mut condition: Value, now: &str) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    condition["lastTransitionTime"] = now.into();
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => {
            if known["status"] == condition["status"] {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}
