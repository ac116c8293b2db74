//! The loop: takes in changes, and writes what they amount to as one transaction, the first at once and then at most one a period. Owns the
//! model and the retry after a refusal (a full transaction, with a growing pause).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle_client::informer::{Change, Informer, Subscription};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use kube_proxy_core::model::{ProxyModel, SERVICE_NAME_LABEL, ServiceKey, Transaction};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::configuration::Settings;
use crate::metrics::ProxyMetrics;
use crate::nft;
use crate::node_addresses::NodePortAddresses;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// A change that is not written after this long means that the proxy is not healthy.
const HEALTHY_MAX: Duration = Duration::from_secs(60);
/// How often the node's own addresses are looked at, if CIDRs select among them.
const ADDRESS_PERIOD: Duration = Duration::from_secs(30);

/// How far the table is behind, for the health check.
#[derive(Clone, Default)]
pub struct SyncStatus {
    /// Since when there is something to write that has not been written.
    pending_since: Arc<Mutex<Option<Instant>>>,
}

impl SyncStatus {
    /// Healthy unless a change has been waiting for too long.
    pub fn check(&self) -> Result<(), String> {
        match *self.pending_since.lock() {
            Some(since) if since.elapsed() > HEALTHY_MAX => {
                Err(format!("rules have not been written for {} s", since.elapsed().as_secs()))
            }
            _ => Ok(()),
        }
    }

    fn pending(&self) {
        self.pending_since.lock().get_or_insert_with(Instant::now);
    }

    fn written(&self) {
        *self.pending_since.lock() = None;
    }
}

/// Everything the loop works on.
pub struct Sync {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    node: Informer<Node>,
    model: ProxyModel,
    node_port_addresses: NodePortAddresses,
    min_period: Duration,
    metrics: ProxyMetrics,
    status: SyncStatus,
    /// What is in the table is not known: the next transaction replaces it.
    full: bool,
}

impl Sync {
    /// Starts the watches and prepares the loop.
    pub fn new(
        client: Client,
        settings: &Settings,
        metrics: ProxyMetrics,
        shutdown: &CancellationToken,
    ) -> Self {
        // Services of other proxies and headless ones are none of our business, as upstream.
        let proxied = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
        let name = &settings.proxy.node_name;
        Self {
            services: Informer::builder(Api::all(client.clone()))
                .labels(proxied)
                .trim(|service: &mut Service| {
                    service.metadata.annotations = None;
                    service.status = None;
                })
                .start(shutdown),
            slices: Informer::builder(Api::all(client.clone())).labels(proxied).start(shutdown),
            node: Informer::builder(Api::all(client))
                .fields(&format!("metadata.name={name}"))
                .trim(|node: &mut Node| {
                    if let Some(status) = &mut node.status {
                        status.images = None;
                    }
                })
                .start(shutdown),
            model: ProxyModel::new(settings.proxy.clone()),
            node_port_addresses: settings.node_port_addresses.clone(),
            min_period: settings.min_sync_period,
            metrics,
            status: SyncStatus::default(),
            full: true,
        }
    }

    /// How far the table is behind.
    pub fn status(&self) -> SyncStatus {
        self.status.clone()
    }

    /// Keeps the table up to date until `shutdown`; it stays as it is then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // Writing before everything is known would take away what an earlier run wrote.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = async { tokio::join!(self.services.wait_synced(), self.slices.wait_synced(), self.node.wait_synced()); } => {}
        }
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        let mut node = self.node.subscribe();
        let mut addresses = tokio::time::interval(ADDRESS_PERIOD);
        let mut allowed_at = Instant::now();
        let mut retry = RETRY_FIRST;
        loop {
            self.take_changes(&mut services, &mut slices);
            while node.try_next().is_some() {
                self.look_at_addresses();
            }
            let due = self.full || self.model.is_changed();
            if due {
                self.status.pending();
            }
            if due && Instant::now() >= allowed_at {
                let written = tokio::select! {
                    () = shutdown.cancelled() => return,
                    written = self.write() => written,
                };
                if written {
                    retry = RETRY_FIRST;
                    allowed_at = Instant::now() + self.min_period;
                } else {
                    allowed_at = Instant::now() + retry;
                    retry = (retry * 2).min(RETRY_LONGEST);
                }
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = services.next() => self.service_changed(&change),
                change = slices.next() => self.slice_changed(&change),
                _ = node.next() => self.look_at_addresses(),
                _ = addresses.tick() => self.look_at_addresses(),
                () = tokio::time::sleep_until(allowed_at), if due => {}
            }
        }
    }

    fn take_changes(
        &mut self,
        services: &mut Subscription<Service>,
        slices: &mut Subscription<EndpointSlice>,
    ) {
        while let Some(change) = services.try_next() {
            self.service_changed(&change);
        }
        while let Some(change) = slices.try_next() {
            self.slice_changed(&change);
        }
    }

    fn service_changed(&mut self, change: &Change<Service>) {
        self.metrics.service_changes.inc();
        let key = change.key();
        let service = (!change.is_deleted()).then(|| Arc::clone(change.object()));
        self.model.set_service((key.namespace, key.name), service);
    }

    fn slice_changed(&mut self, change: &Change<EndpointSlice>) {
        self.metrics.endpoint_changes.inc();
        let name = change.key().name;
        let (old, new) = (change.old().and_then(|old| service_of(old)), service_of(change.object()));
        // A slice that is labelled anew leaves its old Service.
        if let Some(old) = old.filter(|old| change.is_deleted() || Some(old) != new.as_ref()) {
            self.model.set_slice(old, &name, None);
        }
        if let Some(new) = new.filter(|_| !change.is_deleted()) {
            self.model.set_slice(new, &name, Some(Arc::clone(change.object())));
        }
    }

    fn look_at_addresses(&mut self) {
        let node = self.node.store().list().into_iter().next();
        self.model.set_node_port_addresses(self.node_port_addresses.resolve(node.as_deref()));
    }

    /// Writes what has to be written. False if that failed.
    async fn write(&mut self) -> bool {
        if self.full {
            self.look_at_addresses();
        }
        let full = self.full;
        let planned = if full { Some(self.model.plan_full()) } else { self.model.plan() };
        let Some(Transaction { text, services }) = planned else {
            self.status.written();
            return true;
        };
        // Until nft has said yes, what is in the table is not known.
        self.full = true;
        let began = Instant::now();
        if let Err(error) = nft::run(&text).await {
            self.metrics.failures.inc();
            tracing::error!(
                error = format!("{error:#}"),
                full,
                "the rules could not be written, trying again"
            );
            return false;
        }
        self.full = false;
        self.status.written();
        let took = began.elapsed().as_secs_f64();
        self.metrics.sync_seconds.observe(took);
        if full {
            self.metrics.full_seconds.observe(took);
            tracing::info!(
                services = self.model.service_count(),
                took_ms = (took * 1000.0) as u64,
                "rules replaced"
            );
        } else {
            tracing::debug!(services, took_ms = (took * 1000.0) as u64, "rules updated");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        self.metrics.last_timestamp.set(now);
        true
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some((Arc::from(namespace), Arc::from(name.as_str())))
}
