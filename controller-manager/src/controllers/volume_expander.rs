//! Runs the expander: tells who makes volumes larger that a claim asks for more.

use controller_manager_core::volume_expander::{matters, plan};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;

use crate::context::Context;
use crate::executor::done;

const WORKERS: usize = 10;

/// Runs until shutdown.
pub async fn run(context: Context) {
    let (claims, volumes) = (context.informers.claims.clone(), context.informers.volumes.clone());
    let executor = context.executor("volume_expand");
    context
        .controller("volume_expand", WORKERS)
        .watch(&claims, |change| {
            let looked_at = !change.is_deleted() && matters(change.old().map(|old| &**old), change.object());
            looked_at.then(|| change.key()).into_iter().collect()
        })
        .wait_for(&volumes)
        .run(&context.shutdown, move |key| {
            let found = claims.store().get(&key);
            let (volumes, executor) = (volumes.clone(), executor.clone());
            async move {
                let Some(claim) = found else { return Ok(Outcome::Done) };
                let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
                let Some(volume) = volumes.store().get(&ObjectKey::new("", &*named)) else {
                    anyhow::bail!("claim {key} names volume {named:?}, which is not seen yet");
                };
                match plan(&claim, &volume) {
                    Ok(actions) => done(executor.execute_all(&actions).await),
                    Err(_) => anyhow::bail!("volume {named:?} is not seen bound to claim {key} yet"),
                }
            }
        })
        .await;
}
