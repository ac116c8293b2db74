//! Runs the persistent volume binder: one worker for claims and one for volumes, woken by each other's changes.

use std::sync::Arc;
use std::time::Duration;

use controller_manager_core::action::Action;
use controller_manager_core::pod_state::{is_finished, node_name};
use controller_manager_core::volume_binder::claim::Class;
use controller_manager_core::volume_binder::{claim, claim_ref, class_of_claim, default_class, volume};
use controller_manager_core::volume_protection::claims_of;
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer};
use coracle_client::store::Index;
use futures::future::join;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::context::{Context, outcome};
use crate::executor::{Executor, done};
use crate::informers::Informers;

/// Two that decide at the same time would only get into each other's way: a claim needs to see the volumes that others took.
const WORKERS: usize = 1;
/// Index `namespace/name` of the claim that a volume refers to.
const OF_CLAIM: &str = "claim";

#[derive(Clone)]
struct Shared {
    informers: Informers,
    classes: Informer<StorageClass>,
    executor: Executor,
    /// How often people are told again what a claim waits for.
    sync_period: Duration,
}

/// Files volumes under the claims that they refer to.
pub fn index_by_claim() -> Index<PersistentVolume> {
    Index::new(OF_CLAIM, |volume: &PersistentVolume| {
        claim_key(volume).map(|key| key.to_string()).into_iter().collect()
    })
}

fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = claim_ref(volume)?;
    Some(ObjectKey::new(reference.namespace.clone()?, reference.name.clone()?))
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        classes: context.informer().start(&context.shutdown),
        executor: context.executor("persistentvolume-controller"),
        sync_period: context.settings.claim_sync_period,
    };
    let (for_claims, for_volumes, by_class, by_claim) =
        (shared.clone(), shared.clone(), shared.clone(), shared.clone());
    let by_volume = shared.clone();
    let claims = context
        .controller("claims", WORKERS)
        .watch(&shared.informers.claims, |change| vec![change.key()])
        .watch(&shared.informers.volumes, move |change| by_volume.claims_for_volume(change))
        .wait_for(&shared.informers.pods)
        .watch(&shared.classes, move |change| {
            let class = change.key().name;
            by_class.waiting(|claim| [&*class, ""].contains(&class_of_claim(claim)))
        })
        .run(&context.shutdown, move |key| {
            let shared = for_claims.clone();
            async move { shared.reconcile_claim(&key).await }
        });
    let volumes = context
        .controller("volumes", WORKERS)
        .watch(&shared.informers.volumes, |change| vec![change.key()])
        .watch(&shared.informers.claims, move |change| by_claim.volumes_for_claim(change))
        .run(&context.shutdown, move |key| {
            let shared = for_volumes.clone();
            async move { shared.reconcile_volume(&key).await }
        });
    join(claims, volumes).await;
}

impl Shared {
    /// The claims that have no volume yet and that `concerns`.
    fn waiting(&self, concerns: impl Fn(&PersistentVolumeClaim) -> bool) -> Vec<ObjectKey> {
        let all = self.informers.claims.store().list();
        let waits = |claim: &Arc<PersistentVolumeClaim>| {
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Bound" | "Lost")) && concerns(claim)
        };
        all.into_iter().filter(waits).map(|claim| ObjectKey::of(&*claim)).collect()
    }

    /// The claim that the volume is for, those that name it, and all that wait when it may be anybody's.
    fn claims_for_volume(&self, change: &Change<PersistentVolume>) -> Vec<ObjectKey> {
        let (volume, name) = (change.object(), change.key().name);
        let mut keys: Vec<ObjectKey> = claim_key(volume).into_iter().collect();
        keys.extend(change.old().and_then(|old| claim_key(old)).filter(|key| !keys.contains(key)));
        if change.is_deleted() {
            let all = self.informers.claims.store().list();
            keys.extend(
                all.iter().filter(|claim| volume_name(claim) == &*name).map(|claim| ObjectKey::of(&**claim)),
            );
            return keys;
        }
        let is_free = claim_ref(volume).is_none();
        keys.extend(self.waiting(|claim| is_free || volume_name(claim) == &*name));
        keys
    }

    /// The volume that the claim names, and those that refer to it.
    fn volumes_for_claim(&self, change: &Change<PersistentVolumeClaim>) -> Vec<ObjectKey> {
        let named =
            [Some(change.object()), change.old()].into_iter().flatten().map(|claim| volume_name(claim));
        let mut keys: Vec<ObjectKey> =
            named.filter(|name| !name.is_empty()).map(|name| ObjectKey::new("", name)).collect();
        let referring = self.informers.volumes.store().indexed(OF_CLAIM, &change.key().to_string());
        keys.extend(referring.iter().map(|volume| ObjectKey::of(&**volume)));
        keys.dedup();
        keys
    }

    async fn reconcile_claim(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(claim) = self.informers.claims.store().get(key) else { return Ok(Outcome::Done) };
        let classes = self.classes.store().list();
        let names_none = claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none());
        let class = match class_of_claim(&claim) {
            "" if names_none => {
                default_class(classes.iter().map(|class| &**class)).map_or(Class::None, Class::Default)
            }
            "" => Class::None,
            name => {
                let found = classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
                found.map_or(Class::Missing, |class| Class::Known(class))
            }
        };
        let volumes = self.informers.volumes.store().list();
        let pods = self.informers.pods.store().indexed("namespace", &key.namespace);
        let unscheduled: Vec<&str> = pods
            .iter()
            .filter(|pod| node_name(pod).is_empty() && !is_finished(pod))
            .filter(|pod| claims_of(pod).iter().any(|name| **name == *key.name))
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        let actions = claim::plan(&claim, class, volumes.iter().map(|volume| &**volume), &unscheduled);
        self.executor.execute_all(&actions).await?;
        let still_waits = actions.iter().any(|action| matches!(action, Action::Event { .. }));
        Ok(outcome(still_waits.then_some(self.sync_period)))
    }

    async fn reconcile_volume(&self, key: &ObjectKey) -> anyhow::Result<Outcome> {
        let Some(found) = self.informers.volumes.store().get(key) else { return Ok(Outcome::Done) };
        let claim = match claim_key(&found) {
            None => None,
            Some(key) => match self.informers.claims.store().get(&key) {
                Some(claim) => Some(claim),
                // A claim that our copy does not have may be there: what is released is not taken back.
                None => self.live_claim(&key).await?,
            },
        };
        let actions = volume::plan(&found, claim.as_deref());
        done(self.executor.execute_all(&actions).await)
    }

    async fn live_claim(&self, key: &ObjectKey) -> anyhow::Result<Option<Arc<PersistentVolumeClaim>>> {
        let target = controller_manager_core::action::Target::new(
            &controller_manager_core::action::PERSISTENT_VOLUME_CLAIMS,
            &key.namespace,
            &key.name,
        );
        match self.executor.get(&target).await {
            Ok(object) => Ok(Some(Arc::new(serde_json::from_value(object)?))),
            Err(error) if coracle_client::config::is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
