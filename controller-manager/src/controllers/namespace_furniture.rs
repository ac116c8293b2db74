//! What every namespace has: the ServiceAccount `default` and the ConfigMap with the cluster's root certificate.

use controller_manager_core::action::{CONFIG_MAPS, SERVICE_ACCOUNTS, Target};
use coracle_client::ObjectKey;
use coracle_client::config::is_conflict;
use coracle_client::controller::Outcome;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::context::Context;
use crate::executor::{done, is_namespace_terminating};
use crate::informers::{Informers, ROOT_CA_NAME};

const WORKERS: usize = 2;
/// The annotation with words for people.
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str =
    "The certificates by which pods know the API server. Kept up to date; do not edit.";

fn is_active(informers: &Informers, namespace: &str) -> bool {
    let found = informers.namespaces.store().get_named("", namespace);
    let terminating = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_some();
    found.is_some_and(|namespace| !terminating(&namespace))
}

/// A namespace that vanishes meanwhile needs nothing any more, and one that has the object already has it.
fn forgiving(result: Result<(), kube::Error>) -> anyhow::Result<Outcome> {
    match result {
        Err(error) if is_namespace_terminating(&error) || is_conflict(&error) => Ok(Outcome::Done),
        Err(error) if coracle_client::config::is_not_found(&error) => Ok(Outcome::Done),
        result => done(result),
    }
}

/// Keeps the ServiceAccount `default` in each namespace until shutdown.
pub async fn run_service_accounts(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("service-account-controller");
    context
        .controller("serviceaccount", WORKERS)
        .watch(&informers.namespaces, |change| vec![ObjectKey::new("", change.key().name)])
        .watch(&informers.service_accounts, |change| {
            change.is_deleted().then(|| ObjectKey::new("", change.key().namespace)).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                if !is_active(&informers, &key.name)
                    || informers.service_accounts.store().get_named(&key.name, "default").is_some()
                {
                    return Ok(Outcome::Done);
                }
                let object = json!({ "metadata": { "name": "default", "namespace": &*key.name } });
                forgiving(executor.create(&SERVICE_ACCOUNTS, &key.name, &object).await.map(|_| ()))
            }
        })
        .await;
}

fn root_ca(namespace: &str, certificates: &str) -> Value {
    json!({
        "metadata": { "name": ROOT_CA_NAME, "namespace": namespace, "annotations": { DESCRIPTION: ROOT_CA_DESCRIPTION } },
        "data": { "ca.crt": certificates },
    })
}

/// Keeps the root certificate's ConfigMap in each namespace until shutdown. Does nothing without `--root-ca-file`.
pub async fn run_root_ca(context: Context) {
    let Some(certificates) = context.settings.root_ca.clone() else {
        tracing::warn!("no --root-ca-file: pods get no {ROOT_CA_NAME}");
        return;
    };
    let informers = context.informers.clone();
    let executor = context.executor("root-ca-certificate-publisher-controller");
    context
        .controller("root_ca_cert_publisher", WORKERS)
        .watch(&informers.namespaces, |change| vec![ObjectKey::new("", change.key().name)])
        .watch(&informers.root_certificates, |change| vec![ObjectKey::new("", change.key().namespace)])
        .run(&context.shutdown, move |key| {
            let (informers, executor, certificates) =
                (informers.clone(), executor.clone(), certificates.clone());
            async move {
                if !is_active(&informers, &key.name) {
                    return Ok(Outcome::Done);
                }
                let wanted = root_ca(&key.name, &certificates);
                let Some(found) = informers.root_certificates.store().get_named(&key.name, ROOT_CA_NAME)
                else {
                    return forgiving(executor.create(&CONFIG_MAPS, &key.name, &wanted).await.map(|_| ()));
                };
                let data = found.data.as_ref();
                let same =
                    data.is_some_and(|data| data.len() == 1 && data.get("ca.crt") == Some(&certificates));
                if same {
                    return Ok(Outcome::Done);
                }
                // The controller's role lets it update ConfigMaps, not patch them.
                let mut object = serde_json::to_value(&*found)?;
                object["data"] = wanted["data"].clone();
                let target = Target::new(&CONFIG_MAPS, &key.name, ROOT_CA_NAME);
                forgiving(executor.replace(&target, "", &object).await.map(|_| ()))
            }
        })
        .await;
}
