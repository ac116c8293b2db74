//! Keeps the ControllerRevisions of DaemonSets and StatefulSets: claims them, finds or makes the one of today. What they
//! contain and which are forgotten is decided in the core.

use std::sync::Arc;

use controller_manager_core::action::{Action, CONTROLLER_REVISIONS, Target};
use controller_manager_core::controller_revision::{Current, Parent, current, keeps, sorted};
use controller_manager_core::object_meta::{is_controlled_by, name, namespace, preconditions, uid};
use coracle_client::config::is_conflict;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::json;

use crate::claims::{Claimer, any_name, as_is, claim_all};
use crate::executor::Executor;
use crate::informers::Informers;

/// A parent's history.
pub struct History {
    /// The revision of today.
    pub current: Arc<ControllerRevision>,
    /// All, oldest first. One just made or renumbered is there as it was before.
    pub sorted: Vec<Arc<ControllerRevision>>,
}

/// What came of looking for the revision of today.
pub enum Settled {
    /// It is there.
    Found(History),
    /// Another template has its name: count the collision and try again.
    Collision,
}

/// Finds the revision of today, makes it if there is none, and gives it the highest number.
pub async fn settle(
    informers: &Informers,
    executor: &Executor,
    parent: &Parent<'_>,
    selector: &LabelSelector,
) -> Result<Settled, kube::Error> {
    let claimer = Claimer { resource: &parent.resource, meta: parent.meta, selector, is_member: any_name };
    let all = claim_all(executor, claimer, &CONTROLLER_REVISIONS, &informers.revisions, as_is).await?;
    let sorted = sorted(all);
    let current = match current(parent, &sorted) {
        Current::Is(revision) => revision,
        Current::Becomes(revision, number) => {
            let mut patch = json!({ "metadata": preconditions(&revision.metadata, true) });
            patch["revision"] = json!(number);
            let target = target(&revision.metadata);
            executor.execute(&Action::Patch { target, subresource: "", patch }).await?;
            let mut renumbered = ControllerRevision::clone(&revision);
            renumbered.revision = number;
            Arc::new(renumbered)
        }
        Current::New(new) => {
            match executor.create(&CONTROLLER_REVISIONS, namespace(parent.meta), &json!(new)).await {
                Ok(_) => Arc::from(new),
                Err(error) if is_conflict(&error) => {
                    let found = executor.get(&target(&new.metadata)).await?;
                    let found: ControllerRevision =
                        serde_json::from_value(found).map_err(kube::Error::SerdeError)?;
                    let ours = is_controlled_by(&found.metadata, uid(parent.meta));
                    if !ours || !keeps(&found, parent.template) {
                        return Ok(Settled::Collision);
                    }
                    Arc::new(found)
                }
                Err(error) => return Err(error),
            }
        }
    };
    Ok(Settled::Found(History { current, sorted }))
}

fn target(meta: &ObjectMeta) -> Target {
    Target::new(&CONTROLLER_REVISIONS, namespace(meta), name(meta))
}
