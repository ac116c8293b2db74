//! Strategic merge patch, media type `application/strategic-merge-patch+json`: a merge patch that knows which lists
//! merge item by item.
//!
//! Directives: `$patch: replace|delete` in an object or list item, `$setElementOrder/LIST`,
//! `$deleteFromPrimitiveList/LIST`, `$retainKeys`. Source: the API's description of strategic merge patches.

use serde_json::{Map, Value};

use crate::schema::{PatchStrategy, Schema};
use crate::status::ApiError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// The object with `patch` merged in by the rules of its kind. A patch with a malformed directive is 400; an item
/// without its merge key is 422.
pub fn apply(object: &Value, patch: &Value, schema: &Schema) -> Result<Value, ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("error decoding patch: a strategic merge patch is a JSON object"));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    merge_map(original, patch.clone(), schema).map(Value::Object)
}

fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::bad_request(message)
}

/// The shape and strategy of the field `name`. What has no schema merges as a plain merge patch.
fn field_of(schema: &Schema, name: &str) -> (Schema, PatchStrategy) {
    match schema {
        Schema::Struct(object) => object
            .field(name)
            .map_or((Schema::Any, PatchStrategy::default()), |field| (field.schema, field.patch)),
        other => (other.child(name).unwrap_or(Schema::Any), PatchStrategy::default()),
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: &Schema,
) -> Result<Map<String, Value>, ApiError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                let mut replacement = Value::Object(patch);
                drop_directives(&mut replacement);
                Ok(match replacement {
                    Value::Object(map) => map,
                    _ => Map::new(),
                })
            }
            Some("delete") => Ok(Map::new()),
            Some("merge") => merge_map(original, patch, schema),
            _ => Err(malformed(format!("Unknown patch type found: {directive} in map"))),
        };
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(&mut original, &patch, &keys)?;
    }
    let mut orders: Map<String, Value> = Map::new();
    let mut plain: Map<String, Value> = Map::new();
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(SET_ELEMENT_ORDER) {
            if !value.is_array() {
                return Err(malformed(format!("The format of {key} is wrong: it has to be a list")));
            }
            orders.insert(list.to_owned(), value);
        } else if let Some(list) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            let Value::Array(deleted) = value else {
                return Err(malformed(format!("The format of {key} is wrong: it has to be a list")));
            };
            if let Some(Value::Array(items)) = original.get_mut(list) {
                items.retain(|item| !deleted.contains(item));
            }
        } else {
            plain.insert(key, value);
        }
    }
    for (key, value) in plain {
        if value.is_null() {
            original.remove(&key);
            orders.remove(&key);
            continue;
        }
        let (field, strategy) = field_of(schema, &key);
        let before = original.remove(&key);
        let merged = match value {
            Value::Object(patch) => {
                let before = match before {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                Value::Object(merge_map(before, patch, &field)?)
            }
            Value::Array(patch) if strategy.merge => {
                let before = match before {
                    Some(Value::Array(before)) => before,
                    _ => Vec::new(),
                };
                let order = match orders.remove(&key) {
                    Some(Value::Array(order)) => Some(order),
                    _ => None,
                };
                Value::Array(merge_list(before, patch, order, &field.items(), strategy.merge_key)?)
            }
            mut replacement => {
                drop_directives(&mut replacement);
                replacement
            }
        };
        original.insert(key, merged);
    }
    // An order without the list itself only moves what is there.
    for (key, order) in orders {
        let (_, strategy) = field_of(schema, &key);
        if let (Some(Value::Array(items)), Value::Array(order)) = (original.get_mut(&key), order) {
            let before = std::mem::take(items);
            *items = arrange(before.clone(), &before, &order, strategy.merge_key);
        }
    }
    Ok(original)
}

/// Keeps of `original` only what `$retainKeys` lists; the patch may set nothing else.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), ApiError> {
    let Some(keys) = keys.as_array().filter(|keys| keys.iter().all(Value::is_string)) else {
        return Err(malformed("$retainKeys must be a list of field names"));
    };
    let is_kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    if let Some((name, _)) =
        patch.iter().find(|(name, value)| !name.starts_with('$') && !value.is_null() && !is_kept(name))
    {
        return Err(malformed(format!(
            "$retainKeys has to list every field that the patch sets; it lacks \"{name}\""
        )));
    }
    original.retain(|name, _| is_kept(name));
    Ok(())
}

/// Removes directives, and nulls of objects, from what is taken over as it is.
fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !value.is_null() && !key.starts_with('$'));
            map.values_mut().for_each(drop_directives);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_directives),
        _ => {}
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    order: Option<Vec<Value>>,
    items: &Schema,
    merge_key: &str,
) -> Result<Vec<Value>, ApiError> {
    // Without an order of its own the patch's items are in its order.
    let order = order.unwrap_or_else(|| patch.clone());
    if merge_key.is_empty() {
        let mut merged = original.clone();
        for item in patch {
            if item.is_object() || item.is_array() {
                return Err(malformed("a list of scalars cannot be patched with objects or lists"));
            }
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(arrange(merged, &original, &order, merge_key));
    }

    let mut merged = original.clone();
    let mut ordinary = Vec::new();
    let mut replaces = false;
    for item in patch {
        let Value::Object(item) = item else {
            return Err(malformed(format!("items of a list with merge key {merge_key} have to be objects")));
        };
        match item.get(PATCH) {
            None => ordinary.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let identity = identity_of(&item, merge_key)?;
                    merged.retain(|other| other.get(merge_key) != Some(&identity));
                }
                Some("replace") => {
                    // Alone it empties the list; with fields of its own it also stands for one item of the new list.
                    replaces = true;
                    if item.len() > 1 {
                        ordinary.push(item.into_iter().filter(|(key, _)| key != PATCH).collect());
                    }
                }
                Some("merge") => {
                    return Err(malformed("merging lists cannot yet be specified in the patch"));
                }
                _ => return Err(malformed(format!("Unknown patch type found: {directive} in list"))),
            },
        }
    }
    if replaces {
        let mut replacement = Value::Array(ordinary.into_iter().map(Value::Object).collect());
        drop_directives(&mut replacement);
        return Ok(match replacement {
            Value::Array(list) => list,
            _ => Vec::new(),
        });
    }
    for item in ordinary {
        let identity = identity_of(&item, merge_key)?;
        match merged.iter_mut().find(|other| other.get(merge_key) == Some(&identity)) {
            Some(Value::Object(known)) => *known = merge_map(std::mem::take(known), item, items)?,
            _ => merged.push(Value::Object(merge_map(Map::new(), item, items)?)),
        }
    }
    Ok(arrange(merged, &original, &order, merge_key))
}

fn identity_of(item: &Map<String, Value>, merge_key: &str) -> Result<Value, ApiError> {
    item.get(merge_key).cloned().ok_or_else(|| {
        ApiError::new(
            422,
            "Invalid",
            format!("map: {} does not contain declared merge key: {merge_key}", Value::Object(item.clone())),
        )
    })
}

/// Puts items into the order wanted: that of `$setElementOrder`, or of the patch's own items. Items that it does not list keep their order among
/// themselves and stay before the listed ones that they were before.
fn arrange(merged: Vec<Value>, original: &[Value], order: &[Value], merge_key: &str) -> Vec<Value> {
    let same = |one: &Value, other: &Value| {
        if merge_key.is_empty() { one == other } else { one.get(merge_key) == other.get(merge_key) }
    };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut listed, unlisted): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    listed.sort_by_key(|item| place(order, item));

    let mut arranged = Vec::with_capacity(listed.len() + unlisted.len());
    let mut listed = listed.into_iter().peekable();
    for item in unlisted {
        let own_place = place(original, &item);
        while let Some(next) = listed.next_if(|next| match (own_place, place(original, next)) {
            (Some(own), Some(other)) => other < own,
            _ => true,
        }) {
            arranged.push(next);
        }
        arranged.push(item);
    }
    arranged.extend(listed);
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::of_kind;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(kind: (&str, &str), object: Value, patch: Value) -> Value {
        apply(&object, &patch, of_kind(kind.0, "v1", kind.1).expect("a kind")).expect("a patch that applies")
    }

    fn pod(object: Value, patch: Value) -> Value {
        patched(("", "Pod"), object, patch)
    }

    #[test]
    fn keyed_lists_merge_and_others_replace() {
        let object = json!({"spec": {
            "containers": [{"name": "a", "image": "x:1", "args": ["1", "2"]}, {"name": "b"}],
            "tolerations": [{"key": "k"}], "nodeName": "n"}});
        let patch = json!({"spec": {
            "containers": [{"name": "a", "image": "x:2", "args": ["3"]}, {"name": "c", "image": null}],
            "tolerations": [{"key": "l"}], "nodeName": null}});
        assert_eq!(
            pod(object, patch),
            json!({"spec": {
                "containers": [{"name": "a", "image": "x:2", "args": ["3"]}, {"name": "c"}, {"name": "b"}],
                "tolerations": [{"key": "l"}]}})
        );
    }

    #[test]
    fn items_are_deleted_and_lists_replaced_by_directive() {
        let object = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            pod(
                object.clone(),
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]}})
            ),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "b"}]}})
        );
        assert_eq!(
            pod(object.clone(), json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}})),
            json!({"spec": {"containers": [{"name": "c"}]}})
        );
        assert_eq!(
            pod(object.clone(), json!({"spec": {"$patch": "replace", "nodeName": "n"}})),
            json!({"spec": {"nodeName": "n"}})
        );
        assert_eq!(pod(object, json!({"spec": {"$patch": "delete"}})), json!({"spec": {}}));
    }

    #[test]
    fn element_order_is_set_and_unlisted_items_stay_in_place() {
        let object = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "x"}]}});
        assert_eq!(
            pod(object.clone(), patch),
            json!({"spec": {"containers": [{"name": "b"}, {"name": "c"}, {"name": "a", "image": "x"}]}})
        );
        let order_only =
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}});
        assert_eq!(
            pod(object, order_only),
            json!({"spec": {"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}})
        );
    }

    #[test]
    fn primitive_lists_merge_and_delete() {
        let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["d", "a", "c"],
            "finalizers": ["d", "a"]}});
        assert_eq!(pod(object, patch), json!({"metadata": {"finalizers": ["d", "a", "c"]}}));
    }

    #[test]
    fn retained_keys_drop_the_rest() {
        let object =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            patched(("apps", "Deployment"), object, patch),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
        let volumes = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let change = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}});
        assert_eq!(
            pod(volumes, change),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})
        );
    }

    #[test]
    fn service_ports_merge_by_port_only() {
        let object = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}});
        assert_eq!(
            patched(("", "Service"), object, json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}})),
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000, "targetPort": 8080}]}})
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let schema = of_kind("", "v1", "Pod").expect("pods");
        for (patch, code) in [
            (json!([]), 400),
            (json!({"$patch": "frobnicate"}), 400),
            (json!({"spec": {"containers": [{"image": "x"}]}}), 422),
            (json!({"spec": {"containers": ["x"]}}), 400),
            (json!({"spec": {"$setElementOrder/containers": 1}}), 400),
            (json!({"spec": {"$retainKeys": ["a"], "nodeName": "b"}}), 400),
        ] {
            assert_eq!(apply(&json!({}), &patch, schema).map_err(|error| error.code()), Err(code), "{patch}");
        }
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::btree_set("[a-f]", 0..6).prop_map(|set| set.into_iter().collect()).prop_shuffle()
    }

    fn containers(names: &[String], image: &str) -> Vec<Value> {
        names.iter().map(|name| json!({"name": name, "image": image})).collect()
    }

    proptest! {
        /// The patch that kubectl makes - changed items, deletions and the wanted order - gives the wanted list.
        #[test]
        fn order_deletions_and_changes_give_the_target(from in names(), to in names()) {
            let mut items = containers(&to, "new");
            items.extend(
                from.iter().filter(|name| !to.contains(name)).map(|name| json!({"name": name, "$patch": "delete"})),
            );
            let order: Vec<Value> = to.iter().map(|name| json!({"name": name})).collect();
            let object = json!({"spec": {"containers": containers(&from, "old")}});
            let patch = json!({"spec": {"containers": items, "$setElementOrder/containers": order}});
            prop_assert_eq!(pod(object, patch), json!({"spec": {"containers": containers(&to, "new")}}));
        }

        #[test]
        fn patching_twice_is_patching_once(from in names(), to in names()) {
            let object = json!({"spec": {"containers": containers(&from, "old")}});
            let patch = json!({"spec": {"containers": containers(&to, "new")}});
            let once = pod(object, patch.clone());
            prop_assert_eq!(pod(once.clone(), patch), once);
        }
    }
}
