//! The ConfigMap extension-apiserver-authentication: what servers behind the aggregation layer need to tell real front-proxy requests. It follows the files
//! of the CAs.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::status::ApiError;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{ensure, of};
use crate::options::Options;
use crate::registry::Registry;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes what changes in the files until `stop` fires.
pub(super) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let mut published = data(&registry.options).ok();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        // Half-written files are looked at again.
        let Ok(found) = data(&registry.options) else { continue };
        if published.as_ref() == Some(&found) {
            continue;
        }
        match publish(&registry, &found).await {
            Ok(()) => published = Some(found),
            Err(error) => tracing::warn!(%error, "cannot publish the CAs of clients; trying again"),
        }
    }
}

/// Makes the ConfigMap, or brings it up to date: one of an earlier start may be there, with other certificates.
pub(super) async fn publish(registry: &Arc<Registry>, data: &Map<String, Value>) -> Result<(), ApiError> {
    let config = json!({"metadata": {"name": NAME}, "data": data});
    ensure(registry, "", "v1", "configmaps", Some(NAMESPACE), config).await?;
    let renew = |current: &Value| {
        let mut renewed = current.clone();
        for (key, value) in data {
            renewed["data"][key] = value.clone();
        }
        Ok(renewed)
    };
    let resource = of("", "v1", "configmaps")?;
    registry.guaranteed_update(resource, NAMESPACE, NAME, &renew).await.map(drop)
}

/// What is to be in it.
///
/// # Errors
/// A file that is no CA bundle.
pub(super) fn data(options: &Options) -> Result<Map<String, Value>, ApiError> {
    let mut data = Map::new();
    for (name, file) in [
        ("client-ca-file", &options.client_ca_file),
        ("requestheader-client-ca-file", &options.requestheader_client_ca_file),
    ] {
        if let Some(path) = file {
            component_base::tls::load_roots(path).map_err(ApiError::internal)?;
            let text = std::fs::read_to_string(path)
                .map_err(|error| ApiError::internal(format!("{}: {error}", path.display())))?;
            data.insert(name.into(), text.into());
        }
    }
    let mut list = |name: &str, list: &[String]| -> Result<(), ApiError> {
        let text = serde_json::to_string(list).map_err(ApiError::internal)?;
        data.insert(name.into(), text.into());
        Ok(())
    };
    if !options.requestheader_uid_headers.is_empty() {
        list("requestheader-uid-headers", &options.requestheader_uid_headers)?;
    }
    list("requestheader-allowed-names", &options.requestheader_allowed_names)?;
    list("requestheader-extra-headers-prefix", &options.requestheader_extra_headers_prefix)?;
    list("requestheader-group-headers", &options.requestheader_group_headers)?;
    list("requestheader-username-headers", &options.requestheader_username_headers)?;
    Ok(data)
}
