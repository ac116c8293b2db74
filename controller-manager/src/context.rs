//! What every controller is given: the connection, the shared watches, executors, settings. Owns nothing that decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::controller::{Controller, Outcome};
use coracle_client::event_recorder::{EventRecorder, EventStyle};
use coracle_client::informer::{Informer, InformerBuilder, Watchable};
use coracle_client::metrics::WorkQueueMetrics;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::discovery::Discovery;
use crate::executor::{CALLS_MAX, Executor};
use crate::informers::Informers;
use crate::settings::Settings;

/// Shared by all controllers of the process.
#[derive(Clone)]
pub struct Context {
    /// The connection.
    pub client: Client,
    /// The watches.
    pub informers: Informers,
    /// Which resources there are.
    pub discovery: Discovery,
    /// The settings.
    pub settings: Arc<Settings>,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// The process's own connection, which watches for all.
    watching: Client,
    metrics: WorkQueueMetrics,
    calls: Arc<Semaphore>,
    recorders: Arc<Mutex<HashMap<&'static str, EventRecorder>>>,
}

impl Context {
    /// Starts the shared watches.
    pub fn start(
        client: Client,
        settings: Arc<Settings>,
        metrics: WorkQueueMetrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            informers: Informers::start(&client, &shutdown),
            discovery: Discovery::new(client.clone()),
            watching: client.clone(),
            client,
            settings,
            shutdown,
            metrics,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            recorders: Arc::default(),
        }
    }

    /// The same for a controller that writes as someone else. Watches stay shared.
    #[must_use]
    pub fn acting_as(&self, client: Client) -> Self {
        Self { client, recorders: Arc::default(), ..self.clone() }
    }

    /// The process's own connection, for reading what its watches leave out.
    pub fn watching(&self) -> Client {
        self.watching.clone()
    }

    /// A watch of what one controller alone needs; what several need is in [`Context::informers`].
    pub fn informer<K>(&self) -> InformerBuilder<K>
    where
        K: Watchable + kube::Resource<DynamicType = ()>,
    {
        Informer::builder(Api::all(self.watching.clone()))
    }

    /// An executor whose events come from `component`.
    pub fn executor(&self, component: &'static str) -> Executor {
        let events = self
            .recorders
            .lock()
            .entry(component)
            .or_insert_with(|| {
                EventRecorder::start(self.client.clone(), component, EventStyle::Core, &self.shutdown)
            })
            .clone();
        Executor::new(self.client.clone(), events, Arc::clone(&self.calls))
    }

    /// A controller with its queue.
    pub fn controller(&self, name: &'static str, workers: usize) -> Controller {
        Controller::new(name, workers, &self.metrics)
    }

    /// The metrics of a queue outside [`Controller`].
    pub fn queue_metrics(&self, name: &str) -> coracle_client::metrics::QueueMetrics {
        self.metrics.queue(name)
    }
}

/// `Some(delay)` becomes a look later, `None` the end.
pub fn outcome(after: Option<Duration>) -> Outcome {
    after.map_or(Outcome::Done, Outcome::RequeueAfter)
}
