//! Carries out what the pure planners decide: one call an action, in order, each with a deadline, a bounded number at the same
//! time in the whole process. Never decides and never retries: a failed plan goes back to the controller's queue.

use std::sync::Arc;

use controller_manager_core::action::{Action, Propagation, ResourceId, Target};
use controller_manager_core::object_meta::preconditions;
use coracle_client::config::{CALL_DEADLINE, is_not_found, within};
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::{EventKind, EventRecorder};
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Calls of all controllers together that are under way at the same time.
pub const CALLS_MAX: usize = 64;

/// Asks for objects without spec and status; a server that cannot do that sends whole ones.
pub const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const METADATA_OBJECT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What is read of an answer.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Answer {
    /// The object's metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

/// Calls the API for one controller. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    events: EventRecorder,
    calls: Arc<Semaphore>,
}

/// The URL of a resource's collection, or of one object with a subresource.
pub fn path(resource: &ResourceId, namespace: &str, name: &str, subresource: &str) -> String {
    let mut path =
        if resource.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", resource.group) };
    path.push_str(&resource.version);
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    for part in [&*resource.plural, name, subresource].into_iter().filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    path
}

fn target_path(target: &Target, subresource: &str) -> String {
    path(&target.resource, &target.namespace, &target.name, subresource)
}

/// Whether the server refused to create because the namespace is going away.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
        _ => false,
    }
}

impl Executor {
    /// An executor whose events come from `events`' component.
    pub fn new(client: Client, events: EventRecorder, calls: Arc<Semaphore>) -> Self {
        Self { client, events, calls }
    }

    /// The recorder, for events that no plan asks for.
    pub fn events(&self) -> &EventRecorder {
        &self.events
    }

    /// One call.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> Result<T, kube::Error> {
        let mut request = Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let request = request.body(body).map_err(|error| kube::Error::Service(error.into()))?;
        // The semaphore is never closed; should it be, calls are only less bounded.
        let _permit = self.calls.acquire().await.ok();
        within(CALL_DEADLINE, self.client.request(request)).await
    }

    /// Creates an object from its JSON text and returns its metadata.
    pub async fn create_raw(
        &self,
        resource: &ResourceId,
        namespace: &str,
        body: Vec<u8>,
    ) -> Result<ObjectMeta, kube::Error> {
        let path = path(resource, namespace, "", "");
        let answer: Answer =
            self.call(Method::POST, &path, "application/json", "application/json", body).await?;
        Ok(answer.metadata)
    }

    /// Creates an object; `apiVersion` and `kind` are filled in.
    pub async fn create(
        &self,
        resource: &ResourceId,
        namespace: &str,
        object: &Value,
    ) -> Result<ObjectMeta, kube::Error> {
        self.create_raw(resource, namespace, body(resource, object)).await
    }

    /// Reads what is at this path.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, kube::Error> {
        self.call(Method::GET, path, "", "application/json", Vec::new()).await
    }

    /// Reads an object as JSON.
    pub async fn get(&self, target: &Target) -> Result<Value, kube::Error> {
        self.read(&target_path(target, "")).await
    }

    /// Reads an object's metadata from the server; `None` if it is not there.
    pub async fn metadata(&self, target: &Target) -> Result<Option<ObjectMeta>, kube::Error> {
        let path = target_path(target, "");
        match self.call::<Answer>(Method::GET, &path, "", METADATA_OBJECT, Vec::new()).await {
            Ok(answer) => Ok(Some(answer.metadata)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Carries out one action. An object that is gone needs no change: that is success.
    pub async fn execute(&self, action: &Action) -> Result<(), kube::Error> {
        let result = match action {
            Action::Create { resource, namespace, object } => {
                return self.create(resource, namespace, object).await.map(|_| ());
            }
            Action::Patch { target, subresource, patch } => {
                return self.patch(target, subresource, patch).await.map(|_| ());
            }
            Action::Delete { target, uid, resource_version, propagation, grace_seconds } => {
                let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
                if uid.is_some() || resource_version.is_some() {
                    options["preconditions"] = json!({ "uid": uid, "resourceVersion": resource_version });
                }
                if let Some(propagation) = propagation {
                    options["propagationPolicy"] = json!(match propagation {
                        Propagation::Background => "Background",
                        Propagation::Foreground => "Foreground",
                        Propagation::Orphan => "Orphan",
                    });
                }
                if let Some(seconds) = grace_seconds {
                    options["gracePeriodSeconds"] = json!(seconds);
                }
                let body = options.to_string().into_bytes();
                self.call(
                    Method::DELETE,
                    &target_path(target, ""),
                    "application/json",
                    "application/json",
                    body,
                )
                .await
            }
            Action::Event { regarding, warning, reason, message } => {
                let kind = if *warning { EventKind::Warning } else { EventKind::Normal };
                self.events.record((**regarding).clone(), kind, *reason, *reason, message.clone());
                return Ok(());
            }
        };
        match result {
            Err(error) if is_not_found(&error) => Ok(()),
            result => result.map(|_: IgnoredAny| ()),
        }
    }

    /// Patches an object; the metadata it has then, `None` if it is gone.
    pub async fn patch(
        &self,
        target: &Target,
        subresource: &str,
        patch: &Value,
    ) -> Result<Option<ObjectMeta>, kube::Error> {
        let patched = if is_update_only(target, subresource) {
            self.update(target, subresource, patch).await
        } else {
            let (path, body) = (target_path(target, subresource), patch.to_string().into_bytes());
            let kind = "application/merge-patch+json";
            let answer = self.call::<Answer>(Method::PATCH, &path, kind, METADATA_OBJECT, body).await;
            answer.map(|answer| answer.metadata)
        };
        match patched {
            Err(error) if is_not_found(&error) => Ok(None),
            patched => patched.map(Some),
        }
    }

    /// Sends all of an object; the metadata it has then.
    pub async fn replace(
        &self,
        target: &Target,
        subresource: &str,
        object: &Value,
    ) -> Result<ObjectMeta, kube::Error> {
        let body = body(&target.resource, object);
        let path = target_path(target, subresource);
        let answer: Answer = self.call(Method::PUT, &path, "application/json", METADATA_OBJECT, body).await?;
        Ok(answer.metadata)
    }

    /// Takes one finalizer from the object, whatever else has been changed about it. One that is gone needs no change.
    pub async fn remove_finalizer(
        &self,
        target: &Target,
        seen: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), kube::Error> {
        let mut patch = json!({ "metadata": preconditions(seen, false) });
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        let path = target_path(target, "");
        let kind = "application/strategic-merge-patch+json";
        let body = patch.to_string().into_bytes();
        match self.call::<IgnoredAny>(Method::PATCH, &path, kind, METADATA_OBJECT, body).await {
            Err(error) if is_not_found(&error) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Patches by reading and sending all of an object. The version read is a precondition, unless the patch states another.
    async fn update(
        &self,
        target: &Target,
        subresource: &str,
        patch: &Value,
    ) -> Result<ObjectMeta, kube::Error> {
        let mut object = self.get(target).await?;
        json_patch::merge(&mut object, patch);
        self.replace(target, subresource, &object).await
    }

    /// Carries out a plan's actions in order; the first failure ends it.
    pub async fn execute_all(&self, actions: &[Action]) -> Result<(), kube::Error> {
        for action in actions {
            self.execute(action).await?;
        }
        Ok(())
    }
}

/// What upstream's roles let controllers update and not patch.
fn is_update_only(target: &Target, subresource: &str) -> bool {
    matches!(
        (&*target.resource.group, &*target.resource.plural, subresource),
        ("apps", "deployments", _)
            | ("apps", "replicasets", "status")
            | ("apps", "daemonsets" | "statefulsets", "status")
            | ("", "configmaps" | "endpoints" | "serviceaccounts", _)
            | ("", "namespaces" | "replicationcontrollers", "status")
            | ("", "persistentvolumeclaims" | "persistentvolumes", _)
            | ("certificates.k8s.io", "certificatesigningrequests", _)
            | ("policy", "poddisruptionbudgets", "status")
            | ("autoscaling", "horizontalpodautoscalers", "status")
            | ("discovery.k8s.io", "endpointslices", _)
    )
}

/// An object's JSON text with `apiVersion` and `kind`.
pub fn body(resource: &ResourceId, object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    object.to_string().into_bytes()
}

/// The end of a reconciliation whose last request went so.
pub fn done(result: Result<(), kube::Error>) -> anyhow::Result<Outcome> {
    Ok(result.map(|()| Outcome::Done)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_manager_core::action::{DEPLOYMENTS, NODES, PODS};

    #[test]
    fn urls_follow_group_scope_and_subresource() {
        assert_eq!(path(&PODS, "default", "", ""), "/api/v1/namespaces/default/pods");
        assert_eq!(path(&NODES, "", "n1", "status"), "/api/v1/nodes/n1/status");
        assert_eq!(path(&DEPLOYMENTS, "x", "web", ""), "/apis/apps/v1/namespaces/x/deployments/web");
    }
}
