//! The patch types: what each sends, and the object that comes out.

use coracle_api::decode::Decoded;
use coracle_api::resource::Resource;
use coracle_api::status::{ApiError, GroupKind};
use coracle_api::{apply, custom, decode, field, patch, schema};
use serde_json::Value;

use super::decode::{Body, Complaints, check_kind, check_schema, expected_kind};
use super::meta;
use crate::server::request_info::{FieldValidation, RequestInfo};

/// By media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' merge that knows lists' keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

impl PatchType {
    /// Of a media type; custom resources have no strategic merge.
    ///
    /// # Errors
    /// 415 for any other.
    pub fn of(media_type: &str, resource: &Resource) -> Result<Self, ApiError> {
        let accepted = if resource.custom.is_some() { &ACCEPTED[..3] } else { ACCEPTED };
        match media_type {
            other if !accepted.contains(&other) => Err(ApiError::unsupported_media_type(accepted)),
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Ok(Self::Apply),
        }
    }
}

/// Server-side apply needs a manager; other patches cannot be forced.
const OPTIONS_KIND: GroupKind<'_> = GroupKind { group: "meta.k8s.io", kind: "PatchOptions" };

/// A decoded patch.
pub struct Patch {
    patch_type: PatchType,
    body: Value,
    /// Complaints about fields given twice.
    duplicates: Vec<String>,
    force: bool,
}

impl Patch {
    /// From the request's body.
    ///
    /// # Errors
    /// 400 for a body that is no patch, 422 for options that do not go with the type.
    pub fn decode(request: &RequestInfo, patch_type: PatchType, bytes: &[u8]) -> Result<Self, ApiError> {
        let force = request.query.get("force").is_some();
        let mut errors = Vec::new();
        if patch_type == PatchType::Apply {
            if request.query.get("fieldManager").is_none_or(str::is_empty) {
                errors.push(field::required("fieldManager", "is required for apply patch"));
            }
        } else if force {
            errors.push(field::forbidden("force", "may not be specified for non-apply patch"));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(OPTIONS_KIND, "", errors));
        }
        let decoded = if patch_type == PatchType::Apply { decode::yaml(bytes) } else { decode::json(bytes) };
        let decoded = decoded.map_err(|error| {
            ApiError::bad_request(match patch_type {
                PatchType::Apply => format!("error decoding YAML: {error}"),
                _ => format!("error decoding patch: {error}"),
            })
        })?;
        let Decoded { value, duplicates } = decoded;
        Ok(Self { patch_type, body: value, duplicates, force: request.query.flag("force") })
    }

    /// Whether it is an apply, which keeps its own account of managers.
    pub fn is_apply(&self) -> bool {
        self.patch_type == PatchType::Apply
    }

    /// The patched object, checked against the schema.
    ///
    /// # Errors
    /// The patch does not fit the object, or the result is not of the kind; 409 for an apply of fields that others manage.
    pub fn apply(&self, request: &RequestInfo, old: &Value) -> Result<Value, ApiError> {
        let schema = schema::of(request.resource);
        let mut new = match self.patch_type {
            PatchType::Json => patch::json::apply(old, &self.body)?,
            PatchType::Merge => patch::merge::apply(old, &self.body)?,
            PatchType::Strategic => patch::strategic::apply(old, &self.body, schema)?,
            PatchType::Apply => return self.server_side_apply(request, Some(old)),
        };
        let (api_version, kind) = expected_kind(request);
        let shown = self.body.to_string();
        let complaints = Complaints { duplicates: &self.duplicates, body: Body::Other };
        let checked = check_kind(&mut new, &api_version, kind)
            .and_then(|()| check_schema(request, request.resource, &mut new, complaints));
        checked.map(|()| new).map_err(|error| result_refused(&shown, &error))
    }

    /// The object that an apply to nothing creates; `None` for the other types, which need an object.
    ///
    /// # Errors
    /// As for [`Patch::apply`].
    pub fn create(&self, request: &RequestInfo) -> Result<Option<Value>, ApiError> {
        if !self.is_apply() {
            return Ok(None);
        }
        let new = self.server_side_apply(request, None)?;
        meta::check_named(&new, request.name())?;
        Ok(Some(new))
    }

    fn server_side_apply(&self, request: &RequestInfo, live: Option<&Value>) -> Result<Value, ApiError> {
        let mut applied = self.body.clone();
        let (api_version, kind) = expected_kind(request);
        let version = applied.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if version != api_version {
            return Err(ApiError::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {api_version}"
            )));
        }
        check_kind(&mut applied, &api_version, kind)?;
        // Unknown fields are refused by the merge, whatever the field validation.
        match request.resource.custom {
            Some(definition) => custom::decode(&mut applied.clone(), definition).map(drop),
            None => schema::check_types(&applied, schema::of(request.resource)),
        }
        .map_err(|error| decode::cannot_be_handled(kind, request.resource.version, &error))?;
        if !meta::text(&applied, "name").is_empty() && meta::text(&applied, "name") != request.name() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta::text(&applied, "name"),
                request.name()
            )));
        }
        let merged = apply::apply(
            live,
            &applied,
            &request.field_manager,
            request.subresource().unwrap_or_default(),
            self.force,
            schema::of(request.resource),
            meta::now(),
        )?;
        self.complain_of_repeated_keys(request)?;
        Ok(merged)
    }

    /// What an apply gives twice, which counts once it could be merged.
    fn complain_of_repeated_keys(&self, request: &RequestInfo) -> Result<(), ApiError> {
        match request.field_validation {
            FieldValidation::Warn => {
                self.duplicates.iter().for_each(|complaint| request.warnings.add(complaint.clone()));
            }
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                return Err(ApiError::bad_request(format!(
                    "error strict decoding YAML: error converting YAML to JSON: {}",
                    decode::yaml_errors(&self.duplicates)
                )));
            }
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
        Ok(())
    }
}

/// 422 for a patch whose result is no object of the kind.
fn result_refused(patch: &str, error: &ApiError) -> ApiError {
    let text = error.message();
    let text = text
        .split_once(": ")
        .filter(|(start, _)| start.contains("cannot be handled"))
        .map_or(text, |(_, rest)| rest);
    ApiError::invalid(GroupKind { group: "", kind: "" }, "", vec![field::invalid("patch", patch, text)])
}
