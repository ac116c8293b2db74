//! StorageObjectInUseProtection: claims and volumes do not go while they are in use. The finalizers that see to it are put on here, and taken
//! off by the protection controllers.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

const PROTECTED: &[(&str, &str)] = &[
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("persistentvolumes", "kubernetes.io/pv-protection"),
];

pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let protected = PROTECTED.iter().find(|(plural, _)| old.is_none() && is_core(request, plural));
        if let Some((_, finalizer)) = protected {
            protect(object, finalizer);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn protect(object: &mut Value, finalizer: &str) {
    let mut all: Vec<Value> = meta::finalizers(object).into_iter().map(Value::from).collect();
    if all.iter().all(|one| one != finalizer) {
        all.push(finalizer.into());
        if let Some(metadata) = meta::metadata_mut(object) {
            metadata.insert("finalizers".to_owned(), Value::Array(all));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_finalizer_is_put_on_once() {
        let mut claim = json!({"metadata": {"name": "c", "finalizers": ["x/y"]}});
        for _ in 0..2 {
            protect(&mut claim, "kubernetes.io/pvc-protection");
            assert_eq!(claim["metadata"]["finalizers"], json!(["x/y", "kubernetes.io/pvc-protection"]));
        }
    }
}
