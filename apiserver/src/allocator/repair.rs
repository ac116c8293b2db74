//! Brings the pools' records in line with the Services there are, regularly: a server that dies between taking a value and storing the Service
//! leaves it taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource;
use coracle_api::status::ApiError;
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use super::service::{holdings, owner};
use crate::registry::Registry;
use crate::registry::list::ListOptions;
use crate::registry::selection::Selection;

/// As upstream.
const INTERVAL: Duration = Duration::from_secs(3 * 60);

/// Repairs until `stop` fires. A value is given back when two repairs in a row find it unused.
pub async fn run(registry: Arc<Registry>, addresses: Pool, ports: Pool, stop: CancellationToken) {
    let mut suspects = (BTreeSet::new(), BTreeSet::new());
    loop {
        match repair(&registry, &addresses, &ports, &suspects).await {
            Ok(found) => suspects = found,
            Err(error) => tracing::warn!(%error, "could not check the allocated ClusterIPs and node ports"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn repair(
    registry: &Registry,
    addresses: &Pool,
    ports: &Pool,
    suspects: &(BTreeSet<u32>, BTreeSet<u32>),
) -> Result<(BTreeSet<u32>, BTreeSet<u32>), ApiError> {
    let services = resource::lookup("", "v1", "services").ok_or_else(|| ApiError::internal("no Services"))?;
    let page = registry.list(services, &Selection::namespace(""), &ListOptions::default()).await?;
    let (mut used_addresses, mut used_ports) = (BTreeMap::new(), BTreeMap::new());
    for object in page.objects {
        let service = object.value().map_err(ApiError::internal)?;
        let (held, owner) = (holdings(&service), owner(&service));
        used_addresses.extend(held.addresses.into_iter().map(|address| (address, owner.clone())));
        used_ports.extend(held.ports.into_iter().map(|port| (port, owner.clone())));
    }
    let storage = &registry.storage;
    Ok((
        addresses.repair(storage, &used_addresses, &suspects.0).await?,
        ports.repair(storage, &used_ports, &suspects.1).await?,
    ))
}
