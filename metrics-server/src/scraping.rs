//! The rounds: every so often all kubelets are asked, and what they say is taken together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use component_base::metrics::SharedRegistry;
use coracle_client::informer::Informer;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::exposition;
use crate::kubelet::Kubelets;
use crate::usage::Usages;

/// So many kubelets are asked at a time.
const AT_ONCE: usize = 32;

/// Asks and takes.
pub struct Scraping {
    kubelets: Kubelets,
    nodes: Informer<Node>,
    usages: Arc<RwLock<Usages>>,
    resolution: Duration,
    rounds: Arc<AtomicU64>,
    answers: Counter,
    failures: Counter,
}

impl Scraping {
    /// Asks every `resolution`.
    pub fn new(
        kubelets: Kubelets,
        nodes: Informer<Node>,
        usages: Arc<RwLock<Usages>>,
        resolution: Duration,
        registry: &SharedRegistry,
    ) -> Self {
        let (answers, failures) = (Counter::default(), Counter::default());
        let mut registry = registry.lock();
        registry.register("metrics_server_kubelet_answers", "Answers of kubelets", answers.clone());
        registry.register("metrics_server_kubelet_failures", "Kubelets asked in vain", failures.clone());
        drop(registry);
        Self { kubelets, nodes, usages, resolution, rounds: Arc::default(), answers, failures }
    }

    /// Tells how many rounds there have been.
    pub fn rounds(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let rounds = Arc::clone(&self.rounds);
        move || rounds.load(Ordering::Relaxed)
    }

    /// Works until `stop` fires.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.resolution);
        // A slow round must not be followed by two in a row: the rate would be of a moment.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            self.nodes.wait_synced().await;
            loop {
                ticks.tick().await;
                self.round().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    async fn round(&self) {
        let nodes = self.nodes.store().list();
        self.kubelets.keep(&nodes);
        let asked = futures::stream::iter(nodes).map(|node| async move {
            let now = Timestamp::now();
            let answer = self.kubelets.ask(&node).await;
            (node.name_any(), answer.map(|text| exposition::read(&text, now)))
        });
        let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        let mut round = Vec::with_capacity(answers.len());
        for (node, answer) in answers {
            match answer {
                Ok(sample) => {
                    self.answers.inc();
                    round.push((node, sample));
                }
                Err(error) => {
                    self.failures.inc();
                    tracing::warn!(node, %error, "a kubelet was asked in vain; its metrics are left out");
                }
            }
        }
        let resolution = SignedDuration::try_from(self.resolution).unwrap_or(SignedDuration::MAX);
        self.usages.write().take(round, resolution);
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }
}
