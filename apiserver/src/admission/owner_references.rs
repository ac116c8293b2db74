//! OwnerReferencesPermissionEnforcement: who names an owner must be allowed to delete the object, and who holds up the owner's deletion must be
//! allowed to change that owner's finalizers.

use std::sync::Arc;

use coracle_api::kinds::access::same;
use coracle_api::meta::get;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, refusal};
use crate::authz::{Attributes, Authorizer, ResourceAttributes};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct OwnerReferencesPermissionEnforcement(pub(super) Arc<Authorizer>);

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(object) = object.filter(|object| changes_owners(object, old)) else { return Ok(()) };
            // Kubelets once garbled these; the status' strategy keeps the owners as they are.
            if request.resource.group.is_empty()
                && request.resource.plural == "pods"
                && request.subresource() == Some("status")
            {
                return Ok(());
            }
            let deletes = ResourceAttributes {
                verb: "delete",
                group: request.resource.group,
                version: request.resource.version,
                resource: request.resource.plural,
                namespace: request.namespace(),
                name: request.name(),
                ..ResourceAttributes::default()
            };
            self.check(request, object, deletes, "cannot set an ownerRef on a resource you can't delete")
                .await?;
            for owner in newly_blocking(object, old) {
                let text = |field: &str| owner[field].as_str().unwrap_or_default();
                let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
                let served = registry.cache.served();
                let of_owner =
                    |row: &&Resource| (row.group, row.version, row.kind) == (group, version, text("kind"));
                let Some(row) = served.rows().find(of_owner) else {
                    let message = format!(
                        "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                        text("apiVersion"),
                        text("kind")
                    );
                    return Err(refusal(request, Some(object), &message));
                };
                let finalizes = ResourceAttributes {
                    verb: "update",
                    group,
                    version,
                    resource: row.plural,
                    subresource: "finalizers",
                    namespace: if row.namespaced { request.namespace() } else { "" },
                    name: text("name"),
                    ..ResourceAttributes::default()
                };
                let message = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                self.check(request, object, finalizes, message).await?;
            }
            Ok(())
        })
    }
}

impl OwnerReferencesPermissionEnforcement {
    async fn check(
        &self,
        request: &RequestInfo,
        object: &Value,
        asked: ResourceAttributes<'_>,
        message: &str,
    ) -> Result<(), ApiError> {
        let decision = self.0.decide(&request.user, &Attributes::Resource(asked)).await;
        if decision.allowed {
            return Ok(());
        }
        Err(refusal(request, Some(object), &format!("{message}: {}, <nil>", decision.reason)))
    }
}

fn owners(object: &Value) -> Option<&Value> {
    get(object, &["metadata", "ownerReferences"])
}

fn changes_owners(object: &Value, old: Option<&Value>) -> bool {
    !same(owners(object), old.and_then(owners))
}

/// The owners that are held up by the object and were not before.
fn newly_blocking<'a>(object: &'a Value, old: Option<&'a Value>) -> impl Iterator<Item = &'a Value> {
    let list = |owners: Option<&'a Value>| owners.and_then(Value::as_array).into_iter().flatten();
    let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true;
    let before: Vec<&Value> = list(old.and_then(owners)).filter(blocks).collect();
    list(owners(object))
        .filter(blocks)
        .filter(move |owner| !before.iter().any(|known| known["uid"] == owner["uid"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_new_is_asked_about() {
        let object = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
        let blocking = object(json!([{"uid": "a", "blockOwnerDeletion": true}]));
        let idle = object(json!([{"uid": "a"}]));
        assert!(changes_owners(&blocking, None) && !changes_owners(&json!({"metadata": {}}), None));
        assert!(changes_owners(&blocking, Some(&idle)) && !changes_owners(&idle, Some(&idle)));
        assert_eq!(newly_blocking(&blocking, Some(&idle)).count(), 1);
        assert_eq!(newly_blocking(&blocking, Some(&blocking)).count(), 0);
        assert_eq!(newly_blocking(&idle, None).count(), 0);
    }
}
