//! Creates and deletes the pods of one owner: in bounded batches, with expectations about what the watch will show and
//! events for people. Shared by the controllers that own pods; never decides how many.

use std::sync::Arc;

use controller_manager_core::action::{Action, PODS, Target};
use controller_manager_core::expectations::Expectations;
use controller_manager_core::object_meta::{name, namespace, uid};
use controller_manager_core::replicaset::slow_start_batches;
use coracle_client::ObjectKey;
use coracle_client::event_recorder::EventKind;
use coracle_client::informer::Change;
use coracle_client::store::controller_of_kind;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::claims::owners;
use crate::executor::{Executor, is_namespace_terminating};

/// Pods being created or deleted at the same time for one owner.
const PODS_IN_FLIGHT: usize = 50;

/// The pods' owner.
pub struct Owner<'a> {
    /// Its key.
    pub key: &'a ObjectKey,
    /// What events are about.
    pub regarding: ObjectReference,
}

/// What became of a number of creations or deletions.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many worked.
    pub count: usize,
    /// One of the failures, if there were any.
    pub error: Option<kube::Error>,
}

/// Creates and deletes. Cheap to clone.
#[derive(Clone)]
pub struct PodControl {
    executor: Executor,
    expectations: Arc<Mutex<Expectations>>,
    started: Instant,
}

impl PodControl {
    /// For one controller.
    pub fn new(executor: Executor) -> Self {
        Self { executor, expectations: Arc::default(), started: Instant::now() }
    }

    /// Whether all that was asked for has been seen.
    pub fn satisfied(&self, key: &ObjectKey) -> bool {
        self.expectations.lock().satisfied(&key.to_string(), self.started.elapsed())
    }

    /// The owner is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.expectations.lock().forget(&key.to_string());
    }

    /// Takes in what the watch shows of a pod; the owners of this kind that it concerns, now and before.
    pub fn observe(&self, change: &Change<Pod>, kind: &str) -> Vec<ObjectKey> {
        let meta = &change.object().metadata;
        if let Some(owner) = controller_of_kind(meta, kind) {
            let mut expectations = self.expectations.lock();
            let key = owner.to_string();
            if change.is_deleted() || meta.deletion_timestamp.is_some() {
                expectations.deleted(&key, uid(meta));
            } else if change.old().is_none() {
                expectations.created(&key, 1);
            }
        }
        owners(change, kind)
    }

    /// Says what is about to be done, before any of it is.
    pub fn expect(&self, key: &ObjectKey, creations: usize, deletions: &[Arc<Pod>]) {
        let uids = deletions.iter().map(|pod| uid(&pod.metadata).to_owned());
        self.expectations.lock().expect(&key.to_string(), creations, uids, self.started.elapsed());
    }

    /// Creates the pods, given as JSON texts, which were expected. Batches grow from one, and the first that fails is the
    /// last. In a namespace that is going away nothing is created and that is no failure.
    pub async fn create(&self, owner: &Owner<'_>, pods: Vec<Vec<u8>>) -> Outcome {
        let key_text = owner.key.to_string();
        let count = pods.len();
        let resource = PODS;
        let mut pods = pods.into_iter();
        let (mut outcome, mut tried) = (Outcome::default(), 0);
        for size in slow_start_batches(count) {
            let batch: Vec<_> = pods.by_ref().take(size).collect();
            let results: Vec<_> = stream::iter(batch)
                .map(|pod| self.executor.create_raw(&resource, &owner.key.namespace, pod))
                .buffer_unordered(PODS_IN_FLIGHT)
                .collect()
                .await;
            tried += size;
            for result in results {
                match result {
                    Ok(pod) => {
                        outcome.count += 1;
                        let message = format!("Created pod: {}", name(&pod));
                        self.tell(owner, EventKind::Normal, "SuccessfulCreate", "Create", message);
                    }
                    Err(error) => {
                        self.expectations.lock().created(&key_text, 1);
                        outcome.error = Some(error);
                    }
                }
            }
            let Some(error) = &outcome.error else { continue };
            self.expectations.lock().created(&key_text, count - tried);
            if is_namespace_terminating(error) {
                outcome.error = None;
            } else {
                let message = format!("Error creating: {}", crate::controllers::message(error));
                self.tell(owner, EventKind::Warning, "FailedCreate", "Create", message);
            }
            break;
        }
        outcome
    }

    /// Deletes the pods, which were expected to go. With `finalizer` that one is removed first. A pod that is gone counts.
    pub async fn delete(&self, owner: &Owner<'_>, pods: &[Arc<Pod>], finalizer: Option<&str>) -> Outcome {
        let key_text = owner.key.to_string();
        let results: Vec<_> = stream::iter(pods.to_vec())
            .map(|pod| self.delete_one(key_text.clone(), pod, finalizer))
            .buffer_unordered(PODS_IN_FLIGHT)
            .collect()
            .await;
        let mut outcome = Outcome::default();
        for result in results {
            match result {
                Ok(pod) => {
                    outcome.count += 1;
                    self.tell(
                        owner,
                        EventKind::Normal,
                        "SuccessfulDelete",
                        "Delete",
                        format!("Deleted pod: {pod}"),
                    );
                }
                Err(error) => {
                    let message = format!("Error deleting: {}", crate::controllers::message(&error));
                    self.tell(owner, EventKind::Warning, "FailedDelete", "Delete", message);
                    outcome.error = Some(error);
                }
            }
        }
        outcome
    }

    async fn delete_one(
        &self,
        key: String,
        pod: Arc<Pod>,
        finalizer: Option<&str>,
    ) -> Result<String, kube::Error> {
        let meta = &pod.metadata;
        let target = Target::new(&PODS, namespace(meta), name(meta));
        let mut result = match finalizer {
            Some(finalizer) => self.executor.remove_finalizer(&target, meta, finalizer).await,
            None => Ok(()),
        };
        if result.is_ok() {
            let action = Action::Delete {
                target,
                uid: meta.uid.clone(),
                resource_version: None,
                propagation: None,
                grace_seconds: None,
            };
            result = self.executor.execute(&action).await;
        }
        if result.is_err() {
            self.expectations.lock().deleted(&key, uid(meta));
        }
        result.map(|()| name(meta).to_owned())
    }

    fn tell(
        &self,
        owner: &Owner<'_>,
        kind: EventKind,
        reason: &'static str,
        action: &'static str,
        message: String,
    ) {
        self.executor.events().record(owner.regarding.clone(), kind, reason, action, message);
    }
}
