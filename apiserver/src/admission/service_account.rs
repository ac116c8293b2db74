//! ServiceAccount: every pod runs as one, and finds its token, the cluster's root certificate and its namespace in a mounted folder.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Plugin, creates_pod};
use crate::registry::{Registry, meta};
use crate::server::request_info::RequestInfo;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little, so that a token is renewed at the hour.
const TOKEN_SECONDS: i64 = 3607;
/// The `default` account of a new namespace is made by a controller: it gets a moment.
const ATTEMPTS: u32 = 10;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if creates_pod(request, old) && object["metadata"]["annotations"][MIRROR_ANNOTATION].is_null() {
                admit(registry, request, object).await?;
            }
            Ok(())
        })
    }
}

async fn admit(registry: &Registry, request: &RequestInfo, pod: &mut Value) -> Result<(), ApiError> {
    let mut name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        name = "default".into();
        pod["spec"]["serviceAccountName"] = name.as_str().into();
    }
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let account = find(registry, request.namespace(), &name).await.map_err(|error| {
        let message =
            format!("error looking up service account {}/{name}: {}", request.namespace(), error.message());
        ApiError::forbidden(request.resource.group_resource(), meta::text(pod, "name"), message)
    })?;
    if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && !account["imagePullSecrets"].is_null()
    {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wish = |value: &Value| value["automountServiceAccountToken"].as_bool();
    if wish(&pod["spec"]).or(wish(&account)).unwrap_or(true) {
        let mut random = [0_u8; 5];
        getrandom::fill(&mut random).map_err(ApiError::internal)?;
        mount_token(pod, &coracle_api::meta::generated_name("kube-api-access-", random));
    }
    Ok(())
}

async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Arc<Value>, ApiError> {
    let accounts = resource::lookup("", "v1", "serviceaccounts")
        .ok_or_else(|| ApiError::internal("no ServiceAccounts"))?;
    if let Some(known) = registry.cached(accounts, namespace, name) {
        return known.shared().map_err(ApiError::internal);
    }
    let mut attempt = 1;
    loop {
        match registry.read(accounts, namespace, name).await {
            Err(error) if error.code() == 404 && name == "default" && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(ATTEMPT_INTERVAL).await;
            }
            result => return result.map(Arc::new),
        }
    }
}

/// Adds the token's volume, and its mount to every container that has nothing mounted there.
fn mount_token(pod: &mut Value, volume: &str) {
    let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        // Indexing would leave a null behind where the list is missing.
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            mounts.push(mount.clone());
            container["volumeMounts"] = mounts.into();
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({
        "name": volume,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    }));
    pod["spec"]["volumes"] = volumes.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_token_unless_it_has_its_own() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}],
        }});
        mount_token(&mut pod, "kube-api-access-abcde");
        assert_eq!(pod["spec"]["volumes"].as_array().expect("volumes").len(), 1);
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().expect("mounts").len(), 1);
    }
    #[test]
    fn a_pod_without_init_containers_gets_no_null_list() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_token(&mut pod, "kube-api-access-abcde");
        assert!(pod["spec"].get("initContainers").is_none());
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
    }
}
