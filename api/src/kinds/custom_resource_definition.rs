//! CustomResourceDefinition: defaults, validation, and what only the server writes into its status. What its schemas may say is
//! [`crate::custom::schema_rules`]'s matter.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{boolean, default_to, items, present, set, text};
use super::{object_meta, webhook};
use crate::custom::{JsonPath, condition, schema_rules};
use crate::field::{self, FieldError, FieldPath};
use crate::{meta, names};

/// What holds a definition until none of its custom resources is left.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Groups under these domains need the approval of the Kubernetes community.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["integer", "number", "string", "boolean", "date"];
const COLUMN_FORMATS: [&str; 9] =
    ["int32", "int64", "float", "double", "byte", "date", "date-time", "password", "name"];
const SELECTABLE_FIELDS_MAX: usize = 8;

/// Fills in what names and conversion follow from.
pub fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    if let Some(given) = spec.get_mut("names") {
        let kind = text(given, "kind").to_owned();
        if text(given, "singular").is_empty() {
            set(given, "singular", kind.to_lowercase());
        }
        if text(given, "listKind").is_empty() && !kind.is_empty() {
            set(given, "listKind", format!("{kind}List"));
        }
    }
    default_to(spec, "conversion", json!({"strategy": "None"}));
    if let Some(service) =
        spec.pointer_mut("/conversion/webhook/clientConfig/service").filter(|service| service.is_object())
    {
        default_to(service, "port", 443);
    }
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        super::access::remove(spec, "preserveUnknownFields");
    }
}

fn storage_version(object: &Value) -> Option<&str> {
    let versions = items(object.get("spec")?, "versions");
    versions.iter().find(|version| boolean(version, "storage")).map(|version| text(version, "name"))
}

/// The status of a new definition: nothing is accepted yet.
pub fn reset_status(object: &mut Value) {
    let stored: Vec<&str> = storage_version(object).into_iter().collect();
    let status =
        json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
    set(object, "status", status);
}

/// Adds the version that is stored from now on to those that may be in the store.
pub fn note_storage_version(object: &mut Value) {
    let Some(version) = storage_version(object).map(str::to_owned) else { return };
    let Some(status) = object.get_mut("status") else { return };
    let mut stored = items(status, "storedVersions").to_vec();
    if !stored.iter().any(|known| known.as_str() == Some(version.as_str())) {
        stored.push(version.into());
        set(status, "storedVersions", stored);
    }
}

/// Sets a condition; the time changes with the status only.
pub fn set_condition(
    object: &mut Value,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let Some(status) = object.get_mut("status") else { return };
    let mut conditions = items(status, "conditions").to_vec();
    let holds = if holds { "True" } else { "False" };
    let before = conditions.iter().position(|condition| text(condition, "type") == kind);
    let since = before.map(|index| &conditions[index]).filter(|known| text(known, "status") == holds);
    let time =
        since.map_or_else(|| meta::format_time(now), |known| text(known, "lastTransitionTime").to_owned());
    let condition = json!({"type": kind, "status": holds, "lastTransitionTime": time, "reason": reason, "message": message});
    match before {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
    set(status, "conditions", conditions);
}

/// What a deletion leaves behind first.
pub fn mark_deleting(object: &mut Value, now: Timestamp) {
    if meta::finalizers(object).contains(&CLEANUP_FINALIZER) && condition(object, "Terminating") {
        return;
    }
    meta::add_finalizer(object, CLEANUP_FINALIZER);
    set_condition(
        object,
        "Terminating",
        true,
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        now,
    );
}

/// Everything wrong with a new definition.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any(object, false, names::dns1123_subdomain);
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    if meta::name(object) != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(field::invalid("metadata.name", meta::name(object), detail));
    }
    check_approval(object, spec, &mut errors);
    check_spec(spec, &FieldPath::new("spec"), &mut errors);
    errors
}

/// Everything wrong with a changed definition.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    let path = FieldPath::new("spec");
    let (none, nothing) = (Value::Null, Value::Null);
    let (spec, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&nothing));
    check_approval(new, spec, &mut errors);
    check_spec(spec, &path, &mut errors);
    let mut fixed = |value: &Value, key: &str, old: &Value, path: &FieldPath| {
        object_meta::check_immutable(value.get(key), old.get(key), &path.child(key), &mut errors);
    };
    let names = path.child("names");
    if condition(old, "Established") {
        fixed(spec, "scope", before, &path);
        fixed(&spec["names"], "kind", &before["names"], &names);
    }
    fixed(spec, "group", before, &path);
    fixed(&spec["names"], "plural", &before["names"], &names);
    check_stored_versions(new, &mut errors);
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_any_update(new, old);
    let none = Value::Null;
    let accepted = new.get("status").and_then(|status| status.get("acceptedNames")).unwrap_or(&none);
    check_names(accepted, &FieldPath::new("status").child("acceptedNames"), &mut errors);
    check_stored_versions(new, &mut errors);
    errors
}

fn check_stored_versions(object: &Value, errors: &mut Vec<FieldError>) {
    let (none, nothing) = (Value::Null, Value::Null);
    let (spec, status) = (object.get("spec").unwrap_or(&none), object.get("status").unwrap_or(&nothing));
    let path = FieldPath::new("status").child("storedVersions");
    let stored = items(status, "storedVersions");
    if stored.is_empty() && present(status, "storedVersions").is_some() {
        errors.push(field::invalid(&path, Value::Array(Vec::new()), "must have at least one stored version"));
    }
    for (index, version) in stored.iter().enumerate() {
        let listed = items(spec, "versions").iter().any(|known| known.get("name") == Some(version));
        if !listed {
            let detail = "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions";
            let detail = detail.replace("v1", version.as_str().unwrap_or_default());
            errors.push(field::invalid(path.index(index), version.clone(), detail));
        }
    }
}

fn check_approval(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    let group = text(spec, "group");
    let is_protected = PROTECTED
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let path = FieldPath::new("metadata").child("annotations").key(APPROVAL);
    let approval = meta::annotations(object).and_then(|all| all.get(APPROVAL)).and_then(Value::as_str);
    match approval.unwrap_or_default() {
        _ if !is_protected => {}
        "" => errors.push(field::required(
            path,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
        text if text.starts_with("unapproved") || text.starts_with("https://") || text.starts_with("http://") => {}
        text => errors.push(field::invalid(
            path,
            text,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
    }
}

fn check_spec(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let group = text(spec, "group");
    let problems = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(field::required(path.child("group"), ""));
    } else if !problems.is_empty() {
        errors.push(field::invalid(path.child("group"), group, problems.join(",")));
    } else if !group.contains('.') {
        errors.push(field::invalid(path.child("group"), group, "should be a domain with at least one dot"));
    }
    match text(spec, "scope") {
        "" => errors.push(field::required(path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        scope => errors.push(field::not_supported(path.child("scope"), scope, &["Cluster", "Namespaced"])),
    }
    if boolean(spec, "preserveUnknownFields") {
        errors.push(field::invalid(
            path.child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    check_versions(spec, path, errors);
    let none = Value::Null;
    let given = spec.get("names").unwrap_or(&none);
    let names_path = path.child("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(given, key).is_empty() {
            errors.push(field::required(names_path.child(key), ""));
        }
    }
    check_names(given, &names_path, errors);
    check_conversion(spec, &path.child("conversion"), errors);
}

fn check_names(given: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut check = |value: &str, path: FieldPath, is_kind: bool| {
        let problems =
            if is_kind { names::dns1035_label(&value.to_lowercase()) } else { names::dns1035_label(value) };
        if !value.is_empty() && !problems.is_empty() {
            let before = if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(field::invalid(path, value, format!("{before}{}", problems.join(","))));
        }
    };
    check(text(given, "plural"), path.child("plural"), false);
    check(text(given, "singular"), path.child("singular"), false);
    check(text(given, "kind"), path.child("kind"), true);
    check(text(given, "listKind"), path.child("listKind"), true);
    for key in ["shortNames", "categories"] {
        for (index, name) in items(given, key).iter().enumerate() {
            check(name.as_str().unwrap_or_default(), path.child(key).index(index), false);
        }
    }
    let kind = text(given, "kind");
    if !kind.is_empty() && kind == text(given, "listKind") {
        errors.push(field::invalid(path.child("listKind"), kind, "kind and listKind may not be the same"));
    }
}

fn check_versions(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = path.child("versions");
    let versions = items(spec, "versions");
    let mut seen = BTreeSet::new();
    let (mut unique, mut stored) = (true, 0);
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = text(version, "name");
        stored += usize::from(boolean(version, "storage"));
        unique &= seen.insert(name);
        let problems = names::dns1035_label(name);
        if !problems.is_empty() {
            errors.push(field::invalid(path.child("name"), name, problems.join(",")));
        }
        let warning = text(version, "deprecationWarning");
        if !warning.is_empty() && !boolean(version, "deprecated") {
            let detail = "can only be set for deprecated versions";
            errors.push(field::invalid(path.child("deprecationWarning"), warning, detail));
        }
        let schema_path = path.child("schema").child("openAPIV3Schema");
        match meta::get(version, &["schema", "openAPIV3Schema"]) {
            Some(schema) => schema_rules::check(schema, &schema_path, errors),
            None => errors.push(field::required(schema_path, "schemas are required")),
        }
        check_scale(version, &path.child("subresources").child("scale"), errors);
        check_columns(version, &path.child("additionalPrinterColumns"), errors);
        check_selectable(version, &path.child("selectableFields"), errors);
    }
    let whole = || spec.get("versions").cloned().unwrap_or_default();
    if !unique {
        errors.push(field::invalid(&path, whole(), "must contain unique version names"));
    }
    if stored != 1 {
        errors.push(field::invalid(
            &path,
            whole(),
            "must have exactly one version marked as storage version",
        ));
    }
}

fn check_scale(version: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(scale) = meta::get(version, &["subresources", "scale"]).filter(|scale| scale.is_object()) else {
        return;
    };
    for (key, root, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let (given, path) = (text(scale, key), path.child(key));
        if given.is_empty() {
            if required {
                errors.push(field::required(path, ""));
            }
        } else if !given.starts_with('.') {
            errors.push(field::invalid(path, given, "must be a simple json path starting with ."));
        } else if JsonPath::parse(given).ok().as_ref().and_then(JsonPath::fields).is_none() {
            errors.push(field::invalid(
                path,
                given,
                "must be a json path without index or wildcard: [, ], *",
            ));
        } else if required && !given.starts_with(root) {
            let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
            errors.push(field::invalid(path, given, detail));
        } else if !required && !given.starts_with(".spec.") && !given.starts_with(".status.") {
            let detail = "should be a json path under either .status or .spec";
            errors.push(field::invalid(path, given, detail));
        }
    }
}

fn check_columns(version: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, column) in items(version, "additionalPrinterColumns").iter().enumerate() {
        let path = path.index(index);
        if text(column, "name").is_empty() {
            errors.push(field::required(path.child("name"), ""));
        }
        match text(column, "type") {
            "" => {
                let listed = COLUMN_TYPES.join(",");
                errors.push(field::required(path.child("type"), format!("must be one of {listed}")));
            }
            kind if !COLUMN_TYPES.contains(&kind) => {
                let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
                errors.push(field::invalid(path.child("type"), kind, detail));
            }
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(field::invalid(path.child("format"), format, detail));
        }
        let given = text(column, "jsonPath");
        if given.is_empty() {
            errors.push(field::required(path.child("jsonPath"), ""));
        } else if let Err(problem) = JsonPath::parse(given) {
            errors.push(field::invalid(path.child("jsonPath"), given, problem));
        }
    }
}

fn check_selectable(version: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let fields = items(version, "selectableFields");
    if fields.len() > SELECTABLE_FIELDS_MAX {
        errors.push(field::too_many(path, fields.len(), SELECTABLE_FIELDS_MAX));
    }
    let mut seen = BTreeSet::new();
    for (index, selectable) in fields.iter().enumerate() {
        let path = path.index(index).child("jsonPath");
        let given = text(selectable, "jsonPath");
        if given.is_empty() {
            errors.push(field::required(path, ""));
            continue;
        }
        if !seen.insert(given) {
            errors.push(field::duplicate(&path, given));
        }
        let parsed = JsonPath::parse(given).ok();
        let Some(fields) = parsed.as_ref().and_then(JsonPath::fields) else {
            errors.push(field::invalid(
                path,
                given,
                "is an invalid path: must be a simple path of field names",
            ));
            continue;
        };
        if fields.first() == Some(&"metadata") {
            errors.push(field::invalid(path, given, "must not point to fields in metadata"));
            continue;
        }
        let mut schema = meta::get(version, &["schema", "openAPIV3Schema"]);
        for name in fields {
            schema = schema.and_then(|schema| schema.get("properties")?.get(name));
        }
        match schema.map(|schema| text(schema, "type")) {
            None => errors.push(field::invalid(path, given, "is an invalid path: does not refer to a valid field")),
            Some("string" | "boolean" | "integer") => {}
            Some(_) => errors.push(field::invalid(
                path,
                given,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            )),
        }
    }
}

fn check_conversion(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(conversion) = present(spec, "conversion") else { return };
    match text(conversion, "strategy") {
        "" => errors.push(field::required(path.child("strategy"), "")),
        "None" | "Webhook" => {}
        other => errors.push(field::not_supported(path.child("strategy"), other, &["None", "Webhook"])),
    }
    let none = Value::Null;
    let given = present(conversion, "webhook").unwrap_or(&none);
    let (client, versions) = (present(given, "clientConfig"), items(given, "conversionReviewVersions"));
    let (at, at_versions) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if text(conversion, "strategy") != "Webhook" {
        let text = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(field::forbidden(&at, text));
        }
        if !versions.is_empty() {
            errors.push(field::forbidden(&at_versions, text));
        }
        return;
    }
    match client {
        None => errors.push(field::required(&at, "required when strategy is set to Webhook")),
        Some(client) => webhook::client_config(client, &at, errors),
    }
    review_versions(versions, &at_versions, errors);
}

fn review_versions(versions: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    const KNOWN: [&str; 2] = ["v1", "v1beta1"];
    if versions.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            errors.push(field::duplicate(path.index(index), version.clone()));
        }
        let problems = names::dns1035_label(version.as_str().unwrap_or_default());
        if !problems.is_empty() {
            errors.push(field::invalid(path.index(index), version.clone(), problems.join(",")));
        }
    }
    if !versions.iter().filter_map(Value::as_str).any(|version| KNOWN.contains(&version)) {
        let text = format!("must include at least one of {}", KNOWN.join(", "));
        errors.push(field::invalid(path, Value::Array(versions.to_vec()), text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        json!({"metadata": {"name": "cats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "cats", "kind": "Cat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    fn texts(object: &Value) -> Vec<String> {
        validate(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_follow_from_the_kind() {
        let mut object = crd();
        default(&mut object);
        assert_eq!(
            object["spec"]["names"],
            json!({"plural": "cats", "kind": "Cat", "singular": "cat", "listKind": "CatList"})
        );
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(texts(&object), Vec::<String>::new());
        reset_status(&mut object);
        object["spec"]["versions"][0]["name"] = "v2".into();
        note_storage_version(&mut object);
        assert_eq!(object["status"]["storedVersions"], json!(["v1", "v2"]));
    }

    #[test]
    fn what_a_definition_may_not_say_is_named() {
        let mut object = crd();
        default(&mut object);
        object["metadata"]["name"] = "dogs.example.com".into();
        object["spec"]["group"] = "example".into();
        object["spec"]["scope"] = "Galaxy".into();
        object["spec"]["versions"][0]["storage"] = false.into();
        object["spec"]["conversion"]["strategy"] = "Webhook".into();
        let found = texts(&object).join("\n");
        for wanted in [
            "metadata.name: Invalid value: \"dogs.example.com\": must be spec.names.plural+\".\"+spec.group",
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
            "must have exactly one version marked as storage version",
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ] {
            assert!(found.contains(wanted), "{wanted} in {found}");
        }
        let mut protected = crd();
        default(&mut protected);
        protected["metadata"]["name"] = "cats.x.k8s.io".into();
        protected["spec"]["group"] = "x.k8s.io".into();
        assert!(
            texts(&protected)[0]
                .starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value")
        );
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_holds() {
        let mut object = crd();
        reset_status(&mut object);
        let at = |second| Timestamp::from_second(second).expect("a time");
        set_condition(&mut object, "Established", true, "A", "a", at(0));
        set_condition(&mut object, "Established", true, "B", "b", at(60));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        set_condition(&mut object, "Established", false, "C", "c", at(60));
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z");
    }
}
