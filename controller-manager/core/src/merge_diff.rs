//! The JSON merge patch (RFC 7396) that turns one value into another. Lists are replaced as a whole. Owns nothing else.

use serde_json::{Map, Value};

/// The patch that makes `new` out of `old`; `None` if they are equal. Fields that are gone become `null`.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old_fields), Value::Object(new_fields)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in old_fields.keys().filter(|key| !new_fields.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new_fields {
        match old_fields.get(key) {
            Some(before) => {
                if let Some(change) = merge_diff(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

/// The same for two values of a Kubernetes type. Kubernetes types always serialize; should one not, there is no patch.
pub fn merge_diff_of<T: serde::Serialize>(old: &T, new: &T) -> Option<Value> {
    let old = serde_json::to_value(old).ok()?;
    merge_diff(&old, &serde_json::to_value(new).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn removed_fields_become_null_and_lists_are_replaced() {
        let old = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "l": [1, 2] });
        let new = json!({ "b": { "c": 1, "e": 3 }, "l": [2] });
        assert_eq!(merge_diff(&old, &new), Some(json!({ "a": null, "b": { "d": null, "e": 3 }, "l": [2] })));
        assert_eq!(merge_diff(&old, &old), None);
    }
}
