//! Pods: a status that only `pods/status` writes, and deletions that wait for the node.

use coracle_api::field::FieldError;
use coracle_api::kinds::{access, pod, pod_ephemeral, pod_resize};
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::common::{
    boolean_at, differs, keep, keep_all_but_status, next_generation, set_generation, text_at,
};
use super::{Dependencies, Strategy};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// `pods`.
pub struct Pod;

/// The field that does without its feature gate what an unknown one does: nothing.
const WORKLOAD: &str = "workloadRef";

const FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        pod::default(object);
    }

    fn prepare_for_create(&self, _request: &RequestInfo, object: &mut Value) {
        set_generation(object, 1);
        if let Some(spec) = object.get_mut("spec") {
            access::drop_nulls(spec);
        }
        let status = pod::initial_status(object.get("spec").unwrap_or(&Value::Null));
        access::set(object, "status", status);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        pod::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        match request.subresource() {
            Some("status") => {
                keep_all_but_status(new, old);
                meta::copy_field(old, new, "ownerReferences");
                if let Some(class) = old.get("status").and_then(|status| status.get("qosClass")).cloned()
                    && let Some(status) = new.get_mut("status")
                {
                    access::set(status, "qosClass", class);
                }
            }
            Some(part @ ("ephemeralcontainers" | "resize")) => {
                *new = match part {
                    "resize" => pod_resize::only_resources(new, old),
                    _ => pod_ephemeral::only_ephemeral_containers(new, old),
                };
                if differs(new, old, "spec") {
                    next_generation(new, old);
                }
            }
            // The scheduler's word changes the node and a condition.
            Some("binding" | "eviction") => {}
            _ => {
                keep(new, old, "status");
                if differs(new, old, "spec") {
                    next_generation(new, old);
                }
            }
        }
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        match request.subresource() {
            Some("status") => pod::validate_status_update(new, old),
            Some("ephemeralcontainers") => pod_ephemeral::validate_update(new, old),
            Some("resize") => pod_resize::validate_update(new, old),
            Some("binding" | "eviction") => coracle_api::kinds::object_meta::validate_update(new, old),
            _ => pod::validate_update(new, old),
        }
    }

    fn before_create<'a>(
        &'a self,
        dependencies: &'a Dependencies,
        _request: &'a RequestInfo,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(spec) = object.get_mut("spec").filter(|spec| spec.get(WORKLOAD).is_some()) else {
                return Ok(());
            };
            if !dependencies.options.gates().map_err(ApiError::internal)?.is_on("GenericWorkload") {
                access::remove(spec, WORKLOAD);
            }
            Ok(())
        })
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        FIELDS
            .iter()
            .map(|field| {
                let path: Vec<&str> = field.split('.').collect();
                let value = match *field {
                    "spec.hostNetwork" => boolean_at(object, &path),
                    "status.podIPs" => coracle_api::meta::get(object, &["status"])
                        .map(|status| access::items(status, "podIPs"))
                        .unwrap_or_default()
                        .iter()
                        .map(|address| access::text(address, "ip"))
                        .collect::<Vec<_>>()
                        .join(","),
                    _ => text_at(object, &path),
                };
                (*field, value)
            })
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        FIELDS
    }

    fn graceful_deletion(&self, object: &Value, requested_seconds: Option<i64>) -> Option<i64> {
        let own = || {
            coracle_api::meta::get(object, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64)
        };
        let unassigned = text_at(object, &["spec", "nodeName"]).is_empty();
        Some(match requested_seconds.or_else(own).unwrap_or(0) {
            _ if unassigned || pod::is_finished(object) => 0,
            seconds if seconds < 0 => 1,
            seconds => seconds,
        })
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_running_pods_on_a_node_are_given_time() {
        let pod = json!({"spec": {"nodeName": "a", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        assert_eq!(Pod.graceful_deletion(&pod, None), Some(30));
        assert_eq!(Pod.graceful_deletion(&pod, Some(5)), Some(5));
        assert_eq!(Pod.graceful_deletion(&pod, Some(0)), Some(0));
        assert_eq!(Pod.graceful_deletion(&pod, Some(-3)), Some(1));
        let mut done = pod.clone();
        done["status"]["phase"] = json!("Failed");
        assert_eq!(Pod.graceful_deletion(&done, None), Some(0));
        let mut waiting = pod;
        waiting["spec"]["nodeName"] = json!("");
        assert_eq!(Pod.graceful_deletion(&waiting, Some(10)), Some(0));
    }

    #[test]
    fn addresses_and_flags_can_be_selected_by() {
        let pod = json!({"spec": {"hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        let fields = Pod.selectable_fields(&pod);
        assert!(fields.contains(&("spec.hostNetwork", "true".to_owned())));
        assert!(fields.contains(&("status.podIPs", "10.0.0.1,fd00::1".to_owned())));
        assert!(fields.contains(&("spec.nodeName", String::new())));
    }
}
