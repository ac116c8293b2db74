//! The machinery every component that watches the API is built on: the scheduler, the controllers, the kubelet and
//! kube-proxy. It owns the connection ([`config`]), the local copies of what is watched ([`informer`], [`store`]), the
//! queues of what has to be looked at ([`work_queue`], [`controller`]), who is allowed to act ([`leader_election`]) and
//! telling people about it ([`event_recorder`]). It never decides anything about a workload and never polls: everything
//! follows from watch streams.
//!
//! # A controller in one screen
//!
//! ```no_run
//! use coracle_client::config::{ClientConfig, connect};
//! use coracle_client::controller::{Controller, Outcome};
//! use coracle_client::event_recorder::{EventKind, EventRecorder, EventStyle};
//! use coracle_client::informer::Informer;
//! use coracle_client::metrics::WorkQueueMetrics;
//! use coracle_client::store::{controller_of_kind, index_by_owner_uid};
//! use k8s_openapi::api::apps::v1::ReplicaSet;
//! use k8s_openapi::api::core::v1::Pod;
//! use kube::{Api, Resource, ResourceExt};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(shutdown: CancellationToken) -> anyhow::Result<()> {
//! // 1. Connect. `None` for the kubeconfig means in-cluster. The user agent names the component.
//! let client = connect(&ClientConfig::new("controller-manager").kubeconfig("/etc/controller-manager.conf")).await?;
//!
//! // 2. Watch. An informer is cheap to clone; share one per type in the whole process.
//! let replica_sets: Informer<ReplicaSet> = Informer::builder(Api::all(client.clone())).start(&shutdown);
//! let pods: Informer<Pod> =
//!     Informer::builder(Api::all(client.clone())).index(index_by_owner_uid()).start(&shutdown);
//!
//! // 3. Turn changes into keys, keys into work. Handlers run on the informer's task: they must not block.
//! let mut registry = prometheus_client::registry::Registry::default();
//! let metrics = WorkQueueMetrics::register(&mut registry);
//! let events = EventRecorder::start(client.clone(), "replicaset-controller", EventStyle::Core, &shutdown);
//! let controller = Controller::new("replicaset", 5, &metrics)
//!     .watch(&replica_sets, |change| vec![change.key()])
//!     .watch(&pods, |change| controller_of_kind(change.object().meta(), "ReplicaSet").into_iter().collect());
//!
//! // 4. Reconcile: an error retries the key with a growing delay, success forgets its failures.
//! controller
//!     .run(&shutdown, move |key| {
//!         let (replica_sets, pods, events) = (replica_sets.clone(), pods.clone(), events.clone());
//!         async move {
//!             let Some(set) = replica_sets.store().get(&key) else { return Ok(Outcome::Done) };
//!             let owned = pods.store().indexed("ownerUid", &set.uid().unwrap_or_default());
//!             if owned.is_empty() {
//!                 events.record(set.object_ref(&()), EventKind::Warning, "Lonely", "Reconciling", "no pods yet");
//!             }
//!             Ok(Outcome::Done)
//!         }
//!     })
//!     .await;
//! # Ok(())
//! # }
//! ```
//!
//! # What to rely on
//! * [`informer::Informer::wait_synced`] returns once the first list is complete; [`controller::Controller::run`] waits for
//!   all informers it watches by itself. There is no periodic relist; a watch that breaks resumes where it stopped.
//! * Stored objects have no `metadata.managedFields`. Do not write a stored object back with PUT: patch it, or read it first.
//! * A change carries the old object too, and a [`informer::Change::Deleted`] comes also for what vanished while the watch was down.
//! * A key is handled by one worker at a time; changes during the handling queue it once more.
//! * [`config::within`] puts a deadline on any call. Informers and queues need none.
//! * [`leader_election::run_or_exit`] is upstream's leader election, with [`leader_election::LeaderElectionFlags`] for clap.

pub mod bearer_token;
pub mod config;
pub mod controller;
pub mod delegated;
pub mod event_correlator;
pub mod event_recorder;
pub mod informer;
pub mod leader_election;
pub mod metrics;
pub mod object_key;
pub mod rate_limit;
pub mod store;
pub mod work_queue;

pub use object_key::ObjectKey;
