//! From a request's bytes to an object of the expected kind: apiVersion and kind, field types, unknown and duplicate fields.

use coracle_api::custom;
use coracle_api::decode;
use coracle_api::meta;
use coracle_api::resource::Resource;
use coracle_api::schema::{self, Schema};
use coracle_api::status::ApiError;
use serde_json::Value;

use crate::server::request_info::{FieldValidation, RequestInfo};

/// The group, version and kind a request's body has to have: the subresource's own (`Scale`, `Binding`), or the resource's.
pub fn expected_kind(request: &RequestInfo) -> (String, &'static str) {
    let resource = request.resource;
    match request.subresource {
        Some(sub) if sub.kind != resource.kind => {
            (coracle_api::meta::join_api_version(sub.group, sub.version), sub.kind)
        }
        _ => (resource.api_version(), resource.kind),
    }
}

/// The schema a request's body has to follow.
fn expected_schema(request: &RequestInfo) -> &'static Schema {
    let subresource = request.subresource.filter(|sub| sub.kind != request.resource.kind);
    subresource
        .and_then(|sub| schema::of_kind(sub.group, sub.version, sub.kind))
        .unwrap_or_else(|| schema::of(request.resource))
}

/// Checks and completes apiVersion and kind.
///
/// # Errors
/// 400 with upstream's text.
pub fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): an object is expected"
        )));
    };
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        if fields.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            fields.insert(field.into(), Value::String(wanted.into()));
        }
    }
    let found = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
    let (found_version, found_kind) = (found("apiVersion"), found("kind"));
    if (found_version, found_kind) == (api_version, kind) {
        return Ok(());
    }
    let (group, version) = meta::split_api_version(found_version);
    let wanted_group = meta::split_api_version(api_version).0;
    if found_kind == kind && group == wanted_group {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    let problem = if schema::of_kind(group, version, found_kind).is_some() {
        // The package of upstream's types of a group has the group's first label as its name.
        let package = wanted_group.split('.').next().filter(|label| !label.is_empty()).unwrap_or("core");
        format!("converting ({version}.{found_kind}) to ({package}.{kind}): unknown conversion")
    } else {
        format!(
            "no kind \"{found_kind}\" is registered for version \"{found_version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(ApiError::bad_request(format!(
        "{found_kind} in version \"{version}\" cannot be handled as a {kind}: {problem}"
    )))
}

/// What the decoder complains of in a body that it could read.
#[derive(Clone, Copy, Default)]
pub struct Complaints<'a> {
    /// A text for each field given twice.
    pub duplicates: &'a [String],
    /// The form of the body, which decides their order and words.
    pub body: Body<'a>,
}

/// The form of a body.
#[derive(Clone, Copy, Default)]
pub enum Body<'a> {
    /// JSON that is read into a type.
    Json(&'a [u8]),
    /// YAML, which becomes JSON first.
    Yaml,
    /// One that is complete and known before its kind is looked at.
    #[default]
    Other,
}

impl Complaints<'_> {
    /// All complaints in upstream's order, one text each for warnings, as its errors join them for strict requests.
    fn with_unknown(&self, paths: &[String], strict: bool) -> Vec<String> {
        let unknown = paths.iter().map(|path| decode::unknown_field_text(path));
        match self.body {
            Body::Json(json) if self.duplicates.len() + paths.len() > 1 => {
                decode::in_reading_order(json, paths)
            }
            Body::Yaml if strict && !self.duplicates.is_empty() => {
                std::iter::once(decode::yaml_errors(self.duplicates)).chain(unknown).collect()
            }
            _ => self.duplicates.iter().cloned().chain(unknown).collect(),
        }
    }
}

/// Checks types against the schema and takes unknown fields out, which are errors, warnings or nothing as the request wants.
/// `complaints` are what the decoder found (duplicate fields).
///
/// # Errors
/// 400 with upstream's text.
pub fn check_schema(
    request: &RequestInfo,
    resource: &'static Resource,
    object: &mut Value,
    complaints: Complaints<'_>,
) -> Result<(), ApiError> {
    let strict = request.field_validation == FieldValidation::Strict;
    let unknown = known_fields(request, resource, object)?;
    // Custom resources are read as a tree first: what is given twice is found before the kind's fields are looked at.
    let body = match complaints.body {
        Body::Json(_) if is_custom(request, resource) => Body::Other,
        body => body,
    };
    report(request, resource, Complaints { body, ..complaints }.with_unknown(&unknown, strict))
}

/// Whether the body is a custom resource, and not what a subresource takes.
fn is_custom(request: &RequestInfo, resource: &Resource) -> bool {
    resource.custom.is_some() && request.subresource.is_none_or(|sub| sub.kind == resource.kind)
}

/// Checks types against the schema and takes unknown fields out; gives the paths of those.
///
/// # Errors
/// 400 with upstream's text.
pub fn known_fields(
    request: &RequestInfo,
    resource: &'static Resource,
    object: &mut Value,
) -> Result<Vec<String>, ApiError> {
    let wrong = |error: String| decode::cannot_be_handled(resource.kind, resource.version, &error);
    if let (Some(definition), true) = (resource.custom, is_custom(request, resource)) {
        return custom::decode(object, definition).map_err(wrong);
    }
    let schema = expected_schema(request);
    schema::check_types(object, schema).map_err(wrong)?;
    Ok(schema::prune(object, schema).into_iter().map(|field| field.path).collect())
}

/// Turns complaints about fields into what the request wants.
///
/// # Errors
/// 400 with upstream's text when it wants to be strict.
fn report(
    request: &RequestInfo,
    resource: &'static Resource,
    complaints: Vec<String>,
) -> Result<(), ApiError> {
    match request.field_validation {
        _ if complaints.is_empty() => {}
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            for complaint in complaints {
                request.warnings.add(complaint);
            }
        }
        FieldValidation::Strict => {
            return Err(decode::strict_decoding_error(resource.kind, resource.version, &complaints));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kind_is_completed_or_checked() {
        let mut object = json!({"metadata": {}});
        check_kind(&mut object, "apps/v1", "Deployment").expect("completes");
        assert_eq!(object["apiVersion"], "apps/v1");
        for (version, kind, text) in [
            (
                "apps/v2",
                "Deployment",
                "the API version in the data (apps/v2) does not match the expected API version (apps/v1)",
            ),
            (
                "v1",
                "Pod",
                "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion",
            ),
            (
                "v1",
                "Ship",
                "Ship in version \"v1\" cannot be handled as a Deployment: no kind \"Ship\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            ),
        ] {
            let mut other = json!({"apiVersion": version, "kind": kind});
            let error = check_kind(&mut other, "apps/v1", "Deployment").expect_err("is refused");
            assert_eq!(error.message(), text);
        }
        assert!(check_kind(&mut json!([]), "v1", "Pod").is_err());
    }
}
