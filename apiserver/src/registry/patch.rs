//! The patch types: what each sends, and the object that comes out.

use coracle_api::status::ApiError;
use serde_json::Value;

use crate::server::request_info::RequestInfo;

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
    /// Of a media type.
    ///
    /// # Errors
    /// 415 for any other.
    pub fn of(media_type: &str) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// A decoded patch.
pub struct Patch {
    patch_type: PatchType,
    body: Value,
}

impl Patch {
    /// From the request's body.
    ///
    /// # Errors
    /// 400 for a body that is no patch.
    pub fn decode(_request: &RequestInfo, patch_type: PatchType, bytes: &[u8]) -> Result<Self, ApiError> {
        if matches!(patch_type, PatchType::Strategic | PatchType::Apply) {
            return Err(ApiError::not_implemented("this patch type is not implemented yet"));
        }
        let body = serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Self { patch_type, body })
    }

    /// Whether it is an apply, which keeps its own account of managers.
    pub fn is_apply(&self) -> bool {
        self.patch_type == PatchType::Apply
    }

    /// The patched object.
    ///
    /// # Errors
    /// The patch does not fit the object.
    pub fn apply(&self, _request: &RequestInfo, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        match self.patch_type {
            PatchType::Json => {
                let patch: json_patch::Patch = serde_json::from_value(self.body.clone())
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
                json_patch::patch(&mut new, &patch)
                    .map_err(|error| ApiError::patch_not_applicable(&error.to_string()))?;
            }
            _ => json_patch::merge(&mut new, &self.body),
        }
        Ok(new)
    }

    /// The object that an apply to nothing creates.
    ///
    /// # Errors
    /// As for [`Patch::apply`].
    pub fn create(&self, _request: &RequestInfo) -> Result<Option<Value>, ApiError> {
        Ok(None)
    }
}
