//! Carries out what a controller with a selector claims: adopts what is nobody's, releases what does not fit any more. The
//! rules are the core's.

use std::sync::Arc;

use controller_manager_core::action::{Action, ResourceId};
use controller_manager_core::label_selector;
use controller_manager_core::object_meta::{Claim, claim, controller, name, namespace, uid};
use coracle_client::ObjectKey;
use coracle_client::informer::{Change, Informer, Watchable};
use coracle_client::store::controller_of_kind;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::controllers::still_there;
use crate::executor::Executor;
use crate::informers::ORPHANS;

/// Who claims.
#[derive(Clone, Copy)]
pub struct Claimer<'a> {
    /// Its resource.
    pub resource: &'a ResourceId,
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// What it selects.
    pub selector: &'a LabelSelector,
    /// Whether an object of this name (second) can be one of the claimer's (first).
    pub is_member: fn(&str, &str) -> bool,
}

/// The objects that are the claimer's, after adopting and releasing. `adapt` may add to the patch that adopts (`true`) or
/// releases. The informer needs the indexes by owner and of orphans.
pub async fn claim_all<K: Watchable<DynamicType = ()>>(
    executor: &Executor,
    claimer: Claimer<'_>,
    resource: &ResourceId,
    informer: &Informer<K>,
    adapt: impl Fn(Action, &K, bool) -> Action,
) -> Result<Vec<Arc<K>>, kube::Error> {
    let Claimer { resource: of, meta, selector, is_member } = claimer;
    let mine = |object: &Arc<K>| is_member(name(meta), name(object.meta()));
    let candidates = informer.store().indexed("ownerUid", uid(meta));
    let orphans = informer.store().indexed(ORPHANS, namespace(meta));
    let mut owned = Vec::new();
    let mut checked = false;
    for object in candidates.into_iter().chain(orphans).filter(mine) {
        match claim(of, meta, selector, resource, object.meta()) {
            Claim::Keep => owned.push(object),
            Claim::Release(action) => executor.execute(&adapt(action, &object, false)).await?,
            Claim::Adopt(action) => {
                // Only the server knows whether the claimer may still adopt.
                if !checked && !still_there(executor, of, meta).await? {
                    return Ok(owned);
                }
                checked = true;
                executor.execute(&adapt(action, &object, true)).await?;
                owned.push(object);
            }
            Claim::Ignore => {}
        }
    }
    Ok(owned)
}

/// The owners of this kind that a change of a pod concerns: its own and the one before.
pub fn owners(change: &Change<Pod>, kind: &str) -> Vec<ObjectKey> {
    let owner = controller_of_kind(&change.object().metadata, kind);
    let before = change.old().and_then(|old| controller_of_kind(&old.metadata, kind));
    let mut keys: Vec<_> = owner.into_iter().chain(before).collect();
    keys.dedup();
    keys
}

/// The claimers that may want the pod: if it is nobody's, those of its namespace whose selector it matches.
pub fn wanted_by<K: Watchable<DynamicType = ()>>(
    change: &Change<Pod>,
    in_namespace: impl FnOnce(&str) -> Vec<Arc<K>>,
    selector: impl Fn(&K) -> Option<&LabelSelector>,
) -> Vec<ObjectKey> {
    let meta = &change.object().metadata;
    if change.is_deleted() || controller(meta).is_some() {
        return Vec::new();
    }
    let wants = |set: &K| {
        selector(set).is_some_and(|selector| label_selector::matches(selector, meta.labels.as_ref()))
    };
    let sets = in_namespace(namespace(meta));
    sets.into_iter().filter(|set| wants(set)).map(|set| ObjectKey::of(&*set)).collect()
}

/// For claimers whose objects may have any name.
pub fn any_name(_: &str, _: &str) -> bool {
    true
}

/// Changes nothing about a claim's patch.
pub fn as_is<K>(action: Action, _: &K, _: bool) -> Action {
    action
}
