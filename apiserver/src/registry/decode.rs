//! From a request's bytes to an object of the expected kind: apiVersion and kind, field types, unknown and duplicate fields.

use coracle_api::custom;
use coracle_api::decode;
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
        match fields.get(field).and_then(Value::as_str) {
            None | Some("") => {
                fields.insert(field.into(), Value::String(wanted.into()));
            }
            Some(found) if found != wanted && field == "apiVersion" => {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({found}) does not match the expected API version ({wanted})"
                )));
            }
            Some(found) if found != wanted => {
                return Err(ApiError::bad_request(format!(
                    "{kind} in version \"{}\" cannot be handled as a {found}: no kind \"{found}\" is registered for this request",
                    api_version.rsplit('/').next().unwrap_or(api_version),
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
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
    mut complaints: Vec<String>,
) -> Result<(), ApiError> {
    let own_kind = request.subresource.is_none_or(|sub| sub.kind == resource.kind);
    if let (Some(definition), true) = (resource.custom, own_kind) {
        let unknown = custom::decode(object, definition)
            .map_err(|error| decode::cannot_be_handled(resource.kind, resource.version, &error))?;
        complaints.extend(unknown);
        return report(request, resource, complaints);
    }
    let schema = expected_schema(request);
    schema::check_types(object, schema)
        .map_err(|error| decode::cannot_be_handled(resource.kind, resource.version, &error))?;
    complaints.extend(schema::prune(object, schema).into_iter().map(|field| field.to_string()));
    report(request, resource, complaints)
}

/// Turns complaints about fields into what the request wants.
///
/// # Errors
/// 400 with upstream's text when it wants to be strict.
pub fn report(
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
        let mut other = json!({"apiVersion": "v1", "kind": "Deployment"});
        let error = check_kind(&mut other, "apps/v1", "Deployment").expect_err("is refused");
        assert_eq!(
            error.message(),
            "the API version in the data (v1) does not match the expected API version (apps/v1)"
        );
        assert!(check_kind(&mut json!([]), "v1", "Pod").is_err());
    }
}
