//! Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::access::{default_text, map, remove, struct_mut, text};
use super::config_map::{DATA_BYTES_MAX, decoded_length, immutability};
use super::object_meta;
use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Upstream's defaults: the type, and `stringData` taken over into `data`.
pub fn default(object: &mut Value) {
    if let Some(Value::Object(plain)) = remove(object, "stringData")
        && !plain.is_empty()
        && let Some(Value::Object(data)) = struct_mut(object, "data")
    {
        for (key, value) in plain {
            let value = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, value.into());
        }
    }
    default_text(object, "type", "Opaque");
}

/// Everything wrong with a new Secret.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(object, true, names::dns1123_subdomain);
    content(object, &mut errors);
    errors
}

fn content(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("data");
    let empty = Map::new();
    let data = map(object, "data").unwrap_or(&empty);
    let mut total = 0;
    for (key, value) in data {
        for problem in names::config_map_key(key) {
            errors.push(field::invalid(path.key(key), key.as_str(), problem));
        }
        total += decoded_length(value.as_str().unwrap_or_default());
    }
    if total > DATA_BYTES_MAX {
        errors.push(field::too_long(&path, DATA_BYTES_MAX));
    }
    let has = |key: &str| data.contains_key(key);
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let account = crate::meta::annotations(object)
                .and_then(|annotations| annotations.get("kubernetes.io/service-account.name"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            if account.is_empty() {
                errors.push(field::required(
                    FieldPath::new("metadata").child("annotations").key("kubernetes.io/service-account.name"),
                    "",
                ));
            }
        }
        "kubernetes.io/dockercfg" => json_document(data, ".dockercfg", &path, errors),
        "kubernetes.io/dockerconfigjson" => json_document(data, ".dockerconfigjson", &path, errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.push(field::required(path.key("username"), ""));
            errors.push(field::required(path.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| key == "") => {
            errors.push(field::required(path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.push(field::required(path.key(key), ""));
                }
            }
        }
        _ => {}
    }
}

fn json_document(data: &Map<String, Value>, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(value) = data.get(key) else {
        errors.push(field::required(path.key(key), ""));
        return;
    };
    let decoded = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Value>(&decoded) {
        errors.push(field::invalid(path.key(key), "<secret contents redacted>", error.to_string()));
    }
}

/// Everything wrong with a changed Secret: the type stays, an immutable one keeps its data.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    object_meta::check_immutable(new.get("type"), old.get("type"), &FieldPath::new("type"), &mut errors);
    immutability(new, old, &["data"], &mut errors);
    content(new, &mut errors);
    errors
}
