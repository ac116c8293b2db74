//! `metadata.managedFields`: who owns which fields, decoded from the object and encoded back.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::FieldSet;
use crate::meta;

/// The most entries of `Update` managers; the oldest are joined into one beyond that.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that owns what joined entries owned.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager came by its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns fields: two entries with the same identity are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) operation: Operation,
    pub(super) manager: String,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Identity {
    /// The manager as conflict messages name it.
    pub(super) fn describe(&self) -> String {
        let mut text = crate::field::go_quote(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", crate::field::go_quote(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) Vec<Entry>);

/// The list in `metadata.managedFields`.
pub(super) fn list_of(object: &Value) -> &[Value] {
    meta::get(object, &["metadata", "managedFields"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether the list is `[{}]`, the wish to forget all managers.
pub(super) fn is_reset(list: &[Value]) -> bool {
    matches!(list, [Value::Object(entry)] if entry.is_empty())
}

impl Managers {
    /// Reads a list of entries; the error says which is malformed.
    pub(super) fn decode(list: &[Value]) -> Result<Managers, String> {
        if is_reset(list) {
            return Ok(Managers::default());
        }
        let mut managers = Managers::default();
        for entry in list {
            let text = |key| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                other => return Err(format!("managedFields entry has operation {other:?}")),
            };
            if !matches!(text("fieldsType"), "FieldsV1") {
                return Err("managedFields entry has no fieldsType FieldsV1".to_owned());
            }
            let fields = match entry.get("fieldsV1") {
                Some(fields) if !fields.is_null() => FieldSet::from_fields_v1(fields)?,
                _ => FieldSet::default(),
            };
            let identity = Identity {
                operation,
                manager: text("manager").to_owned(),
                api_version: text("apiVersion").to_owned(),
                subresource: text("subresource").to_owned(),
            };
            *managers.entry(identity, text("time")) = fields;
        }
        Ok(managers)
    }

    /// The fields of `identity`; a new entry has `time`.
    pub(super) fn entry(&mut self, identity: Identity, time: &str) -> &mut FieldSet {
        let index = match self.0.iter().position(|entry| entry.identity == identity) {
            Some(index) => index,
            None => {
                self.0.push(Entry { identity, time: time.to_owned(), fields: FieldSet::default() });
                self.0.len() - 1
            }
        };
        &mut self.0[index].fields
    }

    /// The fields of `identity`, when it has an entry.
    pub(super) fn get(&self, identity: &Identity) -> Option<&FieldSet> {
        self.0.iter().find(|entry| entry.identity == *identity).map(|entry| &entry.fields)
    }

    /// Sets the time of the entry of `identity`.
    pub(super) fn touch(&mut self, identity: &Identity, now: Timestamp) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.identity == *identity) {
            entry.time = meta::format_time(now);
        }
    }

    /// Drops entries that own nothing.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Joins the oldest `Update` entries of each version until there are few enough.
    pub(super) fn cap(&mut self) {
        self.sort();
        let updates = |entry: &Entry| entry.identity.operation == Operation::Update;
        let mut excess =
            self.0.iter().filter(|entry| updates(entry)).count().saturating_sub(UPDATE_MANAGERS_MAX);
        if excess == 0 {
            return;
        }
        excess += 1; // The joined entry takes a place itself.
        let mut kept = Vec::with_capacity(self.0.len());
        let mut joined = Managers::default();
        for entry in std::mem::take(&mut self.0) {
            if excess == 0 || !updates(&entry) {
                kept.push(entry);
                continue;
            }
            excess -= 1;
            let identity = Identity {
                operation: Operation::Update,
                manager: ANCIENT_CHANGES.to_owned(),
                api_version: entry.identity.api_version.clone(),
                subresource: String::new(),
            };
            let fields = joined.entry(identity, &entry.time);
            *fields = std::mem::take(fields).union(entry.fields);
            if let Some(last) = joined.0.last_mut() {
                last.time = entry.time;
            }
        }
        self.0 = kept;
        self.0.append(&mut joined.0);
    }

    fn sort(&mut self) {
        self.0.sort_by(|one, other| {
            (one.identity.operation, &one.time, &one.identity).cmp(&(
                other.identity.operation,
                &other.time,
                &other.identity,
            ))
        });
    }

    /// Writes the entries into the object; none of them removes the field.
    pub(super) fn encode(mut self, object: &mut Value) {
        self.drop_empty();
        if self.0.is_empty() {
            meta::remove(object, "managedFields");
            return;
        }
        self.sort();
        let list = self
            .0
            .iter()
            .map(|entry| {
                let mut map = Map::new();
                map.insert("manager".into(), entry.identity.manager.as_str().into());
                map.insert("operation".into(), entry.identity.operation.as_str().into());
                map.insert("apiVersion".into(), entry.identity.api_version.as_str().into());
                if !entry.time.is_empty() {
                    map.insert("time".into(), entry.time.as_str().into());
                }
                map.insert("fieldsType".into(), "FieldsV1".into());
                map.insert("fieldsV1".into(), entry.fields.to_fields_v1());
                if !entry.identity.subresource.is_empty() {
                    map.insert("subresource".into(), entry.identity.subresource.as_str().into());
                }
                Value::Object(map)
            })
            .collect();
        meta::set(object, "managedFields", Value::Array(list));
    }
}
