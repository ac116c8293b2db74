//! The server's side of the etcd v3 API: deadlines, failover between members, compare-and-swap writes whose outcome is certain. Knows
//! keys and bytes, not what objects mean. Nothing else in the server talks to the store.

pub mod compaction;
mod encryption;
pub mod error;
pub mod keys;
pub mod lease;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coracle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
    WatchResponse, request_op, response_op,
};
use coracle_proto::mvccpb::KeyValue;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};

use encryption::Rules;
pub use error::StorageError;
use error::{Retry, classify};

use crate::options::Options;
use crate::server::metrics::StorageMetrics;

/// How long one operation may take, all attempts together.
const OPERATION_DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt may take before the next member is asked.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(4);
/// Pauses between attempts double from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Answers larger than this are refused; pages are asked for smaller then.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How long a list may take.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);

/// The outcome of a compare-and-swap.
#[derive(Clone, Debug)]
pub enum Swap {
    /// Done, at this revision.
    Done {
        /// The store's revision of the write.
        revision: i64,
    },
    /// The key was not in the expected state; it is in this one (`None`: absent).
    Conflict {
        /// What is there, read in the same transaction.
        current: Option<KeyValue>,
    },
}

/// A pool of connections to the members of one etcd cluster.
pub struct Storage {
    members: Vec<Channel>,
    /// Index of the member that answered last.
    current: AtomicUsize,
    prefix: String,
    metrics: StorageMetrics,
    leases: lease::Leases,
    encryption: Rules,
}

impl Storage {
    /// Prepares connections, without connecting yet.
    ///
    /// # Errors
    /// Unreadable certificates and malformed addresses, naming the flag.
    pub fn new(options: &Options, metrics: StorageMetrics) -> Result<Self, String> {
        component_base::tls::install_provider();
        let tls = Self::tls(options)?;
        let members = options
            .etcd_servers
            .iter()
            .map(|address| {
                let endpoint = Endpoint::from_shared(address.trim().to_owned())
                    .map_err(|error| format!("--etcd-servers: {address:?}: {error}"))?
                    .connect_timeout(Duration::from_secs(2))
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(10))
                    .keep_alive_timeout(Duration::from_secs(5))
                    .keep_alive_while_idle(true)
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(16 << 20);
                let endpoint = if address.starts_with("https://") {
                    endpoint
                        .tls_config(tls.clone())
                        .map_err(|error| format!("--etcd-servers: {address:?}: {error}"))?
                } else {
                    endpoint
                };
                Ok(endpoint.connect_lazy())
            })
            .collect::<Result<Vec<_>, String>>()?;
        if members.is_empty() {
            return Err("--etcd-servers must be specified".to_owned());
        }
        let prefix = options.etcd_prefix.trim_end_matches('/').to_owned();
        let encryption = match &options.encryption_provider_config {
            Some(path) => Rules::open(path, &prefix, options.encryption_provider_config_automatic_reload)?,
            None => Rules::none(),
        };
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            prefix,
            metrics,
            leases: lease::Leases::default(),
            encryption,
        })
    }

    fn tls(options: &Options) -> Result<ClientTlsConfig, String> {
        let read = |flag: &str, path: &std::path::Path| {
            std::fs::read(path).map_err(|error| format!("--{flag}: cannot read {}: {error}", path.display()))
        };
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = &options.etcd_cafile {
            tls = tls.ca_certificate(Certificate::from_pem(read("etcd-cafile", path)?));
        }
        if let (Some(cert), Some(key)) = (&options.etcd_certfile, &options.etcd_keyfile) {
            tls = tls.identity(Identity::from_pem(read("etcd-certfile", cert)?, read("etcd-keyfile", key)?));
        }
        Ok(tls)
    }

    /// What all keys begin with, without the slash at the end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn kv(channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// A watch client on the member in use, and the member's index for [`Storage::give_up_on`].
    pub(crate) fn watch_client(&self) -> (WatchClient<Channel>, usize) {
        let index = self.current.load(Ordering::Relaxed);
        let client =
            WatchClient::new(self.members[index].clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        (client, index)
    }

    /// Makes later operations use the next member, unless another caller has already moved on.
    pub(crate) fn give_up_on(&self, index: usize) {
        let next = (index + 1) % self.members.len();
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Runs `attempt` until it succeeds, fails for good or the deadline passes. Tells `attempt` whether an earlier one may have had effect.
    async fn retry<T, F, Fut>(
        &self,
        operation: &'static str,
        deadline: Duration,
        attempt: F,
    ) -> Result<(T, bool), StorageError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let end = started + deadline;
        let (mut pause, mut ambiguous) = (BACKOFF.0, false);
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let attempt_deadline =
                end.min(Instant::now() + ATTEMPT_DEADLINE.max(deadline - OPERATION_DEADLINE.min(deadline)));
            let result =
                tokio::time::timeout_at(attempt_deadline, attempt(self.members[index].clone())).await;
            let status = match result {
                Ok(Ok(response)) => {
                    self.metrics.observe(operation, started.elapsed());
                    return Ok((response.into_inner(), ambiguous));
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer"),
            };
            let retry = classify(&status);
            ambiguous |= retry == Retry::Ambiguous;
            if retry == Retry::Never || Instant::now() + pause >= end {
                self.metrics.observe(operation, started.elapsed());
                let error = StorageError::from(&status);
                return Err(match error {
                    StorageError::Unavailable(text) if ambiguous => StorageError::Timeout(text),
                    error => error,
                });
            }
            tracing::debug!(operation, %status, "attempt failed");
            self.give_up_on(index);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn range(
        &self,
        operation: &'static str,
        deadline: Duration,
        request: RangeRequest,
    ) -> Result<RangeResponse, StorageError> {
        let attempt = |channel| {
            let request = request.clone();
            async move { Self::kv(channel).range(request).await }
        };
        match self.retry(operation, deadline, attempt).await {
            Ok((response, _)) => Ok(response),
            // A read has no effect that could be in doubt.
            Err(StorageError::Timeout(text)) => Err(StorageError::Unavailable(text)),
            Err(error) => Err(error),
        }
    }

    /// Reads one key, linearizably. Also gives the store's revision.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StorageError> {
        let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
        let mut response = self.range("get", OPERATION_DEADLINE, request).await?;
        self.encryption.current().open_all(response.kvs.iter_mut());
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        Ok((response.kvs.pop(), revision))
    }

    /// The store's revision now, linearizably.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn current_revision(&self) -> Result<i64, StorageError> {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(self.prefix.as_bytes()),
            count_only: true,
            ..RangeRequest::default()
        };
        let response = self.range("get", OPERATION_DEADLINE, request).await?;
        Ok(response.header.map_or(0, |header| header.revision))
    }

    /// Up to `limit` (0: all) keys of `[key, end)` at `revision` (0: now, linearizably), in order.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub async fn page(
        &self,
        key: Bytes,
        end: Bytes,
        limit: i64,
        revision: i64,
    ) -> Result<RangeResponse, StorageError> {
        let request = RangeRequest { key, range_end: end, limit, revision, ..RangeRequest::default() };
        let mut response = self.range("list", PAGE_DEADLINE, request).await?;
        self.encryption.current().open_all(response.kvs.iter_mut());
        Ok(response)
    }

    /// Puts plain values in place of what a watch gave.
    pub(crate) fn open_events(&self, response: &mut WatchResponse) {
        let versions =
            response.events.iter_mut().flat_map(|event| event.kv.iter_mut().chain(&mut event.prev_kv));
        self.encryption.current().open_all(versions);
    }

    /// Whether writing again what is under a key already may change how it is stored.
    pub fn may_be_stale(&self, key: &str) -> bool {
        self.encryption.current().may_be_stale(key.as_bytes())
    }

    /// Writes `value` if the key's last change is of revision `expected` (0: the key is absent). The outcome is certain: an
    /// attempt that may have had effect is told apart by the value found afterwards.
    ///
    /// # Errors
    /// See [`StorageError`]; after [`StorageError::Timeout`] the write may still have happened.
    pub async fn put_if(
        &self,
        key: &str,
        value: Bytes,
        expected: i64,
        lease: i64,
    ) -> Result<Swap, StorageError> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let sealed = self.encryption.current().seal(&key, value.clone());
        let put = PutRequest { key: key.clone(), value: sealed, lease, ..PutRequest::default() };
        let operation = if expected == 0 { "create" } else { "update" };
        let (response, ambiguous) =
            self.swap(operation, &key, expected, request_op::Request::RequestPut(put)).await?;
        Ok(match self.outcome(response) {
            Swap::Conflict { current: Some(current) } if ambiguous && current.value == value => {
                Swap::Done { revision: current.mod_revision }
            }
            outcome => outcome,
        })
    }

    /// Removes the key if its last change is of revision `expected`.
    ///
    /// # Errors
    /// See [`StorageError`]; after [`StorageError::Timeout`] the removal may still have happened.
    pub async fn delete_if(&self, key: &str, expected: i64) -> Result<Swap, StorageError> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let (response, ambiguous) =
            self.swap("delete", &key, expected, request_op::Request::RequestDeleteRange(delete)).await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        Ok(match self.outcome(response) {
            Swap::Conflict { current: None } if ambiguous => Swap::Done { revision },
            outcome => outcome,
        })
    }

    async fn swap(
        &self,
        operation: &'static str,
        key: &Bytes,
        expected: i64,
        then: request_op::Request,
    ) -> Result<(TxnResponse, bool), StorageError> {
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                target_union: Some(TargetUnion::ModRevision(expected)),
                ..Compare::default()
            }],
            success: vec![RequestOp { request: Some(then) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
        };
        self.retry(operation, OPERATION_DEADLINE, |channel| {
            let request = request.clone();
            async move { Self::kv(channel).txn(request).await }
        })
        .await
    }

    fn outcome(&self, mut response: TxnResponse) -> Swap {
        if response.succeeded {
            return Swap::Done { revision: response.header.map_or(0, |header| header.revision) };
        }
        let mut current = response.responses.pop().and_then(|op| match op.response {
            Some(response_op::Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        });
        self.encryption.current().open_all(current.iter_mut());
        Swap::Conflict { current }
    }
}
