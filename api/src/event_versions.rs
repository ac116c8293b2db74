//! Events in their two versions: `v1` and `events.k8s.io/v1` show the same stored object under different field names.
//!
//! Only renames fields. What an event has to contain is [`crate::kinds`]' matter.

use serde_json::Value;

/// Field names that differ: in `v1`, in `events.k8s.io/v1`.
const RENAMED: &[(&str, &str)] = &[
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

/// Renames the fields of `event` and sets its `apiVersion`. Its `managedFields` stay: each entry names its own version.
fn renamed<'a>(
    mut event: Value,
    api_version: &str,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Value {
    if let Value::Object(fields) = &mut event {
        for (from, to) in names {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
        fields.insert("apiVersion".to_owned(), api_version.into());
    }
    event
}

/// An `events.k8s.io/v1` event as a `v1` one.
pub fn to_core(event: Value) -> Value {
    renamed(event, "v1", RENAMED.iter().map(|(core, new)| (*new, *core)))
}

/// A `v1` event as an `events.k8s.io/v1` one.
pub fn to_events(event: Value) -> Value {
    renamed(event, "events.k8s.io/v1", RENAMED.iter().map(|(core, new)| (*core, *new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Schema, of_kind};
    use serde_json::json;

    #[test]
    fn fields_are_renamed_both_ways() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "source": {"component": "kubelet"}, "reason": "Started"});
        let new = to_events(core.clone());
        assert_eq!(
            new,
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "m",
                "deprecatedCount": 2, "regarding": {"kind": "Pod"}, "deprecatedSource": {"component": "kubelet"},
                "reason": "Started"})
        );
        assert_eq!(to_core(new), core);
    }

    #[test]
    fn after_renaming_both_versions_have_the_same_fields() {
        let fields = |group: &str| match of_kind(group, "v1", "Event") {
            Some(Schema::Struct(object)) => {
                object.fields().iter().map(|field| field.name).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let mut translated: Vec<&str> = fields("")
            .into_iter()
            .map(|name| RENAMED.iter().find(|(core, _)| *core == name).map_or(name, |(_, new)| *new))
            .collect();
        translated.sort_unstable();
        assert!(!translated.is_empty());
        assert_eq!(translated, fields("events.k8s.io"));
    }
}
