//! Walks objects by their schema for server-side apply: which fields one sets, how two differ, how two merge, what is
//! left when fields are taken out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{FieldSet, Node, key_element, push_element, value_element};
use crate::schema::{ListType, Schema, list_key_default};

/// The path element of a list item; `Err` names the key that it lacks.
fn item_element(item: &Value, list_type: ListType) -> Result<String, &'static str> {
    let ListType::Map(keys) = list_type else { return Ok(value_element(item)) };
    let mut values = BTreeMap::new();
    for key in keys {
        let value = match item.get(*key) {
            Some(value) => value.clone(),
            None => list_key_default(key).map(Value::from).ok_or(*key)?,
        };
        values.insert(*key, value);
    }
    Ok(key_element(values))
}

/// As [`item_element`], for objects that are already stored: a missing key counts as null.
fn stored_item_element(item: &Value, list_type: ListType) -> String {
    item_element(item, list_type).unwrap_or_else(|_| {
        let ListType::Map(keys) = list_type else { return value_element(item) };
        key_element(keys.iter().map(|key| (*key, item.get(*key).cloned().unwrap_or(Value::Null))).collect())
    })
}

fn field_element(name: &str) -> String {
    format!("f:{name}")
}

/// The fields that `object` sets. The error names a field that its kind does not have, or a list whose items cannot be
/// told apart, with its path.
pub(super) fn to_set(object: &Value, schema: &Schema) -> Result<FieldSet, String> {
    let mut root = Node::default();
    fill(object, schema, &mut root, &mut String::new())?;
    Ok(root.children)
}

fn fill(value: &Value, schema: &Schema, node: &mut Node, path: &mut String) -> Result<(), String> {
    let length = path.len();
    match (schema, value) {
        (_, Value::Object(fields)) if !schema.is_atomic() => {
            for (name, field) in fields {
                let element = field_element(name);
                push_element(path, &element);
                let child_schema =
                    schema.child(name).ok_or_else(|| format!("{path}: field not declared in schema"))?;
                let mut child = Node::default();
                fill(field, &child_schema, &mut child, path)?;
                let is_empty = field.as_object().is_some_and(Map::is_empty);
                child.member |= is_empty || field.is_null() || !matches!(schema, Schema::Struct(_));
                if child.member || !child.children.is_empty() {
                    node.children.put(element, child);
                }
                path.truncate(length);
            }
        }
        (Schema::List { items, list_type }, Value::Array(list)) if *list_type != ListType::Atomic => {
            for (index, item) in list.iter().enumerate() {
                let element = item_element(item, *list_type).map_err(|key| {
                    format!(
                        "{path}: element {index}: associative list with keys has an element that omits key field \"{key}\""
                    )
                })?;
                let mut child = Node { member: true, ..Node::default() };
                let before = path.len();
                push_element(path, &element);
                fill(item, items, &mut child, path)?;
                if node.children.get(&element).is_some() {
                    let key = path[before..].to_owned();
                    path.truncate(before);
                    return Err(format!("{path}: duplicate entries for key {key}"));
                }
                node.children.put(element, child);
                path.truncate(length);
            }
        }
        (_, Value::Null) => {}
        _ => node.member = true,
    }
    Ok(())
}

/// How two objects differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Only in the second.
    pub(super) added: FieldSet,
    /// Only in the first.
    pub(super) removed: FieldSet,
    /// In both, with different values.
    pub(super) modified: FieldSet,
}

impl Comparison {
    /// Whether the objects are equal in all fields.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }
}

/// Fields that are part of their parent's value even when nothing is set in them, so that nobody comes to own them
/// as such.
const INLINE_FIELDS: &[&str] = &["metadata", "spec", "status", "strategy", "template"];

/// Compares two objects of one kind.
pub(super) fn compare(before: &Value, after: &Value, schema: &Schema) -> Comparison {
    let mut walker = Walker { path: Vec::new(), comparison: Comparison::default() };
    walker.walk(Some(before), Some(after), schema);
    walker.comparison
}

struct Walker {
    path: Vec<String>,
    comparison: Comparison,
}

impl Walker {
    fn record(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let set = match (before, after) {
            (None, Some(_)) => &mut self.comparison.added,
            (Some(_), None) => &mut self.comparison.removed,
            (Some(before), Some(after)) if before != after => &mut self.comparison.modified,
            _ => return,
        };
        set.insert(self.path.iter().map(String::as_str));
    }

    fn walk(&mut self, before: Option<&Value>, after: Option<&Value>, schema: &Schema) {
        if before == after {
            return;
        }
        let is_empty = |value: Option<&Value>| match value {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if schema.is_atomic() || (is_empty(before) && is_empty(after)) {
            return self.record(before, after);
        }
        let descended = match (before, after) {
            (Some(Value::Object(_)) | None | Some(Value::Null), Some(Value::Object(_)))
            | (Some(Value::Object(_)), None | Some(Value::Null)) => {
                self.walk_fields(before.and_then(Value::as_object), after.and_then(Value::as_object), schema);
                true
            }
            (Some(Value::Array(_)) | None | Some(Value::Null), Some(Value::Array(_)))
            | (Some(Value::Array(_)), None | Some(Value::Null)) => match schema {
                Schema::List { items, list_type } => {
                    self.walk_items(
                        before.and_then(Value::as_array),
                        after.and_then(Value::as_array),
                        items,
                        *list_type,
                    );
                    true
                }
                _ => false,
            },
            _ => false,
        };
        if !descended {
            return self.record(before, after);
        }
        let is_inline = self
            .path
            .last()
            .and_then(|element| element.strip_prefix("f:"))
            .is_some_and(|name| INLINE_FIELDS.contains(&name));
        if (before.is_none() || after.is_none()) && !is_inline {
            self.record(before, after);
        }
    }

    fn walk_fields(
        &mut self,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
        schema: &Schema,
    ) {
        let only_before = before
            .into_iter()
            .flat_map(Map::keys)
            .filter(|name| !after.is_some_and(|after| after.contains_key(*name)));
        for name in after.into_iter().flat_map(Map::keys).chain(only_before) {
            let old = before.and_then(|map| map.get(name));
            let new = after.and_then(|map| map.get(name));
            if old == new {
                continue;
            }
            let child = schema.child(name).unwrap_or(Schema::Any);
            self.path.push(field_element(name));
            self.walk(old, new, &child);
            self.path.pop();
        }
    }

    fn walk_items(
        &mut self,
        before: Option<&Vec<Value>>,
        after: Option<&Vec<Value>>,
        items: &Schema,
        list_type: ListType,
    ) {
        fn grouped(list: Option<&Vec<Value>>, list_type: ListType) -> BTreeMap<String, Vec<&Value>> {
            let mut groups: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
            for item in list.into_iter().flatten() {
                groups.entry(stored_item_element(item, list_type)).or_default().push(item);
            }
            groups
        }
        let (old, new) = (grouped(before, list_type), grouped(after, list_type));
        let only_old = old.keys().filter(|element| !new.contains_key(*element));
        for element in new.keys().chain(only_old) {
            let ours = old.get(element).map_or(&[][..], Vec::as_slice);
            let theirs = new.get(element).map_or(&[][..], Vec::as_slice);
            self.path.push(element.clone());
            match (ours, theirs) {
                ([] | [_], [] | [_]) => {
                    self.walk(ours.first().copied(), theirs.first().copied(), items);
                }
                // Items that share their key count as one value.
                _ if ours != theirs => {
                    let bundle = |list: &[&Value]| {
                        (!list.is_empty())
                            .then(|| Value::Array(list.iter().map(|item| (*item).clone()).collect()))
                    };
                    self.record(bundle(ours).as_ref(), bundle(theirs).as_ref());
                }
                _ => {}
            }
            self.path.pop();
        }
    }
}

/// The live object with the applied one laid over it.
pub(super) fn merge(live: Value, applied: &Value, schema: &Schema) -> Value {
    if schema.is_atomic() {
        return applied.clone();
    }
    match (live, applied) {
        (Value::Object(mut live), Value::Object(applied)) => {
            for (name, value) in applied {
                let merged = match (live.remove(name), schema.child(name)) {
                    (Some(before), Some(child)) => merge(before, value, &child),
                    _ => value.clone(),
                };
                live.insert(name.clone(), merged);
            }
            Value::Object(live)
        }
        (Value::Array(live), Value::Array(applied)) => match schema {
            Schema::List { items, list_type } => Value::Array(merge_items(live, applied, items, *list_type)),
            _ => Value::Array(applied.clone()),
        },
        _ => applied.clone(),
    }
}

/// Merges lists with keys: the applied order rules, and items that only the live list has stay before the shared item
/// that they were before.
fn merge_items(live: Vec<Value>, applied: &[Value], items: &Schema, list_type: ListType) -> Vec<Value> {
    let applied_elements: Vec<String> =
        applied.iter().map(|item| stored_item_element(item, list_type)).collect();
    let mut live: Vec<(String, Option<Value>)> =
        live.into_iter().map(|item| (stored_item_element(&item, list_type), Some(item))).collect();
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let mut next_live = 0;
    for (element, item) in applied_elements.iter().zip(applied) {
        let shared = live.iter().position(|(other, _)| other == element);
        // Live-only items come out as soon as they are next.
        while let Some((other, slot)) = live.get_mut(next_live) {
            if slot.is_some() && applied_elements.contains(other) {
                break;
            }
            merged.extend(slot.take());
            next_live += 1;
        }
        let before = shared.and_then(|index| live[index].1.take());
        merged.push(before.map_or_else(|| item.clone(), |before| merge(before, item, items)));
    }
    merged.extend(live.into_iter().skip(next_live).filter_map(|(_, item)| item));
    merged
}

/// The value without the members of `removed`; `None` when taking them out left nothing. What is emptied but is itself
/// in `kept` stays, empty.
pub(super) fn remove(value: Value, schema: &Schema, removed: &FieldSet, kept: &FieldSet) -> Option<Value> {
    if schema.is_atomic() || removed.is_empty() {
        return Some(value);
    }
    let nobody = FieldSet::default();
    let without = |value: Value, schema: &Schema, element: &str| -> Option<Value> {
        let Some(node) = removed.get(element) else { return Some(value) };
        if node.member {
            return None;
        }
        let kept_node = kept.get(element);
        let emptied = if value.is_array() { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        remove(value, schema, &node.children, kept_node.map_or(&nobody, |node| &node.children))
            .or_else(|| kept_node.is_some_and(|node| node.member).then_some(emptied))
    };
    match value {
        Value::Object(fields) => {
            let rest: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(name, field)| {
                    let child = schema.child(&name).unwrap_or(Schema::Any);
                    let field = without(field, &child, &field_element(&name))?;
                    Some((name, field))
                })
                .collect();
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        Value::Array(list) => {
            let Schema::List { items, list_type } = schema else { return Some(Value::Array(list)) };
            let rest: Vec<Value> = list
                .into_iter()
                .filter_map(|item| {
                    let element = stored_item_element(&item, *list_type);
                    without(item, items, &element)
                })
                .collect();
            (!rest.is_empty()).then_some(Value::Array(rest))
        }
        other => Some(other),
    }
}
