//! Namespaces: one that is deleted stays, `Terminating`, until `spec.finalizers` is empty.

use coracle_api::field::FieldError;
use coracle_api::kinds::{access, namespace};
use serde_json::Value;

use super::Strategy;
use super::common::{keep, keep_all_but_status, text_at};
use crate::server::request_info::RequestInfo;

/// `namespaces`.
pub struct Namespace;

fn spec_finalizers(object: &Value) -> &[Value] {
    object.get("spec").map(|spec| access::items(spec, "finalizers")).unwrap_or_default()
}

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        namespace::default(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        // A generated name was not known when defaults were set.
        namespace::default(object);
        namespace::prepare_for_create(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        namespace::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        match request.subresource() {
            Some("status") => keep_all_but_status(new, old),
            Some("finalize") => keep(new, old, "status"),
            _ => {
                keep(new, old, "spec");
                keep(new, old, "status");
            }
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        match request.subresource() {
            Some("status") => namespace::validate_status_update(new, old),
            Some("finalize") => namespace::validate_finalize(new, old),
            _ => namespace::validate_update(new, old),
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        // Namespaces may be selected by name under this label too.
        vec![
            ("status.phase", text_at(object, &["status", "phase"])),
            ("name", text_at(object, &["metadata", "name"])),
        ]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn blocks_deletion(&self, object: &Value) -> bool {
        !spec_finalizers(object).is_empty()
    }

    fn mark_deleting(&self, object: &mut Value) {
        if let Some(status) = access::struct_mut(object, "status") {
            access::set(status, "phase", "Terminating");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deleted_namespace_waits_for_its_content() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        assert!(Namespace.blocks_deletion(&object));
        Namespace.mark_deleting(&mut object);
        assert_eq!(object["status"]["phase"], "Terminating");
        object["spec"]["finalizers"] = json!([]);
        assert!(!Namespace.blocks_deletion(&object));
    }
}
