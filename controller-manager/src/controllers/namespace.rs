//! Runs the namespace controller: empties a terminating Namespace kind by kind, reports, finalizes.

use std::time::Duration;

use controller_manager_core::action::{Action, NAMESPACES, ResourceId, Target};
use controller_manager_core::namespace::{Content, conditions, deletion_order, finalized, is_terminating};
use controller_manager_core::object_meta::{name, preconditions};
use coracle_client::ObjectKey;
use coracle_client::config::{api_code, is_not_found};
use coracle_client::controller::Outcome;
use futures::stream::{self, StreamExt};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::context::Context;
use crate::discovery::{Discovered, Discovery};
use crate::executor::{Executor, METADATA_LIST, path};
use crate::informers::Informers;

const WORKERS: usize = 10;
/// Kinds emptied at the same time.
const KINDS_IN_FLIGHT: usize = 8;
/// How old the knowledge of which kinds there are may be.
const CATALOGUE_AGE_MAX: Duration = Duration::from_secs(10);
/// Looks again after this time while something is left whose end no watch tells us.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Shared {
    informers: Informers,
    executor: Executor,
    discovery: Discovery,
}

#[derive(Debug, Default, serde::Deserialize)]
struct Listed {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, Default, serde::Deserialize)]
struct Item {
    #[serde(default)]
    metadata: ObjectMeta,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        executor: context.executor("namespace-controller"),
        discovery: context.discovery.clone(),
    };
    let for_pods = shared.informers.clone();
    context
        .controller("namespace", WORKERS)
        .watch(&context.informers.namespaces, |change| {
            let terminating = !change.is_deleted() && is_terminating(change.object());
            terminating.then(|| change.key()).into_iter().collect()
        })
        .watch(&context.informers.pods, move |change| {
            // The last pod is gone: the rest may follow.
            let namespace = change.key().namespace;
            let key = ObjectKey::new("", namespace.clone());
            let last =
                change.is_deleted() && for_pods.pods.store().indexed_count("namespace", &namespace) == 0;
            let waits =
                last && for_pods.namespaces.store().get(&key).is_some_and(|found| is_terminating(&found));
            waits.then_some(key).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let shared = shared.clone();
            async move { shared.reconcile(&key).await }
        })
        .await;
}

impl Shared {
    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let target = Target::new(&NAMESPACES, "", &key.name);
        let namespace: Namespace = match self.executor.get(&target).await {
            Ok(value) => serde_json::from_value(value)?,
            Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
            Err(error) => return Err(error.into()),
        };
        if !is_terminating(&namespace) {
            return Ok(Outcome::Done);
        }
        let content = self.empty(&key.name).await;
        if let Some(conditions) = conditions(&namespace, &content, crate::clock::now()) {
            let patch = json!({ "metadata": preconditions(&namespace.metadata, false), "status": { "conditions": conditions } });
            let action = Action::Patch { target: target.clone(), subresource: "status", patch };
            self.executor.execute(&action).await?;
        }
        if !content.is_gone() {
            return Ok(Outcome::RequeueAfter(LOOK_AGAIN));
        }
        self.finalize(&namespace, &target).await
    }

    async fn finalize(&self, namespace: &Namespace, target: &Target) -> anyhow::Result<Outcome> {
        // Without a version: our own report of the conditions has just changed it.
        let mut body = finalized(namespace);
        let path = path(&NAMESPACES, "", name(&namespace.metadata), "finalize");
        let live = self.executor.metadata(target).await?;
        let Some(live) = live.filter(|live| live.uid == namespace.metadata.uid) else {
            return Ok(Outcome::Done);
        };
        body["metadata"]["resourceVersion"] = json!(live.resource_version);
        let body = body.to_string().into_bytes();
        match self
            .executor
            .call::<IgnoredAny>(Method::PUT, &path, "application/json", "application/json", body)
            .await
        {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what can be deleted now and tells what is left.
    async fn empty(&self, namespace: &str) -> Content {
        let mut content = Content::default();
        let catalogue = match self.discovery.catalogue(CATALOGUE_AGE_MAX).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                content.discovery_errors.push(super::message(&error));
                return content;
            }
        };
        content.discovery_errors.extend(catalogue.errors.iter().cloned());
        let deletable = |resource: &&Discovered| resource.id.namespaced && resource.can(&["list", "delete"]);
        let kinds: Vec<&Discovered> = catalogue.resources.iter().filter(deletable).collect();
        let ids: Vec<_> = kinds.iter().map(|kind| kind.id.clone()).collect();
        for stage in deletion_order(&ids) {
            let results: Vec<_> = stream::iter(stage)
                .map(|id| {
                    let collection =
                        kinds.iter().any(|kind| kind.id == id && kind.can(&["deletecollection"]));
                    async move {
                        let result = self.empty_kind(&id, namespace, collection).await;
                        (id, result)
                    }
                })
                .buffer_unordered(KINDS_IN_FLIGHT)
                .collect()
                .await;
            for (id, result) in results {
                match result {
                    Ok(left) => note(&mut content, &id, &left),
                    Err(error) => {
                        content.deletion_errors.push(format!("{}: {}", id.plural, super::message(&error)))
                    }
                }
            }
            if !content.remaining.is_empty() {
                break;
            }
        }
        content
    }

    /// Asks for the deletion of all objects of a kind and returns those that are still there.
    async fn empty_kind(
        &self,
        id: &ResourceId,
        namespace: &str,
        collection: bool,
    ) -> Result<Vec<ObjectMeta>, kube::Error> {
        let url = path(id, namespace, "", "");
        let options =
            || br#"{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}"#.to_vec();
        if collection {
            let deleted: Result<IgnoredAny, _> =
                self.executor.call(Method::DELETE, &url, "application/json", METADATA_LIST, options()).await;
            match deleted {
                Ok(_) => {}
                Err(error) if matches!(api_code(&error), Some(404 | 405)) => {}
                Err(error) => return Err(error),
            }
        }
        let listed: Result<Listed, _> =
            self.executor.call(Method::GET, &url, "", METADATA_LIST, Vec::new()).await;
        let mut left: Vec<_> = match listed {
            Ok(listed) => listed.items.into_iter().map(|item| item.metadata).collect(),
            Err(error) if matches!(api_code(&error), Some(404 | 405)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if !collection {
            for meta in &left {
                let action = Action::Delete {
                    target: Target::new(id, namespace, name(meta)),
                    uid: meta.uid.clone(),
                    resource_version: None,
                    propagation: None,
                    grace_seconds: None,
                };
                self.executor.execute(&action).await?;
            }
            let listed: Listed = self.executor.call(Method::GET, &url, "", METADATA_LIST, Vec::new()).await?;
            left = listed.items.into_iter().map(|item| item.metadata).collect();
        }
        Ok(left)
    }
}

fn note(content: &mut Content, id: &ResourceId, left: &[ObjectMeta]) {
    if left.is_empty() {
        return;
    }
    content.remaining.insert(format!("{}.{}", id.plural, id.group), left.len());
    for finalizer in left.iter().flat_map(|meta| meta.finalizers.iter().flatten()) {
        *content.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
}
