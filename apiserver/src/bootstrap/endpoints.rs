//! The endpoints of the `kubernetes` Service: the API servers that are alive. Each one holds a short-lived record in the store under its own
//! address (upstream's lease endpoint reconciler), and writes the list of all records into the Service's Endpoints and EndpointSlice.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::status::ApiError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::of;
use crate::registry::Registry;
use crate::server::request_info::{RequestInfo, Verb};

/// A server that is gone disappears after this time.
const RECORD_TTL_SECONDS: i64 = 15;
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// Keeps this server's record and the lists until `stop` fires, then takes it out.
pub async fn run(registry: Arc<Registry>, address: IpAddr, port: u16, stop: CancellationToken) {
    // What does not change is told once: a server that advertises a loopback address is refused for as long as it runs.
    let mut told = None;
    loop {
        let failure = reconcile(&registry, address, port).await.err().map(|error| error.to_string());
        let wait = if failure.is_none() { RENEW } else { RETRY };
        if let Some(error) = failure.as_ref().filter(|_| failure != told) {
            tracing::warn!(%error, "cannot keep the kubernetes Service's endpoints");
        }
        told = failure;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    let leave = async {
        let key = key(&registry, address);
        let (record, _) = registry.storage.get(&key).await?;
        if let Some(record) = record {
            registry.storage.delete_if(&key, record.mod_revision).await?;
        }
        write_lists(&registry, port).await
    };
    if let Err(error) = leave.await {
        tracing::debug!(%error, "leaving the kubernetes Service; the record runs out by itself");
    }
}

fn directory(registry: &Registry) -> String {
    format!("{}/masterleases/", registry.storage.prefix())
}

fn key(registry: &Registry, address: IpAddr) -> String {
    format!("{}{address}", directory(registry))
}

async fn reconcile(registry: &Arc<Registry>, address: IpAddr, port: u16) -> Result<(), ApiError> {
    let storage = &registry.storage;
    let key = key(registry, address);
    let lease = storage.grant(RECORD_TTL_SECONDS).await?;
    let (known, _) = storage.get(&key).await?;
    let record =
        json!({"kind": "Endpoints", "apiVersion": "v1", "subsets": [{"addresses": [{"ip": address}]}]});
    let value = Bytes::from(record.to_string());
    storage.put_if(&key, value, known.map_or(0, |kv| kv.mod_revision), lease).await?;
    write_lists(registry, port).await
}

async fn write_lists(registry: &Arc<Registry>, port: u16) -> Result<(), ApiError> {
    const SERVERS_MAX: i64 = 1000;
    let start = directory(registry);
    let end = format!("{}0", start.trim_end_matches('/'));
    let page = registry.storage.page(Bytes::from(start.clone()), Bytes::from(end), SERVERS_MAX, 0).await?;
    let addresses: BTreeSet<IpAddr> = page
        .kvs
        .iter()
        .filter_map(|kv| std::str::from_utf8(&kv.key).ok()?.strip_prefix(&start)?.parse().ok())
        .collect();
    if addresses.is_empty() {
        // Nobody to name: an old list is better than none for whoever is about to come back.
        return Ok(());
    }
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let listed: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": listed, "ports": ports}],
    });
    write(registry, "", "endpoints", "subsets", endpoints).await?;
    let listed: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": listed,
    });
    write(registry, "discovery.k8s.io", "endpointslices", "endpoints", slice).await
}

/// Creates the object, or brings the one field that matters up to date.
async fn write(
    registry: &Arc<Registry>,
    group: &str,
    plural: &str,
    field: &str,
    object: Value,
) -> Result<(), ApiError> {
    let resource = of(group, "v1", plural)?;
    let wanted = object[field].clone();
    let change = |old: &Value| {
        let mut new = old.clone();
        if new[field] != wanted {
            new[field] = wanted.clone();
        }
        Ok(new)
    };
    match registry.guaranteed_update(resource, NAMESPACE, NAME, &change).await {
        Err(error) if error.code() == 404 => {
            let request = RequestInfo::internal(Verb::Create, resource, Some(NAMESPACE), Some(NAME));
            match registry.create(&request, object).await {
                Err(error) if error.reason() != "AlreadyExists" => Err(error),
                _ => Ok(()),
            }
        }
        result => result.map(drop),
    }
}
