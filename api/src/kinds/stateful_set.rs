//! StatefulSets.

use serde_json::{Value, json};

use super::access::{
    default_text, default_to, each_mut, integer, items, present, same, set, struct_mut, text,
};
use super::replica_set::{counts, not_negative, selector};
use super::{int_or_percent, object_meta, pod_spec_defaults, pod_template};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// What may change in the spec of a StatefulSet.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(spec) = struct_mut(object, "spec") {
        default_text(spec, "podManagementPolicy", "OrderedReady");
        default_update_strategy(spec);
        if let Some(policy) = struct_mut(spec, "persistentVolumeClaimRetentionPolicy") {
            default_text(policy, "whenDeleted", "Retain");
            default_text(policy, "whenScaled", "Retain");
        }
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        if let Some(ordinals) = spec.get_mut("ordinals") {
            default_to(ordinals, "start", 0);
        }
        each_mut(spec, "volumeClaimTemplates", default_claim);
        pod_spec_defaults::default_template(spec);
    }
    if let Some(status) = struct_mut(object, "status") {
        default_to(status, "replicas", 0);
        default_to(status, "availableReplicas", 0);
    }
}

fn default_update_strategy(spec: &mut Value) {
    let Some(strategy) = struct_mut(spec, "updateStrategy") else { return };
    if text(strategy, "type").is_empty() {
        set(strategy, "type", "RollingUpdate");
        struct_mut(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|rolling| rolling.is_object())
    {
        default_to(rolling, "partition", 0);
    }
}

/// Claims carry their kind, so that they can be compared with what clients send.
fn default_claim(claim: &mut Value) {
    set(claim, "apiVersion", "v1");
    set(claim, "kind", "PersistentVolumeClaim");
    struct_mut(claim, "metadata");
    if let Some(spec) = struct_mut(claim, "spec") {
        default_text(spec, "volumeMode", "Filesystem");
        struct_mut(spec, "resources");
    }
    if let Some(status) = struct_mut(claim, "status") {
        default_text(status, "phase", "Pending");
    }
}

/// What a new StatefulSet's status is.
pub fn initial_status() -> Value {
    json!({"replicas": 0, "availableReplicas": 0})
}

/// Everything wrong with a new StatefulSet.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_label);
    let none = Value::Null;
    let service = text(object.get("spec").unwrap_or(&none), "serviceName");
    if !service.is_empty() {
        let problems = names::dns1123_label(service);
        errors
            .extend(problems.into_iter().map(|problem| field::invalid("spec.serviceName", service, problem)));
    }
    spec(object, true, &mut errors);
    errors
}

/// `templates` leaves the pod template's spec unchecked when false.
fn spec(object: &Value, templates: bool, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let at = path.child("podManagementPolicy");
    match text(spec, "podManagementPolicy") {
        "" => errors.push(field::required(at, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(field::invalid(at, other, "must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(spec, &path, errors);
    if let Some(policy) = present(spec, "persistentVolumeClaimRetentionPolicy") {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for name in ["whenDeleted", "whenScaled"] {
            if !matches!(text(policy, name), "Retain" | "Delete") {
                errors.push(field::not_supported(at.child(name), text(policy, name), &["Retain", "Delete"]));
            }
        }
    }
    for name in ["replicas", "minReadySeconds"] {
        not_negative(spec, name, &path, errors);
    }
    if let Some(ordinals) = present(spec, "ordinals") {
        not_negative(ordinals, "start", &path.child("ordinals"), errors);
    }
    not_negative(spec, "revisionHistoryLimit", &path, errors);
    selector(spec, "statefulset", &path, errors);
    let template = spec.get("template").unwrap_or(&none);
    let at = path.child("template");
    pod_template::check_selected(spec.get("selector"), template, &at, errors);
    if templates {
        pod_template::validate_template(
            &with_claims(template, items(spec, "volumeClaimTemplates")),
            &at,
            errors,
        );
    } else {
        pod_template::validate_metadata(template, &at, errors);
    }
    pod_template::check_endless(template, "StatefulSet", &at, errors);
}

fn update_strategy(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let none = Value::Null;
    let strategy = spec.get("updateStrategy").unwrap_or(&none);
    let rolling = present(strategy, "rollingUpdate");
    let at = path.child("updateStrategy");
    match (text(strategy, "type"), rolling) {
        ("", _) => errors.push(field::required(at, "")),
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("OnDelete", Some(rolling)) => errors.push(field::invalid(
            at.child("rollingUpdate"),
            rolling.clone(),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &at.child("rollingUpdate"), errors),
        _ => errors.push(field::invalid(at, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn rolling_update(rolling: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    not_negative(rolling, "partition", path, errors);
    let Some(unavailable) = present(rolling, "maxUnavailable") else { return };
    let at = path.child("maxUnavailable");
    int_or_percent::validate(unavailable, &at, errors);
    if int_or_percent::is_zero(Some(unavailable)) {
        errors.push(field::invalid(&at, unavailable.clone(), "cannot be 0"));
    }
    int_or_percent::validate_share(unavailable, &at, errors);
}

/// The template with a volume for every claim, as the pods will have them: containers may mount claims.
fn with_claims(template: &Value, claims: &[Value]) -> Value {
    let mut template = template.clone();
    let Some(spec) = template.get_mut("spec").filter(|spec| spec.is_object()) else { return template };
    let mut volumes = items(spec, "volumes").to_vec();
    for claim in claims {
        let name = claim.get("metadata").map(|metadata| text(metadata, "name")).unwrap_or_default();
        if !name.is_empty() && !volumes.iter().any(|volume| text(volume, "name") == name) {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": "claim"}}));
        }
    }
    set(spec, "volumes", volumes);
    template
}

/// Everything wrong with a changed StatefulSet.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    // A stored spec that would be refused today must not block what else may change.
    let mut before = Vec::new();
    spec(old, true, &mut before);
    spec(new, before.is_empty(), &mut errors);
    let fixed = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !MUTABLE.contains(&name.as_str()));
        }
        spec
    };
    if !same(Some(&fixed(new)), Some(&fixed(old))) {
        errors.push(field::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    errors
}

/// Everything wrong with a changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("status");
    let none = Value::Null;
    let (status, before) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let mut errors = Vec::new();
    let names = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "collisionCount",
    ];
    counts(status, &names, &path, &mut errors);
    let number = |name: &str| integer(status, name).unwrap_or(0);
    for (name, most) in [
        ("readyReplicas", "replicas"),
        ("currentReplicas", "replicas"),
        ("updatedReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if number(name) > number(most) {
            errors.push(field::invalid(
                path.child(name),
                number(name),
                format!("cannot be greater than status.{most}"),
            ));
        }
    }
    errors.extend(object_meta::validate_update(new, old));
    collisions_only_grow(status, before, &mut errors);
    errors
}

/// The count of name collisions may not be taken back.
pub fn collisions_only_grow(status: &Value, before: &Value, errors: &mut Vec<FieldError>) {
    let now = integer(status, "collisionCount");
    if integer(before, "collisionCount").is_some_and(|before| now.is_none_or(|now| now < before)) {
        errors.push(field::invalid(
            "status.collisionCount",
            now.unwrap_or_default(),
            "cannot be decremented",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn a_set() -> Value {
        let mut object = json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
                    {"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}}}}]
            }
        });
        default(&mut object);
        object
    }

    #[test]
    fn defaults_are_those_that_clients_know() {
        let set = a_set();
        let spec = &set["spec"];
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(
            (&spec["podManagementPolicy"], &spec["replicas"], &spec["revisionHistoryLimit"]),
            (&json!("OrderedReady"), &json!(1), &json!(10))
        );
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["kind"], &claim["spec"]["volumeMode"], &claim["status"]),
            (&json!("PersistentVolumeClaim"), &json!("Filesystem"), &json!({"phase": "Pending"}))
        );
        assert_eq!(texts(&validate(&set)), Vec::<String>::new());
    }

    #[test]
    fn on_delete_needs_no_rolling_update_and_takes_none() {
        let mut set = a_set();
        set["spec"]["updateStrategy"] = json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}});
        assert_eq!(
            texts(&validate(&set)),
            [
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"
            ]
        );
        set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        default(&mut set);
        assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn most_of_the_spec_is_fixed() {
        let old = a_set();
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(3);
        new["spec"]["revisionHistoryLimit"] = json!(2);
        assert_eq!(texts(&validate_update(&new, &old)), Vec::<String>::new());
        new["spec"]["serviceName"] = json!("other");
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            ]
        );
    }

    #[test]
    fn names_selectors_and_limits_are_checked() {
        let mut set = a_set();
        set["metadata"]["name"] = json!("a.b");
        set["spec"]["selector"] = json!({});
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!(0);
        let errors = texts(&validate(&set));
        assert!(errors.contains(&"metadata.name: Invalid value: \"a.b\": must not contain dots".to_owned()));
        assert!(errors.contains(
            &"spec.selector: Invalid value: {}: empty selector is invalid for statefulset".to_owned()
        ));
        assert!(errors.contains(
            &"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0".to_owned()
        ));
        let mut running = a_set();
        running["status"] = json!({"replicas": 1, "readyReplicas": 2, "collisionCount": 1});
        let mut old = running.clone();
        old["status"]["collisionCount"] = json!(2);
        assert_eq!(
            texts(&validate_status_update(&running, &old)),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented"
            ]
        );
    }
}
