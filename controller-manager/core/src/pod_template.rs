//! From a pod template to the pod that a controller creates. Owns the metadata that is taken over; what a kind adds to its
//! pods is its own.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

/// The pod as JSON. The server completes `generate_name` to a name.
pub fn pod_from_template(template: &PodTemplateSpec, generate_name: &str, owner: &OwnerReference) -> Value {
    let meta = template.metadata.as_ref();
    let mut metadata = json!({ "generateName": generate_name, "ownerReferences": [owner] });
    for (field, value) in [
        ("labels", json!(meta.and_then(|meta| meta.labels.as_ref()))),
        ("annotations", json!(meta.and_then(|meta| meta.annotations.as_ref()))),
        ("finalizers", json!(meta.and_then(|meta| meta.finalizers.as_ref()))),
    ] {
        if !value.is_null() {
            metadata[field] = value;
        }
    }
    json!({ "metadata": metadata, "spec": template.spec })
}
