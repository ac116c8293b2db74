//! The controller-manager's process: flags in, shared watches and one task a controller until told to stop. Owns the wiring
//! only: decisions are `controller-manager-core`'s, the API is reached through `coracle-client`. A library so that a simulation can run the same
//! controllers.

mod claims;
pub mod clock;
mod context;
mod controllers;
mod discovery;
mod executor;
mod identity;
mod informers;
mod metrics_client;
mod options;
mod pod_control;
mod revisions;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use component_base::feature_gates::{FeatureGates, Program};
use component_base::health::Health;
use component_base::program::{self, Threads};
use coracle_client::config::{ClientConfig, connect, host_name};
use coracle_client::leader_election::run_or_exit;
use coracle_client::metrics::{LeaderElectionMetrics, WorkQueueMetrics};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::identity::Identities;
use crate::options::Options;
use crate::settings::Settings;

const PROGRAM: &str = "controller-manager";

/// The program: its flags are upstream's.
pub fn main() -> ExitCode {
    let options: Options = component_base::flags::parse(options::NOT_IMPLEMENTED);
    component_base::logging::init(&options.log, PROGRAM);
    component_base::tls::install_provider();
    program::run(Threads::EachCore, run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = component_base::shutdown::install();
    let settings = Arc::new(Settings::load(&options)?);
    let gates = FeatureGates::parse(Program::ControllerManager, &options.feature_gates.join(","))
        .map_err(anyhow::Error::msg)?;
    let registry = component_base::metrics::registry();
    gates.register(&mut registry.lock());
    let (queues, election) = {
        let mut registry = registry.lock();
        (WorkQueueMetrics::register(&mut registry), LeaderElectionMetrics::register(&mut registry))
    };
    let kubeconfig = options.kubeconfig.clone().unwrap_or_default();
    let config = ClientConfig::new(PROGRAM)
        .kubeconfig(kubeconfig)
        .master(options.master.as_deref())
        .rate_limit(options.kube_api_qps, options.kube_api_burst);
    let client = connect(&config).await?;
    let server = options
        .serving
        .port(PROGRAM, host_name(), options.secure_port)?
        .serve(Health::new(), registry, shutdown.clone())
        .await?;
    let identities =
        settings.own_identities.then(|| Identities::new(client.clone(), config, shutdown.clone()));
    let (leading, leader_settings) = (client.clone(), Arc::clone(&settings));
    match settings.leader_election.clone() {
        Some(config) => {
            run_or_exit(client, config, &election, &shutdown, |token| {
                lead(leading, identities, leader_settings, queues, token)
            })
            .await;
        }
        None => lead(client, identities, leader_settings, queues, shutdown.clone()).await,
    }
    shutdown.cancel();
    match server {
        Some(server) => server.await.context("the health server ended abnormally"),
        None => Ok(()),
    }
}

/// Runs the controllers of these names (upstream's) with upstream's defaults on a connection, without an election, until `shutdown`.
///
/// # Errors
/// There is no controller of a name.
pub async fn run_controllers(
    client: Client,
    names: &[&str],
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let controllers = format!("--controllers={}", names.join(","));
    let options = Options::try_parse_from([PROGRAM, "--leader-elect=false", &controllers])?;
    let settings = Arc::new(Settings::load(&options)?);
    let queues = WorkQueueMetrics::register(&mut component_base::metrics::registry().lock());
    lead(client, None, settings, queues, shutdown).await;
    Ok(())
}

/// Runs all enabled controllers until `shutdown`.
async fn lead(
    client: Client,
    identities: Option<Identities>,
    settings: Arc<Settings>,
    queues: WorkQueueMetrics,
    shutdown: CancellationToken,
) {
    let context = context::Context::start(client, Arc::clone(&settings), queues, shutdown.clone());
    let mut tasks = JoinSet::new();
    for controller in controllers::ALL.iter().filter(|controller| settings.enabled.contains(controller.name))
    {
        let (context, identities) = (context.clone(), identities.clone());
        tasks.spawn(async move {
            let own = identities.filter(|_| controller.account != controllers::AS_PROCESS);
            let context = match own {
                None => Some(context),
                Some(identities) => {
                    identities.client(controller.account).await.map(|client| context.acting_as(client))
                }
            };
            if let Some(context) = context {
                (controller.run)(context).await;
            }
            controller.name
        });
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(name) => tracing::debug!(controller = name, "ended"),
            Err(error) => {
                // Half a set of controllers is worse than a fresh start: another instance takes over.
                tracing::error!(error = %error, "a controller ended abnormally; ending so that a fresh start takes over");
                std::process::exit(1);
            }
        }
    }
    shutdown.cancelled().await;
}
