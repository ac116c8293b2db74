//! ServiceAccounts.

use serde_json::Value;

use super::object_meta;
use crate::field::FieldError;
use crate::names;

/// Upstream has no defaults.
pub fn default(_object: &mut Value) {}

/// Everything wrong with a new ServiceAccount.
pub fn validate(object: &Value) -> Vec<FieldError> {
    object_meta::validate(object, true, names::dns1123_subdomain)
}

/// Everything wrong with a changed ServiceAccount.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    object_meta::validate_update(new, old)
}
