//! Runs the ephemeral volume controller: makes the claims of pods' ephemeral volumes.

use controller_manager_core::action::PODS;
use controller_manager_core::ephemeral_volume::{claim_name, plan, volumes};
use controller_manager_core::object_meta::object_reference;
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use coracle_client::event_recorder::EventKind;

use crate::context::Context;

const WORKERS: usize = 5;
const SOON: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs until shutdown.
pub async fn run(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("ephemeral_volume");
    let for_claims = informers.clone();
    context
        .controller("ephemeral_volume", WORKERS)
        .watch(&informers.pods, |change| {
            let wants = !change.is_deleted() && !volumes(change.object()).is_empty();
            wants.then(|| change.key()).into_iter().collect()
        })
        .watch(&informers.claims, move |change| {
            // A claim that went may be wanted again, or have been in the way.
            if !change.is_deleted() {
                return Vec::new();
            }
            let key = change.key();
            let pods = for_claims.pods.store().indexed("namespace", &key.namespace);
            let wants = |pod: &&std::sync::Arc<k8s_openapi::api::core::v1::Pod>| {
                volumes(pod).iter().any(|volume| claim_name(pod, volume) == *key.name)
            };
            pods.iter().filter(wants).map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                let Some(pod) = informers.pods.store().get(&key) else { return Ok(Outcome::Done) };
                let mut end = Outcome::Done;
                for volume in volumes(&pod) {
                    let found = informers.claims.store().get_named(&key.namespace, &claim_name(&pod, volume));
                    let failed = match plan(&pod, volume, found.as_deref()) {
                        Ok(None) => continue,
                        Err(taken) => taken,
                        Ok(Some(action)) => match executor.execute(&action).await {
                            Ok(()) => continue,
                            // Our copy is behind: whose claim it is shows soon.
                            Err(error) if is_conflict(&error) => {
                                end = Outcome::RequeueAfter(SOON);
                                continue;
                            }
                            Err(error) => {
                                format!("create PVC {}: {}", claim_name(&pod, volume), super::message(&error))
                            }
                        },
                    };
                    executor.events().record(
                        object_reference(&PODS, &pod.metadata),
                        EventKind::Warning,
                        "FailedBinding",
                        "FailedBinding",
                        format!("ephemeral volume {}: {failed}", volume.name),
                    );
                    anyhow::bail!("pod {key}, ephemeral volume {}: {failed}", volume.name);
                }
                Ok(end)
            }
        })
        .await;
}
