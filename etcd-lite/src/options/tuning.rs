//! Times, sizes and limits of a member, and the features that can be chosen.

use clap::{ArgAction, Args};
use component_base::duration::GoDuration;

/// Times, sizes and limits.
#[derive(Args, Clone, Debug)]
pub struct TuningOptions {
    /// Milliseconds between heartbeats.
    #[arg(long, default_value_t = 100, value_name = "MS")]
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader before an election.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub election_timeout: u64,
    /// Begin elections by asking whether they could be won. Without it a returning member ends a healthy leader's term, and a lost leader is
    /// missed for the whole election timeout.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub pre_vote: bool,
    /// Stand for election early after a start; needs --pre-vote.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub initial_election_tick_advance: bool,
    /// Committed entries between two snapshot files, at least.
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Largest client request, in bytes.
    #[arg(long, default_value_t = 3 * 1024 * 1024 / 2)]
    pub max_request_bytes: usize,
    /// Most operations in a transaction.
    #[arg(long, default_value_t = 128)]
    pub max_txn_ops: usize,
    /// Most streams on one client connection.
    #[arg(long, default_value_t = u32::MAX)]
    pub max_concurrent_streams: u32,
    /// Time between progress notifications of watches that ask for them.
    #[arg(long, visible_alias = "experimental-watch-progress-notify-interval", default_value = "10m")]
    pub watch_progress_notify_interval: GoDuration,
    /// Compare the data with that of the other members before serving. (Every record of log and snapshots has a checksum and is checked in any case.)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub experimental_initial_corrupt_check: bool,
    /// Features as NAME=true,...; InitialCorruptCheck is the one there is.
    #[arg(long)]
    pub feature_gates: Option<String>,
}

impl TuningOptions {
    /// Whether to compare data with the other members before serving: by flag or by feature gate.
    pub fn checks_corruption_at_start(&self) -> bool {
        let gates = self.feature_gates.iter().flat_map(|gates| gates.split(','));
        self.experimental_initial_corrupt_check || gates.into_iter().any(|g| g == "InitialCorruptCheck=true")
    }
}

/// The largest `--max-request-bytes`: a log entry has to hold it.
pub(super) const MAX_REQUEST_BYTES_MAX: usize = crate::wal::codec::PAYLOAD_BYTES_MAX / 2;
