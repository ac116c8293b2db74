//! Puts the server together out of its parts and takes it apart again at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use component_base::duration::GoDuration;
use component_base::health::Health;
use http::HeaderValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Chain, policy};
use crate::aggregation::{Aggregator, availability, registration};
use crate::audit::Auditor;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::authz::escalation::Guarded;
use crate::bootstrap;
use crate::cache::{Cache, feed};
use crate::conversion::Converter;
use crate::definitions;
use crate::extension::client::Clients;
use crate::flowcontrol::FlowControl;
use crate::openapi::Documents;
use crate::options::Options;
use crate::options::runtime_config::RuntimeConfig;
use crate::registry::Registry;
use crate::server;
use crate::server::app::App;
use crate::server::closing::Closing;
use crate::server::cors::Cors;
use crate::server::limits::Limits;
use crate::server::metrics::{RequestMetrics, StorageMetrics};
use crate::server::tls::ServingTls;
use crate::storage::Storage;

/// How often the store is asked for a sign of life.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// The same while it gives none.
const PROBE_AGAIN: Duration = Duration::from_millis(500);

/// Runs until `stop` fires.
///
/// # Errors
/// What keeps the server from starting, one text each, naming flags.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Vec<String>> {
    options.check()?;
    let one = |error: String| vec![error];
    let options = Arc::new(options);
    let metrics = component_base::metrics::registry();
    let storage = Arc::new(Storage::new(&options, StorageMetrics::register(&metrics)).map_err(one)?);
    let gates = options.gates().map_err(one)?;
    gates.register(&mut metrics.lock());
    let versions = RuntimeConfig::parse(&options.runtime_config).map_err(one)?;
    if versions.asked_in_vain {
        tracing::warn!(
            "--runtime-config: of the alpha and beta versions of the API only admissionregistration.k8s.io/v1beta1 is built"
        );
    }
    let cache = Cache::hiding(storage.prefix(), options.default_watch_cache_size, versions.hidden.into());
    let cache = Arc::new(cache);
    let registry = Registry::new(Arc::clone(&storage), Arc::clone(&cache), Arc::clone(&options));
    let authenticator = Authenticator::new(&options, Arc::clone(&registry)).map_err(one)?;
    let config = ServingTls::new(&options, &authenticator).map_err(one)?;
    let auditor = Auditor::new(&options.audit, &metrics, &registry).map_err(one)?;
    let listener = server::listen(&options).map_err(one)?;
    let address = listener.local_addr().map_err(|error| one(error.to_string()))?;

    let background = CancellationToken::new();
    let store = Arc::new(Responsive::default());
    let feed = tokio::spawn(feed::run(Arc::clone(&cache), Arc::clone(&storage), background.clone()));
    let timeouts = [options.etcd_healthcheck_timeout, options.etcd_readycheck_timeout].map(GoDuration::get);
    let probe = tokio::spawn(probe(Arc::clone(&storage), timeouts, Arc::clone(&store), background.clone()));
    let compaction = {
        let (storage, background) = (Arc::clone(&storage), background.clone());
        let interval = options.etcd_compaction_interval.get();
        tokio::spawn(async move { storage.compact_regularly(interval, background).await })
    };

    let (draining, stopping) = (CancellationToken::new(), stop.clone());
    let health = Health::new();
    let answers = |is: &AtomicBool| {
        if is.load(Ordering::Relaxed) { Ok(()) } else { Err("etcd does not answer in time".to_owned()) }
    };
    let responsive = Arc::clone(&store);
    health.add_live("etcd", move || answers(&responsive.healthy));
    health.add_ready("etcd-readiness", move || answers(&store.ready));
    let started = Arc::clone(&cache);
    health.add_ready("informer-sync", move || {
        if started.is_started() { Ok(()) } else { Err("the watch cache is still being filled".into()) }
    });
    health.add_ready("shutdown", move || {
        if stopping.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }
    });

    let authorizer = Arc::new(Authorizer::new(&options, &registry).map_err(one)?);
    let webhooks = Arc::new(Clients::new(Arc::clone(&registry), None));
    registry.set_converter(Arc::new(Converter::new(Arc::clone(&webhooks))));
    let admission = Chain::new(Arc::clone(&registry), &authorizer, &options, webhooks).map_err(one)?;
    registry.set_admission(Guarded::new(admission, Arc::clone(&authorizer)));
    let definitions = tokio::spawn(definitions::run(Arc::clone(&registry), stop.clone()));
    let policies = tokio::spawn(policy::status::run(Arc::clone(&registry), stop.clone()));
    let bootstrap = bootstrap::start(Arc::clone(&registry), stop.clone()).map_err(one)?;
    let roles = Arc::new(AtomicBool::new(false));
    let default_roles = bootstrap::rbac::run(Arc::clone(&registry), Arc::clone(&roles), stop.clone());
    let default_roles = tokio::spawn(default_roles);
    let aggregation = tokio::spawn(bootstrap::aggregation::run(Arc::clone(&registry), stop.clone()));
    health.add_ready("poststarthook/rbac/bootstrap-roles", move || {
        if roles.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err("the default roles are still being made".into())
        }
    });
    let inflight = options.max_requests_inflight + options.max_mutating_requests_inflight;
    let flow_control = FlowControl::new(inflight, &metrics);
    let flows = bootstrap::flowcontrol::run(Arc::clone(&registry), Arc::clone(&flow_control), stop.clone());
    let flows = tokio::spawn(flows);
    let aggregator = Aggregator::new(Arc::clone(&registry));
    let registration = tokio::spawn(registration::run(Arc::clone(&registry), stop.clone()));
    let availability = tokio::spawn(availability::run(Arc::clone(&aggregator), stop.clone()));
    let app = Arc::new(App {
        registry,
        aggregator,
        authenticator,
        authorizer,
        auditor,
        health,
        requests: RequestMetrics::register(&metrics),
        metrics,
        openapi: Documents::default(),
        printer: Some(crate::printers::table),
        cors: Cors::new(&options.cors_allowed_origins),
        limits: Limits::new(&options, Arc::clone(&flow_control)),
        flow_control,
        closing: Closing::default(),
        transport_security: transport_security(&options.strict_transport_security_directives),
        draining: draining.clone(),
        options: Arc::clone(&options),
    });

    tracing::info!(%address, etcd = ?options.etcd_servers, "serving");
    let accepting = CancellationToken::new();
    let server = tokio::spawn(server::run(listener, config, Arc::clone(&app), accepting.clone()));
    stop.cancelled().await;
    // Load balancers see `/readyz` fail first.
    tokio::time::sleep(options.shutdown_delay_duration.get()).await;
    if options.shutdown_send_retry_after {
        app.closing.refuse_and_wait(options.request_timeout.get()).await;
    }
    draining.cancel();
    accepting.cancel();
    let _ = server.await;
    app.auditor.flush().await;
    for task in
        [bootstrap, default_roles, aggregation, definitions, registration, availability, policies, flows]
    {
        let _ = task.await;
    }
    background.cancel();
    for task in [feed, probe, compaction] {
        let _ = task.await;
    }
    Ok(())
}

/// The value of Strict-Transport-Security; the directives have been checked.
fn transport_security(directives: &[String]) -> Option<HeaderValue> {
    if directives.is_empty() {
        return None;
    }
    HeaderValue::from_str(&directives.join("; ")).ok()
}

/// Whether the store answered when it was last asked, as soon as health and as readiness demand.
#[derive(Default)]
struct Responsive {
    healthy: AtomicBool,
    ready: AtomicBool,
}

async fn probe(
    storage: Arc<Storage>,
    [healthy, ready]: [Duration; 2],
    store: Arc<Responsive>,
    stop: CancellationToken,
) {
    let mut told = false;
    loop {
        let asked = Instant::now();
        let answered = tokio::time::timeout(healthy.max(ready), storage.current_revision()).await;
        let took = asked.elapsed();
        let failure = match &answered {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {took:?}")),
        };
        if let Some(error) = failure.as_ref().filter(|_| !told) {
            tracing::warn!(error, "etcd does not answer");
        }
        told = failure.is_some();
        store.healthy.store(!told && took <= healthy, Ordering::Relaxed);
        store.ready.store(!told && took <= ready, Ordering::Relaxed);
        let pause = if store.healthy.load(Ordering::Relaxed) { PROBE_INTERVAL } else { PROBE_AGAIN };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
