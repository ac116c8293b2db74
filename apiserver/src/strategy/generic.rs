//! The strategy of kinds that only hold what clients put in.

use coracle_api::field::{self, FieldError};
use coracle_api::names;
use serde_json::Value;

use super::Strategy;
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// Takes every object with a valid name.
pub struct Generic;

impl Strategy for Generic {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let name = meta::text(object, "name");
        if name.is_empty() {
            return vec![field::required("metadata.name", "name or generateName is required")];
        }
        names::dns1123_subdomain(name)
            .into_iter()
            .map(|problem| field::invalid("metadata.name", name, problem))
            .collect()
    }

    fn validate_update(&self, _request: &RequestInfo, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate(new)
    }
}
