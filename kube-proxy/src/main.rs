//! kube-proxy's process: makes the node's nftables follow Services and EndpointSlices. Owns the wiring only: `kube-proxy-core`
//! decides what the table looks like, `sync` writes it.

mod configuration;
mod metrics;
mod nft;
mod node_addresses;
mod options;
mod sync;
mod sysctl;

use std::process::ExitCode;

use anyhow::Context;
use component_base::health::Health;
use component_base::program::{self, Threads};
use coracle_client::config::{ClientConfig, connect};
use tokio::net::TcpListener;

use crate::configuration::Settings;
use crate::metrics::ProxyMetrics;
use crate::options::Options;
use crate::sync::Sync;

fn main() -> ExitCode {
    let options: Options = component_base::flags::parse(options::NOT_IMPLEMENTED);
    component_base::logging::init(&options.log, "kube-proxy");
    component_base::tls::install_provider();
    // Two threads are enough: the work is a few transactions a second at most.
    program::run(Threads::Only(2), run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    if options.cleanup {
        return nft::run(&kube_proxy_core::base::cleanup()).await.context("cannot remove the table");
    }
    let settings = Settings::load(&options)?;
    if let Some(score) = settings.oom_score
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::warn!(score, %error, "cannot set the OOM score (--oom-score-adj)");
    }
    let shutdown = component_base::shutdown::install();
    nft::check().await?;
    sysctl::prepare();

    let registry = component_base::metrics::registry();
    settings.gates.register(&mut registry.lock());
    let metrics = ProxyMetrics::register(&mut registry.lock());
    let client_config = ClientConfig::new("kube-proxy")
        .kubeconfig(&settings.kubeconfig)
        .master(settings.master.as_deref())
        .rate_limit(options.kube_api_qps, options.kube_api_burst);
    let client = connect(&client_config).await?;
    let sync = Sync::new(client, &settings, metrics, &shutdown);

    let health = Health::new();
    let status = sync.status();
    health.add_live("sync", move || status.check());
    let mut servers = Vec::new();
    for address in [settings.healthz_address, settings.metrics_address].into_iter().flatten() {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; is another kube-proxy running on this node?")
        })?;
        let (health, registry, shutdown) = (health.clone(), registry.clone(), shutdown.clone());
        servers.push(tokio::spawn(component_base::admin::serve(listener, None, health, registry, shutdown)));
    }
    sync.run(shutdown.clone()).await;
    shutdown.cancel();
    for server in servers {
        server.await.context("a server ended abnormally")?;
    }
    Ok(())
}
