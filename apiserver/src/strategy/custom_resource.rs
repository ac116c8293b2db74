//! Custom resources: what their definition says, for every one of them alike.

use std::borrow::Cow;

use coracle_api::custom::{self, Definition, Verdict};
use coracle_api::field::{FieldError, FieldPath};
use coracle_api::kinds::{access, object_meta};
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use coracle_api::{meta, names};
use futures::future::BoxFuture;
use serde_json::Value;

use super::common::{is_status, keep, keep_all_but_status, next_generation, set_generation};
use super::{Dependencies, Strategy};
use crate::cache::layout::definitions_resource;
use crate::server::request_info::RequestInfo;

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        custom::default(object, &self.schema);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        if self.has_status {
            access::remove(object, "status");
        }
        set_generation(object, 1);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let namespaced = !meta::namespace(object).is_empty();
        let mut errors = object_meta::validate_any(object, namespaced, names::dns1123_subdomain);
        errors.extend(custom::validate(object, &self.schema, &FieldPath::root()));
        errors.extend(held_to_rules(self, object, None, &errors).errors);
        errors
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        if self.has_status && is_status(request) {
            keep_all_but_status(new, old);
            let managed = meta::get(new, &["metadata", "managedFields"]).cloned();
            keep(new, old, "metadata");
            if let Some(managed) = managed {
                meta::set(new, "managedFields", managed);
            }
            return;
        }
        if self.has_status {
            keep(new, old, "status");
        }
        // Everything that is wanted counts: metadata does not, nor the status where it is written apart.
        let wanted = |object: &Value| -> Vec<(String, Value)> {
            let fields = object.as_object().into_iter().flatten();
            fields
                .filter(|(key, _)| *key != "metadata" && !(self.has_status && *key == "status"))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let (mut one, mut other) = (wanted(new), wanted(old));
        one.sort_by(|(one, _), (other, _)| one.cmp(other));
        other.sort_by(|(one, _), (other, _)| one.cmp(other));
        if one != other {
            next_generation(new, old);
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = object_meta::validate_any_update(new, old);
        errors.extend(custom::validate(new, &self.schema, &FieldPath::root()));
        let verdict = held_to_rules(self, new, Some(old), &errors);
        for warning in verdict.warnings {
            request.warnings.add(warning.to_string());
        }
        errors.extend(verdict.errors);
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        self.deprecation.iter().cloned().chain(object_meta::finalizer_warnings(new, old)).collect()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        self.selectable
            .iter()
            .map(|(name, path)| {
                (*name, path.find(object).first().map(|value| shown(value)).unwrap_or_default())
            })
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        self.selectable_names
    }

    fn stored_as(&self) -> Option<&'static Resource> {
        self.stored_as
    }

    fn decode<'a>(&self, stored: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok(mut object) = serde_json::from_slice::<Value>(stored) else { return Cow::Borrowed(stored) };
        self.revive(&mut object);
        serde_json::to_vec(&object).map_or(Cow::Borrowed(stored), Cow::Owned)
    }

    fn to_stored(&self, mut object: Value) -> Value {
        if let Some(stored) = self.stored_as.and_then(|row| row.custom) {
            stored.convert(&mut object);
        }
        object
    }

    fn from_stored(&self, mut object: Value) -> Value {
        self.convert(&mut object);
        object
    }

    fn before_create<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        request: &'a RequestInfo,
        _object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let definition =
            definitions_resource().and_then(|row| dependencies.registry.cached(row, "", &self.name));
        let terminating = definition
            .and_then(|object| object.value().ok())
            .is_some_and(|definition| custom::condition(&definition, "Terminating"));
        let resource = request.resource.group_resource();
        Box::pin(std::future::ready(match terminating {
            true => Err(ApiError::definition_terminating(resource, "create")),
            false => Ok(()),
        }))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

/// What the rules of a definition say of an object, unless its schema has refused it already.
fn held_to_rules(
    definition: &Definition,
    object: &Value,
    old: Option<&Value>,
    errors: &[FieldError],
) -> Verdict {
    let Some(rules) = definition.rules() else { return Verdict::default() };
    match custom::blocked(errors) {
        Some(error) => Verdict { errors: vec![error], warnings: Vec::new() },
        None => custom::judge(object, old, rules),
    }
}
