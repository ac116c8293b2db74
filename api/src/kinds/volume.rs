//! Volumes of pods.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::access::{default_text, default_to, each_mut, integer, items, present, set, struct_mut, text};
use super::container::{VOLUME_FIELDS, field_reference, local_descending_path, resource_reference};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// The highest file mode, 0777.
const MODE_MAX: i64 = 0o777;

/// Permission bits of files in volumes made of objects: 0644.
const FILE_MODE: i64 = 420;

/// Upstream's defaults of one volume.
pub fn default(volume: &mut Value) {
    let Some(fields) = volume.as_object() else { return };
    if !fields.iter().any(|(key, value)| key != "name" && !value.is_null()) {
        set(volume, "emptyDir", Value::Object(Map::new()));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| source.is_object()) {
            default_to(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = volume.get_mut("downwardAPI") {
        each_mut(source, "items", default_downward_file);
    }
    if let Some(projected) = volume.get_mut("projected") {
        each_mut(projected, "sources", |source| {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                each_mut(downward, "items", default_downward_file);
            }
        });
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        default_to(host_path, "type", "");
    }
    let claim = volume.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|template| struct_mut(template, "spec")) {
        default_text(spec, "volumeMode", "Filesystem");
    }
}

fn default_downward_file(file: &mut Value) {
    if let Some(reference) = file.get_mut("fieldRef") {
        default_text(reference, "apiVersion", "v1");
    }
    if let Some(reference) = file.get_mut("resourceFieldRef") {
        default_to(reference, "divisor", "0");
    }
}

/// Everything wrong with `spec.volumes`.
pub fn validate_list(volumes: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(field::required(at.child("name"), ""));
        } else {
            let problems = names::dns1123_label(name);
            errors
                .extend(problems.into_iter().map(|problem| field::invalid(at.child("name"), name, problem)));
            if !taken.insert(name) {
                errors.push(field::duplicate(at.child("name"), name));
            }
        }
        source(volume, &at, errors);
    }
}

fn source(volume: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut found = 0;
    for (kind, source) in volume.as_object().into_iter().flatten() {
        if kind == "name" || source.is_null() {
            continue;
        }
        found += 1;
        let at = path.child(kind);
        if found > 1 {
            errors.push(field::forbidden(at, "may not specify more than 1 volume type"));
            continue;
        }
        match kind.as_str() {
            "hostPath" => host_path(source, &at, errors),
            "configMap" => {
                required(source, "name", &at, errors);
                mode(source, "defaultMode", &at, errors);
                key_files(source, &at, errors);
            }
            "secret" => {
                required(source, "secretName", &at, errors);
                mode(source, "defaultMode", &at, errors);
                key_files(source, &at, errors);
            }
            "downwardAPI" => {
                mode(source, "defaultMode", &at, errors);
                downward_files(source, &at, errors);
            }
            "projected" => {
                mode(source, "defaultMode", &at, errors);
                projected(source, &at, errors);
            }
            "persistentVolumeClaim" => required(source, "claimName", &at, errors),
            "nfs" => {
                required(source, "server", &at, errors);
                required(source, "path", &at, errors);
            }
            "csi" => required(source, "driver", &at, errors),
            "emptyDir" => {
                if let Some(limit) = present(source, "sizeLimit") {
                    super::resources::validate_value("storage", limit, &at.child("sizeLimit"), errors);
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(field::required(path, "must specify a volume type"));
    }
}

fn required(source: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if text(source, key).is_empty() {
        errors.push(field::required(path.child(key), ""));
    }
}

fn mode(source: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(mode) = integer(source, key)
        && !(0..=MODE_MAX).contains(&mode)
    {
        errors.push(field::invalid(
            path.child(key),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}

/// Everything wrong with a directory or file of the node.
pub fn host_path(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let target = text(source, "path");
    if target.is_empty() {
        errors.push(field::required(path.child("path"), ""));
        return;
    }
    if target.split('/').any(|part| part == "..") {
        errors.push(field::invalid(path.child("path"), target, "must not contain '..'"));
    }
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(field::not_supported(path.child("type"), kind, HOST_PATH_TYPES));
    }
}

fn file_path(file: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let target = text(file, "path");
    if target.is_empty() {
        errors.push(field::required(path.child("path"), ""));
        return;
    }
    local_descending_path(target, &path.child("path"), errors);
    if target.starts_with("..") && target != ".." && !target.starts_with("../") {
        errors.push(field::invalid(path.child("path"), target, "must not start with '..'"));
    }
}

fn key_files(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, file) in items(source, "items").iter().enumerate() {
        let at = path.child("items").index(index);
        required(file, "key", &at, errors);
        file_path(file, &at, errors);
        mode(file, "mode", &at, errors);
    }
}

fn downward_files(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, file) in items(source, "items").iter().enumerate() {
        let at = path.child("items").index(index);
        file_path(file, &at, errors);
        mode(file, "mode", &at, errors);
        match (present(file, "fieldRef"), present(file, "resourceFieldRef")) {
            (Some(_), Some(_)) => errors.push(field::invalid(
                &at,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
            (Some(reference), None) => {
                field_reference(reference, VOLUME_FIELDS, &at.child("fieldRef"), errors);
            }
            (None, Some(reference)) => {
                resource_reference(reference, true, &at.child("resourceFieldRef"), errors);
            }
            (None, None) => {
                errors.push(field::required(&at, "one of fieldRef and resourceFieldRef is required"));
            }
        }
    }
}

fn projected(volume: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, source) in items(volume, "sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        let mut found = 0;
        for (kind, one) in source.as_object().into_iter().flatten().filter(|(_, one)| !one.is_null()) {
            found += 1;
            let here = at.child(kind);
            if found > 1 {
                errors.push(field::forbidden(here, "may not specify more than 1 volume type per source"));
                continue;
            }
            match kind.as_str() {
                "secret" | "configMap" => {
                    required(one, "name", &here, errors);
                    key_files(one, &here, errors);
                }
                "downwardAPI" => downward_files(one, &here, errors),
                "serviceAccountToken" => {
                    let seconds = integer(one, "expirationSeconds").unwrap_or(3600);
                    if seconds < 600 {
                        errors.push(field::invalid(
                            here.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration less than 10 minutes",
                        ));
                    }
                    if seconds > 1 << 32 {
                        errors.push(field::invalid(
                            here.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        ));
                    }
                    required(one, "path", &here, errors);
                }
                _ => {}
            }
        }
        if found == 0 {
            errors.push(field::required(&at, "must specify a volume type"));
        }
    }
}
