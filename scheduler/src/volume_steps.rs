//! Carries out what has to be done about volumes before a pod is bound (PreBind of VolumeBinding): gives volumes to claims or asks for
//! them to be made, and waits until every claim has its own. Owns these calls and the wait; the choice is `scheduler-core`'s.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::{describe, within};
use coracle_client::informer::Informer;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use scheduler_core::plugins::volume_binding::{SELECTED_NODE, VolumeStep};
use scheduler_core::volumes::is_bound;
use serde_json::json;

const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long claims may take to get their volumes (upstream's bindTimeoutSeconds).
const BOUND_DEADLINE: Duration = Duration::from_secs(600);

/// The claim that a step is about.
fn claim_of(step: &VolumeStep) -> &Arc<PersistentVolumeClaim> {
    match step {
        VolumeStep::Bind(_, claim) | VolumeStep::Provision(claim) => claim,
    }
}

/// Does all steps and waits for them to take effect.
///
/// # Errors
/// A call failed, a claim was given up, or the wait took too long; the text says which.
pub async fn run(
    client: &Client,
    claims: &Informer<PersistentVolumeClaim>,
    steps: &[VolumeStep],
    node: &str,
) -> Result<(), String> {
    let mut changes = claims.subscribe();
    for step in steps {
        within(CALL_DEADLINE, one(client, step, node)).await.map_err(|error| describe(&error))?;
    }
    let mut asked = HashSet::new();
    let wait = async {
        loop {
            let mut all = true;
            for step in steps {
                all &= is_done(claims, step, node, &mut asked)?;
            }
            if all {
                return Ok(());
            }
            changes.next().await;
        }
    };
    match tokio::time::timeout(BOUND_DEADLINE, wait).await {
        Ok(result) => result,
        Err(_) => Err("timed out waiting for the condition".to_owned()),
    }
}

/// Whether a claim has its volume by now. `asked` keeps the claims that were seen with the node for which a volume is to be made: who
/// makes volumes takes it away again to say that none can be made there.
fn is_done(
    claims: &Informer<PersistentVolumeClaim>,
    step: &VolumeStep,
    node: &str,
    asked: &mut HashSet<String>,
) -> Result<bool, String> {
    let wanted = claim_of(step);
    let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let claim = claims.store().get_named(namespace, name);
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == wanted.metadata.uid) else {
        return Err(format!("persistentvolumeclaim \"{name}\" not found"));
    };
    if is_bound(&claim) {
        return Ok(true);
    }
    if matches!(step, VolumeStep::Provision(_)) {
        let selected =
            claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SELECTED_NODE));
        if selected.is_some_and(|selected| selected == node) {
            asked.insert(name.to_owned());
        } else if asked.contains(name) {
            return Err(format!("provisioning failed for PVC \"{name}\""));
        }
    }
    Ok(false)
}

async fn one(client: &Client, step: &VolumeStep, node: &str) -> Result<(), kube::Error> {
    let claim = claim_of(step);
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let claim_name = claim.metadata.name.as_deref().unwrap_or_default();
    match step {
        VolumeStep::Bind(volume, _) => {
            let api: Api<PersistentVolume> = Api::all(client.clone());
            let patch = json!({
                "metadata": {
                    "resourceVersion": volume.metadata.resource_version,
                    "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" },
                },
                "spec": { "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": claim_name,
                    "uid": claim.metadata.uid,
                    "resourceVersion": claim.metadata.resource_version,
                } },
            });
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
        }
        VolumeStep::Provision(_) => {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            let patch = json!({ "metadata": {
                "resourceVersion": claim.metadata.resource_version,
                "annotations": { SELECTED_NODE: node },
            } });
            api.patch(claim_name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
        }
    }
}
