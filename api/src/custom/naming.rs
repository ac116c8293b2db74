//! Which names a CustomResourceDefinition gets, and whether its custom resources are served: what the server's own controller decides. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::condition;
use crate::kinds::access::{items, set, text};
use crate::kinds::custom_resource_definition::set_condition;
use crate::meta;

/// The definition with its names accepted or refused, and established when they are; `None` when nothing is to be done.
/// `others` are all other definitions.
pub fn accept(definition: &Value, others: &[Value], now: Timestamp) -> Option<Value> {
    let none = Value::Null;
    let spec = definition.get("spec")?;
    let wanted = spec.get("names")?;
    let before = meta::get(definition, &["status", "acceptedNames"]).unwrap_or(&none);
    let same_group = others
        .iter()
        .filter(|other| meta::get(other, &["spec", "group"]) == spec.get("group"))
        .filter_map(|other| meta::get(other, &["status", "acceptedNames"]));
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for names in same_group {
        resources.extend([text(names, "plural"), text(names, "singular")]);
        resources.extend(items(names, "shortNames").iter().filter_map(Value::as_str));
        kinds.extend([text(names, "kind"), text(names, "listKind")]);
    }
    let mut accepted = before.clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut refused: Option<(&str, String)> = None;
    for (key, reason, taken) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        let names: Vec<&str> = match wanted.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(name)) => vec![name],
            _ => Vec::new(),
        };
        let conflicts: Vec<String> = names
            .into_iter()
            .filter(|name| taken.contains(name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match conflicts.as_slice() {
            [] => copy(&mut accepted, wanted, key),
            [one] => refused = Some((reason, one.clone())),
            several => refused = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    copy(&mut accepted, wanted, "categories");
    let mut new = definition.clone();
    if let Some(status) = new.get_mut("status") {
        set(status, "acceptedNames", accepted);
    }
    match &refused {
        Some((reason, message)) => {
            set_condition(&mut new, "NamesAccepted", false, reason, message, now);
            if !condition(definition, "Established") {
                let message = "not all names are accepted";
                set_condition(&mut new, "Established", false, "NotAccepted", message, now);
            }
        }
        None => {
            set_condition(&mut new, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            if !condition(definition, "Established") {
                let message = "the initial names have been accepted";
                set_condition(&mut new, "Established", true, "InitialNamesAccepted", message, now);
            }
        }
    }
    (new != *definition).then_some(new)
}

fn copy(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => set(to, key, value.clone()),
        None => drop(crate::kinds::access::remove(to, key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str) -> Value {
        json!({"spec": {"group": "g.io", "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}},
            "status": {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}}})
    }

    #[test]
    fn free_names_are_accepted_and_taken_ones_are_not() {
        let now = Timestamp::UNIX_EPOCH;
        let first = accept(&crd("cats", "Cat"), &[], now).expect("is accepted");
        assert!(condition(&first, "NamesAccepted") && condition(&first, "Established"));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(accept(&first, &[crd("dogs", "Dog")], now), None, "nothing more to do");
        let second = accept(&crd("felines", "Cat"), std::slice::from_ref(&first), now).expect("is refused");
        assert!(!condition(&second, "NamesAccepted") && !condition(&second, "Established"));
        let refusal = &second["status"]["conditions"][0];
        assert_eq!(
            (&refusal["reason"], &refusal["message"]),
            (&json!("ListKindConflict"), &json!("\"CatList\" is already in use"))
        );
        assert_eq!(second["status"]["acceptedNames"]["plural"], "felines");
        let freed = accept(&second, &[], now).expect("is accepted once the other is gone");
        assert!(condition(&freed, "Established"));
    }
}
