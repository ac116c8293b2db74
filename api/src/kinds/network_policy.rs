//! NetworkPolicies.

use serde_json::{Value, json};

use super::access::{default_to, each_mut, integer, items, present, struct_mut, text};
use super::{check, label_selector, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["Egress", "Ingress"];

/// Upstream's defaults: a policy is about incoming traffic, and about outgoing traffic when it has rules for it.
pub fn default(object: &mut Value) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    // Go writes a selector of everything as such.
    struct_mut(spec, "podSelector");
    if items(spec, "policyTypes").is_empty() {
        let has_egress = !items(spec, "egress").is_empty();
        let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        super::access::set(spec, "policyTypes", types);
    }
    for direction in ["ingress", "egress"] {
        each_mut(spec, direction, |rule| {
            each_mut(rule, "ports", |port| default_to(port, "protocol", "TCP"));
        });
    }
}

/// Everything wrong with a new policy.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

/// Everything wrong with a changed policy.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    if let Some(selector) = present(spec, "podSelector") {
        label_selector::validate(selector, &path.child("podSelector"), errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(spec, direction).iter().enumerate() {
            let at = path.child(direction).index(index);
            for (number, one) in items(rule, "ports").iter().enumerate() {
                port(one, &at.child("ports").index(number), errors);
            }
            for (number, one) in items(rule, peers).iter().enumerate() {
                peer(one, &at.child(peers).index(number), errors);
            }
        }
    }
    let types = items(spec, "policyTypes");
    let at = path.child("policyTypes");
    if types.len() > TYPES.len() {
        let text = "may not specify more than two policyTypes";
        errors.push(field::invalid(at, Value::Array(types.to_vec()), text));
        return;
    }
    for (index, one) in types.iter().enumerate() {
        check::one_of(one.as_str().unwrap_or_default(), TYPES, &at.index(index), errors);
    }
}

fn port(port: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(protocol) = present(port, "protocol").and_then(Value::as_str) {
        check::one_of(protocol, PROTOCOLS, &path.child("protocol"), errors);
    }
    let end = integer(port, "endPort");
    let mut wrong_end =
        |end: i64, text: String| errors.push(field::invalid(path.child("endPort"), end, text));
    match (present(port, "port"), end) {
        (Some(Value::String(_)), Some(end)) => {
            wrong_end(end, "may not be specified when `port` is non-numeric".to_owned());
        }
        (None, Some(end)) => wrong_end(end, "may not be specified when `port` is not specified".to_owned()),
        (Some(Value::Number(first)), Some(end)) => {
            if first.as_i64().is_some_and(|first| end < first) {
                wrong_end(end, "must be greater than or equal to `port`".to_owned());
            }
            names::port_number(end).into_iter().for_each(|problem| wrong_end(end, problem));
        }
        _ => {}
    }
    match present(port, "port") {
        Some(Value::String(name)) => check::name(name, names::port_name, &path.child("port"), errors),
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or_default();
            let problems = names::port_number(number);
            errors.extend(problems.into_iter().map(|text| field::invalid(path.child("port"), number, text)));
        }
        _ => {}
    }
}

fn peer(peer: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut selectors = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = present(peer, name) {
            selectors += 1;
            label_selector::validate(selector, &path.child(name), errors);
        }
    }
    match present(peer, "ipBlock") {
        Some(block) => {
            ip_block(block, &path.child("ipBlock"), errors);
            if selectors > 0 {
                errors.push(field::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
        None if selectors == 0 => errors.push(field::required(path, "must specify a peer")),
        None => {}
    }
}

fn ip_block(block: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let value = text(block, "cidr");
    if value.is_empty() {
        errors.push(field::required(path.child("cidr"), ""));
        return;
    }
    let Some(whole) = check::cidr(value, &path.child("cidr"), errors) else { return };
    for (index, except) in items(block, "except").iter().enumerate() {
        let at = path.child("except").index(index);
        let except = except.as_str().unwrap_or_default();
        if let Some(part) = check::cidr(except, &at, errors)
            && !whole.strictly_contains(&part)
        {
            errors.push(field::invalid(at, except, "must be a strict subset of `cidr`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_follow_from_the_rules_and_peers_are_checked() {
        let mut policy = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {
            "egress": [{"ports": [{"port": 80, "endPort": 79}, {"port": "http"}],
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/8"]}}, {}]}]}});
        default(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][1]["protocol"], "TCP");
        let texts: Vec<String> = validate(&policy).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.egress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
                "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.egress[0].to[1]: Required value: must specify a peer",
            ]
        );
    }
}
