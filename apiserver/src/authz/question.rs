//! What is asked for, as the spec of a SubjectAccessReview: for those who are asked elsewhere, and for expressions that say whether they are. Pure.

use coracle_api::selector::{FieldRequirement, FieldSelector, LabelRequirement, LabelSelector, Operator};
use serde_json::{Map, Value, json};

use super::{Attributes, ResourceAttributes};
use crate::server::request_info::UserInfo;

/// The spec.
pub(super) fn spec(user: &UserInfo, attributes: &Attributes<'_>) -> Value {
    let mut spec = Map::new();
    match attributes {
        Attributes::Resource(asked) => {
            spec.insert("resourceAttributes".into(), resource(asked));
        }
        Attributes::Path { verb, path } => {
            spec.insert("nonResourceAttributes".into(), json!({"path": path, "verb": verb}));
        }
    }
    for (field, value) in [("user", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            spec.insert(field.into(), value.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    Value::Object(spec)
}

fn resource(asked: &ResourceAttributes<'_>) -> Value {
    let ResourceAttributes { verb, group, version, resource, subresource, namespace, name, .. } = asked;
    let mut fields = Map::new();
    for (field, value) in [
        ("namespace", namespace),
        ("verb", verb),
        ("group", group),
        ("version", version),
        ("resource", resource),
        ("subresource", subresource),
        ("name", name),
    ] {
        if !value.is_empty() {
            fields.insert(field.into(), Value::from(*value));
        }
    }
    for (field, requirements) in [
        ("fieldSelector", of_fields(asked.field_selector)),
        ("labelSelector", of_labels(asked.label_selector)),
    ] {
        if !requirements.is_empty() {
            fields.insert(field.into(), json!({ "requirements": requirements }));
        }
    }
    Value::Object(fields)
}

/// A selector that makes no sense narrows nothing down.
fn of_fields(text: &str) -> Vec<Value> {
    let selector = FieldSelector::parse(text).unwrap_or_default();
    let one = |term: &FieldRequirement| json!({"key": term.field, "operator": if term.equals { "In" } else { "NotIn" }, "values": [term.value]});
    selector.requirements.iter().map(one).collect()
}

fn of_labels(text: &str) -> Vec<Value> {
    let selector = LabelSelector::parse(text).unwrap_or_else(|_| LabelSelector::everything());
    let one = |requirement: &LabelRequirement| {
        let operator = match requirement.operator {
            Operator::In | Operator::Equals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Nothing that can be asked for says so.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut made = json!({"key": requirement.key, "operator": operator});
        if !requirement.values.is_empty() {
            made["values"] = json!(requirement.values);
        }
        Some(made)
    };
    selector.requirements().iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_said_with_its_selectors() {
        let user = UserInfo { name: "u".into(), groups: vec!["g".into()], ..UserInfo::default() };
        let asked = ResourceAttributes {
            verb: "list",
            version: "v1",
            resource: "pods",
            namespace: "n",
            field_selector: "spec.nodeName=a,status.phase!=Failed",
            label_selector: "app in (a,b),!c",
            ..ResourceAttributes::default()
        };
        let spec = spec(&user, &Attributes::Resource(asked));
        assert_eq!(
            spec,
            json!({"user": "u", "groups": ["g"], "resourceAttributes": {"verb": "list", "version": "v1", "resource": "pods", "namespace": "n",
                "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]},
                    {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]}]},
                "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "c", "operator": "DoesNotExist"}]}}})
        );
    }
}
