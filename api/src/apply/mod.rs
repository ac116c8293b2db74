//! Server-side apply: who owns which field, and what an applied configuration changes.
//!
//! Two entry points: [`apply`] for PATCH with an apply media type, [`track_update`] for all other writes. Both take the
//! live object and give the new one with its `metadata.managedFields`. Defaulting and validation come after.

mod managers;
mod overlay;
mod set;
mod typed;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::schema::Schema;
use crate::status::ApiError;
pub use managers::Operation;
use managers::{Entry, Identity, Managers};
pub use overlay::overlay;
pub use set::FieldSet;
use typed::Comparison;

/// The annotation in which client-side apply keeps what it applied last.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager of fields that were there before anyone was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose conflicts with its own client-side apply are settled here.
const KUBECTL: &str = "kubectl";

/// Fields that nobody owns, as paths of field names.
const UNOWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Takes out what is never owned, and what a write to this (sub)resource cannot change.
fn owned_only(mut fields: FieldSet, subresource: &str) -> FieldSet {
    static NOBODYS: LazyLock<FieldSet> = LazyLock::new(|| {
        let mut unowned = FieldSet::default();
        for path in UNOWNED {
            let elements: Vec<String> = path.iter().map(|name| format!("f:{name}")).collect();
            unowned.insert(elements.iter().map(String::as_str));
        }
        unowned
    });
    fields.remove_below(&["f:metadata", "f:managedFields"]);
    fields.remove_below(&[if subresource == "status" { "f:spec" } else { "f:status" }]);
    fields.difference(&NOBODYS)
}

/// A copy without `metadata.managedFields`.
fn without_managed_fields(object: &Value) -> Value {
    let mut copy = object.clone();
    meta::remove(&mut copy, "managedFields");
    copy
}

fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// Applies `applied` for `manager` to the live object, or makes a new one of it.
///
/// Fields that the manager applied before and no longer does are removed unless someone else owns them. A field that
/// another manager owns and that would change is a conflict (409 with one cause a field) unless `force` is set, which
/// takes the field over. An unknown field, or list items that cannot be told apart, are 400. When nothing changes, the
/// result equals the live object, times included.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
    schema: &Schema,
    now: Timestamp,
) -> Result<Value, ApiError> {
    if !managers::list_of(applied).is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let mut applied = without_managed_fields(applied);
    let stored = live.cloned().unwrap_or_else(|| json!({}));
    if manager == KUBECTL && last_applied(&stored).is_some() {
        // Keep the record of client-side apply current, so that the user can go back to it.
        refresh_last_applied(&mut applied);
    }
    match apply_once(&stored, &applied, manager, subresource, force, schema, now) {
        Err(Failure::Conflicts(conflicts)) => {
            let allowed =
                manager == KUBECTL && conflicts_are_with_own_last_applied(&stored, &conflicts, schema);
            if allowed
                && let Ok(object) = apply_once(&stored, &applied, manager, subresource, true, schema, now)
            {
                return Ok(object);
            }
            Err(conflict_error(&conflicts))
        }
        Err(Failure::Malformed(problem)) => Err(ApiError::bad_request(format!(
            "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {problem}",
            meta::namespace(&applied),
            meta::name(&applied),
            meta::split_api_version(api_version(&applied)).0,
            meta::split_api_version(api_version(&applied)).1,
            applied.get("kind").and_then(Value::as_str).unwrap_or_default(),
        ))),
        Ok(object) => Ok(object),
    }
}

/// Why an apply did not go through.
enum Failure {
    Conflicts(Vec<(Identity, FieldSet)>),
    Malformed(String),
}

fn apply_once(
    stored: &Value,
    applied: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
    schema: &Schema,
    now: Timestamp,
) -> Result<Value, Failure> {
    let live = without_managed_fields(stored);
    let mut managers = Managers::decode(managers::list_of(stored)).unwrap_or_default();
    let is_new = live.get("metadata").is_none();
    if !is_new && managers.0.is_empty() {
        let everything = typed::compare(&json!({}), &live, schema).added;
        let identity = Identity {
            operation: Operation::Update,
            manager: BEFORE_FIRST_APPLY.to_owned(),
            api_version: api_version(&live).to_owned(),
            subresource: String::new(),
        };
        *managers.entry(identity, &meta::format_time(now)) = owned_only(everything, "");
    }
    let managers_before = managers.clone();
    let identity = Identity {
        operation: Operation::Apply,
        manager: manager.to_owned(),
        api_version: api_version(applied).to_owned(),
        subresource: subresource.to_owned(),
    };
    let fields = owned_only(typed::to_set(applied, schema).map_err(Failure::Malformed)?, subresource);
    let last = managers.get(&identity).cloned().unwrap_or_default();
    *managers.entry(identity.clone(), &meta::format_time(now)) = fields;

    let merged = typed::merge(live.clone(), applied, schema);
    let managed = managers
        .0
        .iter()
        .fold(FieldSet::default(), |all, entry| all.union(entry.fields.clone()))
        .with_named_parents();
    let abandoned = last.difference(&managed);
    let mut object = typed::remove(merged, schema, &abandoned, &managed).unwrap_or_else(|| json!({}));

    let comparison = typed::compare(&live, &object, schema);
    take_over(&mut managers, Some(&identity), &comparison, force).map_err(Failure::Conflicts)?;
    if comparison.is_empty() && same_owners(&managers, &managers_before) {
        return Ok(stored.clone());
    }
    managers.touch(&identity, now);
    managers.encode(&mut object);
    Ok(object)
}

fn same_owners(one: &Managers, other: &Managers) -> bool {
    let count = |managers: &Managers| managers.0.iter().filter(|entry| !entry.fields.is_empty()).count();
    count(one) == count(other)
        && one.0.iter().all(|entry| {
            entry.fields.is_empty()
                || other.get(&entry.identity).is_some_and(|fields| *fields == entry.fields)
        })
}

/// Takes changed and removed fields from everyone but `own`; without `force`, changed fields of others are conflicts.
fn take_over(
    managers: &mut Managers,
    own: Option<&Identity>,
    comparison: &Comparison,
    force: bool,
) -> Result<(), Vec<(Identity, FieldSet)>> {
    let others = managers.0.iter().any(|entry| Some(&entry.identity) != own);
    if others && !force {
        let changed = comparison.modified.clone().union(comparison.added.clone());
        let conflicts: Vec<(Identity, FieldSet)> = managers
            .0
            .iter()
            .filter(|entry| Some(&entry.identity) != own)
            .map(|entry| (entry.identity.clone(), entry.fields.clone().intersection(&changed)))
            .filter(|(_, fields)| !fields.is_empty())
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    for Entry { fields, .. } in managers.0.iter_mut().filter(|entry| Some(&entry.identity) != own) {
        let Comparison { added, removed, modified } = comparison;
        *fields = std::mem::take(fields).difference(added).difference(modified).difference(removed);
    }
    managers.drop_empty();
    Ok(())
}

fn conflict_error(conflicts: &[(Identity, FieldSet)]) -> ApiError {
    let mut sorted: Vec<&(Identity, FieldSet)> = conflicts.iter().collect();
    sorted.sort_by_key(|(identity, _)| identity.describe());
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    let mut single = String::new();
    for (identity, fields) in sorted {
        let manager = identity.describe();
        lines.push(format!("conflicts with {manager}:"));
        for path in fields.paths() {
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {manager}"),
                "field": path,
            }));
            single = format!("conflict with {manager}: {path}");
            lines.push(format!("- {path}"));
        }
    }
    let message = match causes.len() {
        1 => format!("Apply failed with 1 conflict: {single}"),
        count => format!("Apply failed with {count} conflicts: {}", lines.join("\n")),
    };
    ApiError::apply_conflict(message, causes)
}

/// What client-side apply recorded in the object.
fn last_applied(object: &Value) -> Option<&str> {
    meta::annotations(object)?.get(LAST_APPLIED_ANNOTATION)?.as_str()
}

/// Records the applied configuration itself in its annotation.
fn refresh_last_applied(applied: &mut Value) {
    let mut record = applied.clone();
    if let Some(annotations) = record.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    let annotations = meta::metadata_mut(applied).entry("annotations").or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(LAST_APPLIED_ANNOTATION.to_owned(), record.to_string().into());
    }
}

/// Whether each field in conflict has the value that the user's own client-side apply gave it.
fn conflicts_are_with_own_last_applied(
    live: &Value,
    conflicts: &[(Identity, FieldSet)],
    schema: &Schema,
) -> bool {
    let record = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(record) = record.filter(|record| api_version(record) == api_version(live)) else { return false };
    let Ok(recorded) = typed::to_set(&record, schema) else { return false };
    // Laid over the live object, the record changes those fields that have since been given other values.
    let changed_since = typed::compare(live, &typed::merge(live.clone(), &record, schema), schema);
    let allowed = recorded.difference(&changed_since.modified.union(changed_since.added));
    let annotation =
        ["f:metadata", "f:annotations", &format!("f:{LAST_APPLIED_ANNOTATION}")].map(str::to_owned);
    let mut allowed = allowed;
    allowed.insert(annotation.iter().map(String::as_str));
    conflicts.iter().all(|(_, fields)| fields.clone().difference(&allowed).is_empty())
}

/// The new object of a create, update or patch, with the fields that it changed owned by `manager`.
///
/// `new` may carry its own `managedFields`: a non-empty list replaces the live one (so that managers can be edited),
/// `[{}]` forgets all of them. On a subresource the list is always the live one.
pub fn track_update(
    live: Option<&Value>,
    mut new: Value,
    manager: &str,
    operation: Operation,
    subresource: &str,
    schema: &Schema,
    now: Timestamp,
) -> Value {
    let given = managers::list_of(&new);
    let stored = live.map(managers::list_of).unwrap_or_default();
    let uses_given = subresource.is_empty() && (!given.is_empty() && given != stored);
    let decoded = if uses_given { Managers::decode(given) } else { Managers::decode(stored) };
    let mut managers = decoded.or_else(|_| Managers::decode(stored)).unwrap_or_default();
    meta::remove(&mut new, "managedFields");

    let before = live.map_or_else(|| json!({}), without_managed_fields);
    let comparison = typed::compare(&before, &new, schema);
    let nothing_conflicts = take_over(&mut managers, None, &comparison, true);
    debug_assert!(nothing_conflicts.is_ok(), "a forced change has no conflicts");
    let taken = owned_only(comparison.modified.union(comparison.added), subresource);
    if !taken.is_empty() {
        let identity = Identity {
            operation,
            manager: manager.to_owned(),
            api_version: api_version(&new).to_owned(),
            subresource: subresource.to_owned(),
        };
        let fields = managers.entry(identity.clone(), "");
        *fields = std::mem::take(fields).union(taken);
        managers.touch(&identity, now);
        managers.cap();
    }
    managers.encode(&mut new);
    new
}

#[cfg(test)]
mod tests;
