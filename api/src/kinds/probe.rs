//! Probes and lifecycle handlers of containers.

use serde_json::Value;

use super::access::{default_number, default_text, default_to, integer, items, present, text};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Defaults of one probe.
pub fn default_probe(probe: &mut Value) {
    if !probe.is_object() {
        return;
    }
    default_handler(probe);
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
    if let Some(grpc) = probe.get_mut("grpc") {
        default_to(grpc, "service", "");
    }
}

/// Defaults of one handler.
pub fn default_handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet") {
        default_text(http, "path", "/");
        default_text(http, "scheme", "HTTP");
    }
}

/// Which probe of a container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Decides about restarts; one success is enough.
    Liveness,
    /// Decides about traffic.
    Readiness,
    /// Holds the others back; one success is enough.
    Startup,
}

/// Everything wrong with a probe.
pub fn validate_probe(probe: &Value, kind: ProbeKind, path: &FieldPath, errors: &mut Vec<FieldError>) {
    validate_handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for name in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        let value = integer(probe, name).unwrap_or(0);
        if value < 0 {
            errors.push(field::invalid(path.child(name), value, "must be greater than or equal to 0"));
        }
    }
    if let Some(seconds) = integer(probe, "terminationGracePeriodSeconds") {
        if kind == ProbeKind::Readiness {
            errors.push(field::invalid(
                path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            ));
        } else if seconds <= 0 {
            errors.push(field::invalid(
                path.child("terminationGracePeriodSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
    }
    let successes = integer(probe, "successThreshold").unwrap_or(1);
    if kind != ProbeKind::Readiness && successes != 1 {
        errors.push(field::invalid(path.child("successThreshold"), successes, "must be 1"));
    }
}

/// A handler: exactly one of the types allowed.
pub fn validate_handler(handler: &Value, path: &FieldPath, types: &[&str], errors: &mut Vec<FieldError>) {
    let mut found = 0;
    for name in types {
        let Some(action) = present(handler, name) else { continue };
        found += 1;
        let at = path.child(name);
        if found > 1 {
            errors.push(field::forbidden(at, "may not specify more than 1 handler type"));
            continue;
        }
        match *name {
            "exec" if items(action, "command").is_empty() => {
                errors.push(field::required(at.child("command"), ""));
            }
            "httpGet" => {
                if text(action, "path").is_empty() {
                    errors.push(field::required(at.child("path"), ""));
                }
                validate_port(action.get("port"), &at.child("port"), errors);
                if !matches!(text(action, "scheme"), "HTTP" | "HTTPS") {
                    errors.push(field::not_supported(
                        at.child("scheme"),
                        text(action, "scheme"),
                        &["HTTP", "HTTPS"],
                    ));
                }
                for (index, header) in items(action, "httpHeaders").iter().enumerate() {
                    let name = text(header, "name");
                    for problem in names::http_header_name(name) {
                        errors.push(field::invalid(
                            at.child("httpHeaders").index(index).child("name"),
                            name,
                            problem,
                        ));
                    }
                }
            }
            "tcpSocket" => validate_port(action.get("port"), &at.child("port"), errors),
            "grpc" => validate_port(action.get("port"), &at.child("port"), errors),
            "sleep" => {
                let seconds = integer(action, "seconds").unwrap_or(0);
                if seconds < 0 {
                    errors.push(field::invalid(&at, seconds, "must be greater than or equal to 0"));
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(field::required(path, "must specify a handler type"));
    }
}

/// A port by number or by name.
pub fn validate_port(port: Option<&Value>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match port {
        Some(Value::String(name)) => {
            for problem in names::port_name(name) {
                errors.push(field::invalid(path, name.as_str(), problem));
            }
        }
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            for problem in names::port_number(number) {
                errors.push(field::invalid(path, number, problem));
            }
        }
    }
}
