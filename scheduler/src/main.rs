//! The scheduler's process: flags in, informers and the scheduling loop until told to stop. Owns the wiring only: decisions are
//! `scheduler-core`'s, the API is reached through `coracle-client`.

mod binding;
mod configuration;
mod extender;
mod informers;
mod metrics;
mod options;
mod pod_status;
mod preempting;
mod scheduling_loop;
mod volume_steps;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use component_base::feature_gates::{FeatureGates, Program};
use component_base::health::Health;
use component_base::program::{self, Threads};
use coracle_client::config::{ClientConfig, connect, host_name};
use coracle_client::event_recorder::{EventRecorder, EventStyle};
use coracle_client::leader_election::run_or_exit;
use coracle_client::metrics::LeaderElectionMetrics;
use scheduler_core::extender::Extender;
use tokio_util::sync::CancellationToken;

use crate::binding::Binder;
use crate::configuration::Settings;
use crate::extender::HttpExtender;
use crate::informers::Informers;
use crate::metrics::SchedulerMetrics;
use crate::options::Options;
use crate::scheduling_loop::{Decider, SchedulingLoop};

const PROGRAM: &str = "scheduler";

fn main() -> ExitCode {
    let options: Options = component_base::flags::parse(options::NOT_IMPLEMENTED);
    component_base::logging::init(&options.log, PROGRAM);
    component_base::tls::install_provider();
    program::run(Threads::EachCore, run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = component_base::shutdown::install();
    let settings = Settings::load(&options)?;
    let gates = FeatureGates::parse(Program::Scheduler, &options.feature_gates.join(","))
        .map_err(anyhow::Error::msg)?;
    let registry = component_base::metrics::registry();
    gates.register(&mut registry.lock());
    let (metrics, election_metrics) = {
        let mut registry = registry.lock();
        (SchedulerMetrics::register(&mut registry), LeaderElectionMetrics::register(&mut registry))
    };
    let client_config = ClientConfig::new(PROGRAM)
        .kubeconfig(&settings.kubeconfig)
        .master(options.master.as_deref())
        .rate_limit(options.kube_api_qps, options.kube_api_burst);
    let client = connect(&client_config).await?;

    let health = Health::new();
    let informers = Informers::start(&client, gates.is_on(configuration::WORKLOADS), &shutdown);
    let synced = informers.clone();
    health.add_ready("informer-sync", move || {
        synced.missing().map_or(Ok(()), |kind| Err(format!("{kind} not synced")))
    });
    let server = options
        .serving
        .port(PROGRAM, host_name(), options.secure_port)?
        .serve(health, registry, shutdown.clone())
        .await?;

    let asked = settings.extenders().iter().cloned().map(|file| HttpExtender::new(file).map(Arc::new));
    let extenders = asked.collect::<anyhow::Result<Vec<_>>>()?;
    let deciders = settings.profiles(&gates)?.into_iter().map(|mut profile| {
        profile.extenders = extenders.iter().map(|one| Arc::clone(one) as Arc<dyn Extender>).collect();
        let name = profile.scheduler_name.clone();
        let events = EventRecorder::start(client.clone(), &name, EventStyle::Series, &shutdown);
        (name, Decider { profile, events })
    });
    let deciders = deciders.collect();
    let binder = extenders.into_iter().find(|extender| extender.binds());
    let binder = Binder { client: client.clone(), claims: informers.claims.clone(), extender: binder };
    let scheduling =
        SchedulingLoop::new(client.clone(), informers, deciders, binder, metrics, settings.backoff)?;
    let election = settings.leader_election.clone();
    match election {
        Some(config) => {
            run_or_exit(client, config, &election_metrics, &shutdown, |token| scheduling.run(token)).await;
        }
        None => scheduling.run(shutdown.clone()).await,
    }
    wait_for_server(server, shutdown).await
}

async fn wait_for_server(
    server: Option<tokio::task::JoinHandle<()>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    shutdown.cancel();
    match server {
        Some(server) => server.await.context("the health server ended abnormally"),
        None => Ok(()),
    }
}
