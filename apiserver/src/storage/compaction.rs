//! Keeps etcd's history short: every interval one of the servers compacts to the revision that was current an interval ago. They agree through
//! one key, as upstream's servers do (and with upstream's servers).

use std::time::Duration;

use bytes::Bytes;
use coracle_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use coracle_proto::etcdserverpb::{
    CompactionRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op, response_op,
};
use tokio_util::sync::CancellationToken;

use super::{OPERATION_DEADLINE, Storage, StorageError};

/// The key that servers agree through; its version counts rounds, its value is the last round's revision.
pub const KEY: &str = "compact_rev_key";

/// What a server knows between rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    version: i64,
    revision: i64,
}

impl Storage {
    /// Compacts every `interval` until `shutdown`; 0 does nothing.
    pub async fn compact_regularly(&self, interval: Duration, shutdown: CancellationToken) {
        if interval.is_zero() {
            return;
        }
        let mut round = Round::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            match self.compact(round).await {
                Ok(next) => round = next,
                Err(error) => {
                    tracing::warn!(%error, "compaction of etcd's history failed; trying again later")
                }
            }
        }
    }

    async fn compact(&self, round: Round) -> Result<Round, StorageError> {
        let key = Bytes::from_static(KEY.as_bytes());
        let revision = self.current_revision().await?;
        let put = PutRequest { key: key.clone(), value: round_value(revision), ..PutRequest::default() };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Version as i32,
                key: key.clone(),
                target_union: Some(TargetUnion::Version(round.version)),
                ..Compare::default()
            }],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp {
                request: Some(request_op::Request::RequestRange(RangeRequest { key, ..Default::default() })),
            }],
        };
        let (response, _) = self
            .retry("txn", OPERATION_DEADLINE, |channel| {
                let request = request.clone();
                async move { Self::kv(channel).txn(request).await }
            })
            .await?;
        let now = response.header.as_ref().map_or(revision, |header| header.revision);
        if !response.succeeded {
            // Another server's turn: take over what it wrote, and be first next time if it is gone.
            let version = response.responses.into_iter().next().and_then(|op| match op.response {
                Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map(|kv| kv.version),
                _ => None,
            });
            return Ok(Round { version: version.unwrap_or(0), revision: now });
        }
        if round.revision > 0 {
            let request = CompactionRequest { revision: round.revision, physical: false };
            let done = self
                .retry("compact", OPERATION_DEADLINE, |channel| async move {
                    Self::kv(channel).compact(request).await
                })
                .await;
            match done {
                Ok(_) => tracing::debug!(revision = round.revision, "compacted etcd's history"),
                // Someone has compacted further: fine.
                Err(StorageError::Compacted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Round { version: round.version + 1, revision: now })
    }
}

fn round_value(revision: i64) -> Bytes {
    Bytes::from(revision.to_string())
}

/// The revision that a round has announced under [`KEY`].
pub(crate) fn round_revision(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
