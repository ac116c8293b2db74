//! Runs the two protection controllers: claims wait for their pods, volumes for their claims.

use controller_manager_core::action::PODS;
use controller_manager_core::pod_state::{is_finished, node_name};
use controller_manager_core::volume_protection::{
    Step, claim_step, claims_of, is_volume_used, uses, volume_step,
};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::Change;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use crate::context::Context;
use crate::executor::{Executor, done, path};
use crate::informers::Informers;

const WORKERS: usize = 2;

/// Protects claims until shutdown.
pub async fn run_claims(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("persistentvolumeclaim-protection-controller");
    context
        .controller("pvcprotection", WORKERS)
        .watch(&informers.claims, |change| {
            let matters = !change.is_deleted() && claim_step(change.object()) != Step::Nothing;
            matters.then(|| change.key()).into_iter().collect()
        })
        .watch(&informers.pods, pod_changed)
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                let Some(claim) = informers.claims.store().get(&key) else { return Ok(Outcome::Done) };
                match claim_step(&claim) {
                    Step::Nothing => Ok(Outcome::Done),
                    Step::Protect(action) => done(executor.execute(&action).await),
                    Step::ReleaseIfUnused(action) => {
                        if is_used(&informers, &executor, &claim).await? {
                            return Ok(Outcome::Done);
                        }
                        done(executor.execute(&action).await)
                    }
                }
            }
        })
        .await;
}

/// The claims that a pod may have let go of.
fn pod_changed(change: &Change<Pod>) -> Vec<ObjectKey> {
    let pod = change.object();
    let of = |pod: &Pod| {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        claims_of(pod)
            .into_iter()
            .map(move |name| ObjectKey::new(namespace.clone(), name))
            .collect::<Vec<_>>()
    };
    let replaced = change.old().filter(|old| old.metadata.uid != pod.metadata.uid);
    let mut keys = replaced.map(|old| of(old)).unwrap_or_default();
    if change.is_deleted()
        || is_finished(pod)
        || node_name(pod).is_empty()
        || pod.metadata.deletion_timestamp.is_some()
    {
        keys.extend(of(pod));
    }
    keys
}

/// Whether a pod uses the claim: by our copy, and if not by it, by the server's word.
async fn is_used(
    informers: &Informers,
    executor: &Executor,
    claim: &PersistentVolumeClaim,
) -> Result<bool, kube::Error> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    if informers.pods.store().indexed("namespace", namespace).iter().any(|pod| uses(pod, claim)) {
        return Ok(true);
    }
    let live: List<Pod> = executor.read(&path(&PODS, namespace, "", "")).await?;
    Ok(live.items.iter().any(|pod| uses(pod, claim)))
}

/// Protects volumes until shutdown.
pub async fn run_volumes(context: Context) {
    let volumes = context.informers.volumes.clone();
    let executor = context.executor("persistentvolume-protection-controller");
    context
        .controller("pvprotection", WORKERS)
        .watch(&volumes, |change| vec![change.key()])
        .run(&context.shutdown, move |key| {
            let found = volumes.store().get(&key);
            let executor = executor.clone();
            async move {
                let Some(volume) = found else { return Ok(Outcome::Done) };
                let volume: &PersistentVolume = &volume;
                let action = match volume_step(volume) {
                    Step::Protect(action) => action,
                    Step::ReleaseIfUnused(action) if !is_volume_used(volume) => action,
                    _ => return Ok(Outcome::Done),
                };
                done(executor.execute(&action).await)
            }
        })
        .await;
}
