//! Ingresses and IngressClasses.

use serde_json::{Value, json};

use super::access::{default_to, integer, items, present, struct_mut, text};
use super::{check, object_meta};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// The annotation that named the class before the field did.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// The annotation of the class that Ingresses without one get.
pub const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const CONTROLLER_BYTES_MAX: usize = 250;

/// What a new Ingress' status is.
pub fn initial_status() -> Value {
    json!({"loadBalancer": {}})
}

/// Upstream's defaults.
pub fn default(object: &mut Value) {
    if let Some(status) = struct_mut(object, "status") {
        struct_mut(status, "loadBalancer");
    }
}

/// Everything wrong with a new Ingress.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    let annotated = crate::meta::annotations(object).and_then(|all| all.get(CLASS_ANNOTATION));
    let named = object.pointer("/spec/ingressClassName");
    if let (Some(annotated), Some(named)) = (annotated, named.filter(|name| !name.is_null()))
        && annotated != named
    {
        errors.push(field::invalid(
            FieldPath::new("annotations").child(CLASS_ANNOTATION),
            annotated.clone(),
            "must match `ingressClassName` when both are specified",
        ));
    }
    errors
}

/// Everything wrong with a changed Ingress.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    content(new, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let rules = items(spec, "rules");
    let backend_at = path.child("defaultBackend");
    match present(spec, "defaultBackend") {
        Some(default) => backend(default, &backend_at, errors),
        None if rules.is_empty() => {
            errors.push(field::invalid(
                &path,
                Value::Array(Vec::new()),
                "either `defaultBackend` or `rules` must be specified",
            ));
        }
        None => {}
    }
    for (index, one) in rules.iter().enumerate() {
        rule(one, &path.child("rules").index(index), errors);
    }
    for (index, tls) in items(spec, "tls").iter().enumerate() {
        let at = path.child("tls").index(index);
        for (number, host) in items(tls, "hosts").iter().enumerate() {
            host_name(host.as_str().unwrap_or_default(), &at.child("hosts").index(number), errors);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            check::name(secret, names::dns1123_subdomain, &at.child("secretName"), errors);
        }
    }
    if let Some(class) = present(spec, "ingressClassName").and_then(Value::as_str) {
        check::name(class, names::dns1123_subdomain, &path.child("ingressClassName"), errors);
    }
}

fn host_name(host: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let rule = if host.contains('*') { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
    check::name(host, rule, path, errors);
}

fn rule(rule: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(field::invalid(path.child("host"), host, "must be a DNS name, not an IP address"));
        }
        host_name(host, &path.child("host"), errors);
    }
    let Some(http) = present(rule, "http") else { return };
    let at = path.child("http").child("paths");
    let paths = items(http, "paths");
    if paths.is_empty() {
        errors.push(field::required(&at, ""));
    }
    for (index, one) in paths.iter().enumerate() {
        http_path(one, &at.index(index), errors);
    }
}

fn http_path(one: &Value, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(kind) = present(one, "pathType").and_then(Value::as_str) else {
        errors.push(field::required(at.child("pathType"), "pathType must be specified"));
        return;
    };
    let (path, shown) = (text(one, "path"), at.child("path"));
    let mut wrong = |text: String| errors.push(field::invalid(&shown, path, text));
    let relative = !path.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if relative {
                wrong("must be an absolute path".to_owned());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| path.contains(**part)) {
                wrong(format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| path.ends_with(**end)) {
                wrong(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && relative {
                wrong("must be an absolute path".to_owned());
            }
        }
        other => errors.push(field::not_supported(at.child("pathType"), other, PATH_TYPES)),
    }
    backend(one.get("backend").unwrap_or(&Value::Null), &at.child("backend"), errors);
}

fn backend(backend: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match (present(backend, "resource"), present(backend, "service")) {
        (Some(_), Some(_)) => {
            errors.push(field::invalid(path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => typed_reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => {
            let at = path.child("service");
            check::required_name(text(service, "name"), names::dns1035_label, &at.child("name"), errors);
            let none = Value::Null;
            let port = service.get("port").unwrap_or(&none);
            let (name, number) = (text(port, "name"), integer(port, "number").unwrap_or(0));
            let at = at.child("port");
            match (name.is_empty(), number) {
                (true, 0) => errors.push(field::required(path, "port name or number is required")),
                (true, number) => errors.extend(
                    names::port_number(number)
                        .into_iter()
                        .map(|problem| field::invalid(at.child("number"), number, problem)),
                ),
                (false, 0) => check::name(name, names::port_name, &at.child("name"), errors),
                _ => errors.push(field::invalid(path, "", "cannot set both port name & port number")),
            }
        }
        (None, None) => errors.push(field::invalid(path, "", "resource or service backend is required")),
    }
}

fn typed_reference(reference: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(group) = present(reference, "apiGroup").and_then(Value::as_str) {
        check::name(group, names::dns1123_subdomain, &path.child("apiGroup"), errors);
    }
    for name in ["kind", "name"] {
        check::required_name(text(reference, name), names::path_segment, &path.child(name), errors);
    }
}

/// Everything wrong with an Ingress' changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("status").child("loadBalancer").child("ingress");
    let points =
        new.pointer("/status/loadBalancer").map(|status| items(status, "ingress")).unwrap_or_default();
    for (index, point) in points.iter().enumerate() {
        let at = path.index(index);
        let (ip, host) = (text(point, "ip"), text(point, "hostname"));
        if !ip.is_empty() {
            check::name(ip, names::ip_address, &at.child("ip"), &mut errors);
        }
        if !host.is_empty() {
            check::name(host, names::dns1123_subdomain, &at.child("hostname"), &mut errors);
            if host.parse::<std::net::IpAddr>().is_ok() {
                let text = "must be a DNS name, not an IP address";
                errors.push(field::invalid(at.child("hostname"), host, text));
            }
        }
    }
    errors
}

/// Upstream's defaults of an IngressClass.
pub fn default_class(object: &mut Value) {
    if let Some(parameters) =
        object.pointer_mut("/spec/parameters").filter(|parameters| parameters.is_object())
    {
        default_to(parameters, "scope", "Cluster");
    }
}

/// Everything wrong with a new IngressClass.
pub fn validate_class(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, false, names::dns1123_subdomain);
    class(object, &mut errors);
    errors
}

/// Everything wrong with a changed IngressClass: its controller stays.
pub fn validate_class_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let path = FieldPath::new("spec").child("controller");
    let controller = |object: &Value| object.pointer("/spec/controller").cloned();
    let (after, before) = (controller(new), controller(old));
    object_meta::check_immutable(after.as_ref(), before.as_ref(), &path, &mut errors);
    class(new, &mut errors);
    errors
}

fn class(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let controller = text(spec, "controller");
    if controller.len() > CONTROLLER_BYTES_MAX {
        errors.push(field::too_long(path.child("controller"), CONTROLLER_BYTES_MAX));
    }
    check::required_name(controller, names::domain_prefixed_path, &path.child("controller"), errors);
    let Some(parameters) = present(spec, "parameters") else { return };
    let at = path.child("parameters");
    typed_reference(parameters, &at, errors);
    let namespace = present(parameters, "namespace").and_then(Value::as_str);
    match (text(parameters, "scope"), namespace) {
        ("", _) => errors.push(field::required(at.child("scope"), "")),
        ("Namespace", None) => {
            let text = "`parameters.scope` is set to 'Namespace'";
            errors.push(field::required(at.child("namespace"), text));
        }
        ("Namespace", Some(name)) => check::name(name, names::dns1123_label, &at.child("namespace"), errors),
        ("Cluster", Some(_)) => {
            errors.push(field::forbidden(at.child("namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        ("Cluster", None) => {}
        (other, _) => errors.push(field::not_supported(at.child("scope"), other, &["Cluster", "Namespace"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn an_ingress(rule: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"rules": [rule]}})
    }

    #[test]
    fn hosts_paths_and_backends_are_checked() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        let good = json!({"host": "*.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": service}]}});
        assert_eq!(texts(&validate(&an_ingress(good))), Vec::<String>::new());
        let bad = json!({"host": "1.2.3.4", "http": {"paths": [
            {"path": "a//b", "pathType": "Exact", "backend": service},
            {"path": "/", "backend": service},
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web"}}},
        ]}});
        assert_eq!(
            texts(&validate(&an_ingress(bad))),
            [
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
                "spec.rules[0].http.paths[2].backend: Required value: port name or number is required",
            ]
        );
        let nothing = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {}});
        assert_eq!(
            texts(&validate(&nothing)),
            ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]
        );
    }

    #[test]
    fn classes_keep_their_controller_and_scope_their_parameters() {
        let class = |controller: &str| json!({"metadata": {"name": "c"}, "spec": {"controller": controller}});
        assert_eq!(texts(&validate_class(&class("example.com/c"))), Vec::<String>::new());
        assert!(
            texts(&validate_class(&class("c")))[0]
                .starts_with("spec.controller: Invalid value: \"c\": must be a domain-prefixed path")
        );
        assert_eq!(
            texts(&validate_class_update(&class("example.com/d"), &class("example.com/c"))),
            ["spec.controller: Invalid value: \"example.com/d\": field is immutable"]
        );
    }
}
