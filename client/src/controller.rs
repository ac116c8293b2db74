//! The loop round a controller: changes to keys, keys through a queue, workers that reconcile one key at a time. Owns
//! queue and workers, never what a reconciliation does.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::is_conflict;
use crate::informer::{Change, Informer, Watchable};
use crate::metrics::WorkQueueMetrics;
use crate::object_key::ObjectKey;
use crate::work_queue::WorkQueue;

/// A reconciliation that takes longer than this is abandoned and retried.
pub const RECONCILE_DEADLINE: Duration = Duration::from_secs(120);

/// How a successful reconciliation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Look again after this time even if nothing changes.
    RequeueAfter(Duration),
}

type Synced = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A controller before it runs: its name, its queue, what it watches.
pub struct Controller {
    name: &'static str,
    workers: usize,
    queue: WorkQueue<ObjectKey>,
    synced: Vec<Synced>,
}

impl Controller {
    /// A controller with this many workers. `name` appears in logs and as the label of its queue's metrics.
    pub fn new(name: &'static str, workers: usize, metrics: &WorkQueueMetrics) -> Self {
        let queue = WorkQueue::new(Some(metrics.queue(name)));
        Self { name, workers: workers.max(1), queue, synced: Vec::new() }
    }

    /// Queues the keys that `keys` derives from each change of `informer`, and waits for its first list before running.
    #[must_use]
    pub fn watch<K: Watchable>(
        self,
        informer: &Informer<K>,
        mut keys: impl FnMut(&Change<K>) -> Vec<ObjectKey> + Send + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        informer.on_change(move |change| {
            for key in keys(change) {
                queue.add(key);
            }
        });
        self.wait_for(informer)
    }

    /// Waits for an informer's first list before running, without queueing anything from it.
    #[must_use]
    pub fn wait_for<K: Watchable>(mut self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.synced.push(Box::pin(async move { informer.wait_synced().await }));
        self
    }

    /// The queue, for keys that come from elsewhere (timers, other controllers).
    pub fn queue(&self) -> WorkQueue<ObjectKey> {
        self.queue.clone()
    }

    /// Runs until `shutdown`; reconciliations under way are finished first (each within its deadline). An error or a panic
    /// retries the key with a growing delay, a conflict quietly so.
    pub async fn run<F, Fut>(self, shutdown: &CancellationToken, reconcile: F)
    where
        F: Fn(ObjectKey) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<Outcome>> + Send + 'static,
    {
        let Self { name, workers, queue, synced } = self;
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = futures::future::join_all(synced) => {}
        }
        tracing::info!(controller = name, workers, "started");
        let reconcile = Arc::new(reconcile);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (queue, reconcile) = (queue.clone(), Arc::clone(&reconcile));
            tasks.spawn(async move {
                while let Some(key) = queue.get().await {
                    handle(name, &queue, key, &*reconcile).await;
                }
            });
        }
        shutdown.cancelled().await;
        queue.close();
        // What is only queued has no effect to finish: drain it so that workers end after what they have in hand.
        while let Some(Some(key)) = queue.get().now_or_never() {
            queue.done(&key);
        }
        while tasks.join_next().await.is_some() {}
        tracing::info!(controller = name, "stopped");
    }
}

async fn handle<F, Fut>(name: &str, queue: &WorkQueue<ObjectKey>, key: ObjectKey, reconcile: &F)
where
    F: Fn(ObjectKey) -> Fut,
    Fut: Future<Output = anyhow::Result<Outcome>>,
{
    let attempt = AssertUnwindSafe(reconcile(key.clone())).catch_unwind();
    let failed = match tokio::time::timeout(RECONCILE_DEADLINE, attempt).await {
        Ok(Ok(Ok(outcome))) => {
            queue.forget(&key);
            if let Outcome::RequeueAfter(delay) = outcome {
                queue.add_after(key.clone(), delay);
            }
            None
        }
        // Part of ordinary life: our copy was behind.
        Ok(Ok(Err(error))) if error.downcast_ref().is_some_and(is_conflict) => {
            tracing::debug!(controller = name, key = %key, "the object changed meanwhile, trying again");
            queue.add_rate_limited(key.clone());
            None
        }
        Ok(Ok(Err(error))) => Some(format!("{error:#}")),
        Ok(Err(_panic)) => Some("the reconciliation panicked".to_owned()),
        Err(_elapsed) => Some(format!("not finished within {} s", RECONCILE_DEADLINE.as_secs())),
    };
    if let Some(error) = failed {
        tracing::warn!(controller = name, key = %key, failures = queue.failures(&key) + 1, error, "reconciling failed, trying again");
        queue.add_rate_limited(key.clone());
    }
    queue.done(&key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::store::Store;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;
    use prometheus_client::registry::Registry;
    use std::collections::HashSet;

    #[tokio::test(start_paused = true)]
    async fn waits_for_sync_retries_failures_and_panics_and_stops() {
        let informer = Informer::<ConfigMap>::with_store(Store::new(vec![]));
        let metrics = WorkQueueMetrics::register(&mut Registry::default());
        let controller = Controller::new("test", 2, &metrics).watch(&informer, |change| vec![change.key()]);
        let queue = controller.queue();
        let shutdown = CancellationToken::new();
        let tries = Arc::new(AtomicU32::new(0));
        let running = tokio::spawn({
            let (shutdown, tries) = (shutdown.clone(), Arc::clone(&tries));
            async move {
                controller
                    .run(&shutdown, move |_key| {
                        let attempt = tries.fetch_add(1, Ordering::SeqCst);
                        async move {
                            match attempt {
                                0 => anyhow::bail!("first time fails"),
                                1 => panic!("second time panics"),
                                2 => Ok(Outcome::RequeueAfter(Duration::from_secs(1))),
                                _ => Ok(Outcome::Done),
                            }
                        }
                    })
                    .await;
            }
        });
        let mut listed = HashSet::new();
        let mut object = ConfigMap::default();
        object.metadata.name = Some("a".into());
        informer.feed(Event::Init, &mut listed);
        informer.feed(Event::InitApply(object), &mut listed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 0, "nothing runs before the first list is complete");
        informer.feed(Event::InitDone, &mut listed);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        assert_eq!(queue.failures(&ObjectKey::new("", "a")), 0);
        shutdown.cancel();
        running.await.expect("ends by itself");
    }
}
