//! Runs the bootstrap signer and the token cleaner.

use std::sync::Arc;
use std::time::Duration;

use controller_manager_core::bootstrap_tokens::{
    INFO_NAME, INFO_NAMESPACE, SECRET_TYPE, SECRETS_NAMESPACE, remove, sign, time_left,
};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::Informer;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::context::{Context, outcome};

fn tokens(context: &Context) -> Informer<Secret> {
    let selector = format!("type={SECRET_TYPE},metadata.namespace={SECRETS_NAMESPACE}");
    context.informer().fields(&selector).start(&context.shutdown)
}

/// Signs until shutdown.
pub async fn run_signer(context: Context) {
    let secrets = tokens(&context);
    let selector = format!("metadata.name={INFO_NAME},metadata.namespace={INFO_NAMESPACE}");
    let infos: Informer<ConfigMap> = context.informer().fields(&selector).start(&context.shutdown);
    let executor = context.executor("bootstrap-signer");
    let info = || ObjectKey::new(INFO_NAMESPACE, INFO_NAME);
    let (known, tokens) = (Arc::clone(infos.store()), Arc::clone(secrets.store()));
    context
        .controller("bootstrap_signer_queue", 1)
        .watch(&infos, |change| vec![change.key()])
        .watch(&secrets, move |_| vec![info()])
        .run(&context.shutdown, move |key| {
            let (known, tokens, executor) = (Arc::clone(&known), Arc::clone(&tokens), executor.clone());
            async move {
                let Some(info) = known.get(&key) else { return Ok(Outcome::Done) };
                let now = crate::clock::now();
                let all = tokens.list();
                if let Some(action) = sign(&info, all.iter().map(|secret| &**secret), now) {
                    executor.execute(&action).await?;
                }
                // The signature goes with its token.
                let ends =
                    all.iter().filter_map(|secret| time_left(secret, now)).filter(|left| !left.is_zero());
                Ok(outcome(ends.min().and_then(|left| Duration::try_from(left).ok())))
            }
        })
        .await;
}

/// Takes expired tokens away until shutdown.
pub async fn run_cleaner(context: Context) {
    let secrets = tokens(&context);
    let executor = context.executor("token-cleaner");
    let store = Arc::clone(secrets.store());
    context
        .controller("token_cleaner", 1)
        .watch(&secrets, |change| vec![change.key()])
        .run(&context.shutdown, move |key| {
            let (store, executor) = (Arc::clone(&store), executor.clone());
            async move {
                let Some(secret) = store.get(&key) else { return Ok(Outcome::Done) };
                match time_left(&secret, crate::clock::now()) {
                    None => Ok(Outcome::Done),
                    Some(left) if left.is_zero() => {
                        executor.execute(&remove(&secret)).await?;
                        Ok(Outcome::Done)
                    }
                    Some(left) => Ok(outcome(Duration::try_from(left).ok())),
                }
            }
        })
        .await;
}
