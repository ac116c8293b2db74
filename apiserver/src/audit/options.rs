//! The flags of the audit policy and the audit log.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use component_base::duration::GoDuration;

use super::webhook_options::WebhookOptions;

/// How a recorded event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of JSON.
    Json,
    /// Upstream's older line of text.
    Legacy,
}

/// Whether requests wait until their events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// They do not; events that find the buffer full are dropped and counted.
    Batch,
    /// They do; events that cannot be written are counted.
    Blocking,
    /// The same, and a request whose arrival cannot be written is refused.
    BlockingStrict,
}

/// The flags of the audit log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit log")]
pub struct AuditOptions {
    /// The policy that says what is recorded (audit.k8s.io/v1, Policy); without one nothing is.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// The file events are written to; `-` is standard output.
    #[arg(long)]
    pub audit_log_path: Option<String>,
    /// The form of events.
    #[arg(long, value_enum, default_value = "json")]
    pub audit_log_format: LogFormat,
    /// The API version of events; there is one.
    #[arg(long, default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_log_version: String,
    /// Whether requests wait until their events are written.
    #[arg(long, value_enum, default_value = "blocking")]
    pub audit_log_mode: Mode,
    /// Days that rotated files are kept; 0 is for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u32,
    /// Rotated files kept; 0 is all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which the file is rotated; 0 is 100.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Compress rotated files with gzip.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub audit_log_compress: bool,
    /// Events that may wait to be written.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Events that are written at a time in batch mode.
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: usize,
    /// How long an event waits for others to be written with in batch mode.
    #[arg(long, default_value = "0s")]
    pub audit_log_batch_max_wait: GoDuration,
    /// Leave the objects out of events that are too large, and drop events that still are.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub audit_log_truncate_enabled: bool,
    /// Bytes of an event above which it is too large.
    #[arg(long, default_value_t = 102_400)]
    pub audit_log_truncate_max_event_size: usize,
    /// Bytes written at a time; events are written one by one or in batches of --audit-log-batch-max-size, which are smaller.
    #[arg(long, default_value_t = 10_485_760)]
    pub audit_log_truncate_max_batch_size: usize,
    /// The audit webhook.
    #[command(flatten)]
    pub webhook: WebhookOptions,
}

impl AuditOptions {
    /// What cannot be.
    pub fn check(&self) -> Vec<String> {
        let mut errors = self.webhook.check();
        if self.audit_log_batch_buffer_size == 0 {
            errors.push("--audit-log-batch-buffer-size: must be a positive number".to_owned());
        }
        if self.audit_log_batch_max_size == 0
            || self.audit_log_batch_max_size > self.audit_log_batch_buffer_size
        {
            errors.push(
                "--audit-log-batch-max-size: must be a positive number no larger than --audit-log-batch-buffer-size"
                    .to_owned(),
            );
        }
        if self.audit_log_truncate_max_batch_size < self.audit_log_truncate_max_event_size {
            errors.push(
                "--audit-log-truncate-max-batch-size: must not be smaller than --audit-log-truncate-max-event-size"
                    .to_owned(),
            );
        }
        errors
    }
}
