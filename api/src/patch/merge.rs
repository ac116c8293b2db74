//! JSON merge patch (RFC 7386), media type `application/merge-patch+json`.

use serde_json::Value;

use crate::status::ApiError;

/// The object with `patch` merged in: objects merge, null removes, all else replaces. A patch that is no object is 400.
pub fn apply(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("error decoding patch: a merge patch is a JSON object"));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    #[test]
    fn objects_merge_lists_replace_nulls_remove() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patch = json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "l": [3]});
        assert_eq!(apply(&object, &patch), Ok(json!({"a": {"c": 2, "d": {"f": 3}}, "l": [3]})));
        assert!(apply(&object, &json!([])).is_err());
    }

    /// The merge patch that leads from `from` to `to`.
    fn difference(from: &Value, to: &Value) -> Value {
        let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
        let mut patch = Map::new();
        for key in from.keys().filter(|key| !to.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in to {
            match from.get(key) {
                Some(before) if before == value => {}
                Some(before) => {
                    patch.insert(key.clone(), difference(before, value));
                }
                None => {
                    patch.insert(key.clone(), value.clone());
                }
            }
        }
        Value::Object(patch)
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i8>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_difference_of_two_objects_leads_from_one_to_the_other(from in tree(), to in tree()) {
            let (from, to) = (json!({"root": from}), json!({"root": to}));
            prop_assert_eq!(apply(&from, &difference(&from, &to)), Ok(to));
        }

        #[test]
        fn merging_twice_is_merging_once(object in tree(), patch in tree()) {
            let (object, patch) = (json!({"root": object}), json!({"root": patch}));
            let once = apply(&object, &patch).expect("objects");
            prop_assert_eq!(apply(&once, &patch), Ok(once));
        }
    }
}
