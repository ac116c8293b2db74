//! Runs the cleaner of unused token Secrets: a look at our copy once a day.

use std::collections::HashMap;
use std::time::Duration;

use controller_manager_core::action::{CONFIG_MAPS, Target};
use controller_manager_core::legacy_token_cleaner::{
    SINCE, TRACKING, account_name, is_candidate, is_named_by, is_noted_long_enough, plan,
};
use controller_manager_core::object_meta::{name, namespace};
use controller_manager_core::service_account_tokens::SECRET_TYPE;
use coracle_client::config::{CALL_DEADLINE, is_conflict, within};
use coracle_client::informer::Informer;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use tokio::time::{MissedTickBehavior, interval};

use crate::context::Context;
use crate::executor::Executor;

const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs until shutdown.
pub async fn run(context: Context) {
    let executor = context.executor("legacy-service-account-token-cleaner");
    let secrets = context.informer().fields(&format!("type={SECRET_TYPE}")).start(&context.shutdown);
    let synced = async {
        secrets.wait_synced().await;
        context.informers.service_accounts.wait_synced().await;
    };
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = synced => {}
    }
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            _ = ticks.tick() => {
                if let Err(error) = look(&context, &executor, &secrets).await {
                    tracing::warn!(error = %format!("{error:#}"), "unused token Secrets are looked for again tomorrow");
                }
            }
        }
    }
}

async fn look(context: &Context, executor: &Executor, secrets: &Informer<Secret>) -> anyhow::Result<()> {
    let now = crate::clock::now();
    let period = SignedDuration::try_from(context.settings.unused_token_period)?;
    let tracking = executor.get(&Target::new(&CONFIG_MAPS, "kube-system", TRACKING)).await?;
    let since = tracking["data"][SINCE].as_str().unwrap_or_default();
    if !is_noted_long_enough(since, now, period)? {
        return Ok(());
    }
    // Our copies of pods tell nothing of Secrets, and on nearly all days nobody asks.
    let mut pods: HashMap<String, Vec<Pod>> = HashMap::new();
    for secret in secrets.store().list() {
        let space = namespace(&secret.metadata);
        let account = account_name(&secret)
            .and_then(|account| context.informers.service_accounts.store().get_named(space, account));
        if !is_candidate(&secret, account.as_deref(), now, period) {
            continue;
        }
        if !pods.contains_key(space) {
            let api: Api<Pod> = Api::namespaced(context.watching(), space);
            let found = within(CALL_DEADLINE, api.list(&ListParams::default())).await?;
            pods.insert(space.to_owned(), found.items);
        }
        if pods.get(space).into_iter().flatten().any(|pod| is_named_by(pod, name(&secret.metadata))) {
            continue;
        }
        let Some(action) = plan(&secret, now, period) else { continue };
        tracing::info!(secret = %format!("{space}/{}", name(&secret.metadata)), ?action, "a token that nobody uses");
        match executor.execute(&action).await {
            // It has changed: it may be in use.
            Err(error) if is_conflict(&error) => {}
            Err(error) => tracing::warn!(%error, "an unused token Secret stays until tomorrow"),
            Ok(()) => {}
        }
    }
    Ok(())
}
