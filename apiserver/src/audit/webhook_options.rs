//! The flags of the audit webhook.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use component_base::duration::GoDuration;

use super::options::Mode;

/// The flags of the audit webhook.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit webhook")]
pub struct WebhookOptions {
    /// A kubeconfig file that names the server to which events are posted; without one none are.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// How long to wait before events that could not be posted are posted again; later waits are longer, and there are four at most.
    #[arg(long, default_value = "10s")]
    pub audit_webhook_initial_backoff: GoDuration,
    /// The API version of events; there is one.
    #[arg(long, default_value = "audit.k8s.io/v1", value_parser = ["audit.k8s.io/v1"])]
    pub audit_webhook_version: String,
    /// Whether requests wait until their events are posted.
    #[arg(long, value_enum, default_value = "batch")]
    pub audit_webhook_mode: Mode,
    /// Events that may wait to be posted in batch mode; what finds no room is dropped and counted.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events that are posted at a time in batch mode.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long an event waits for others to be posted with in batch mode.
    #[arg(long, default_value = "30s")]
    pub audit_webhook_batch_max_wait: GoDuration,
    /// Limit the batches a second in batch mode.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Batches a second on average.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Batches that may be posted at once after a pause.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: u32,
    /// Leave the objects out of events that are too large, and drop events that still are.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes of an event above which it is too large.
    #[arg(long, default_value_t = 102_400)]
    pub audit_webhook_truncate_max_event_size: usize,
    /// Bytes of events above which a batch is posted as several.
    #[arg(long, default_value_t = 10_485_760)]
    pub audit_webhook_truncate_max_batch_size: usize,
}

impl WebhookOptions {
    /// The file that names the server, if events are to be posted.
    pub fn config_file(&self) -> Option<&PathBuf> {
        self.audit_webhook_config_file.as_ref().filter(|path| !path.as_os_str().is_empty())
    }

    /// What cannot be, in upstream's words. Flags that do not count are not looked at.
    pub fn check(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.config_file().is_none() {
            return errors;
        }
        let mut wants = |holds: bool, what: &str, given: String| {
            if !holds {
                errors.push(format!("invalid audit {what} {given}, must be a positive number"));
            }
        };
        if self.audit_webhook_mode == Mode::Batch {
            let (buffer, batch) = (self.audit_webhook_batch_buffer_size, self.audit_webhook_batch_max_size);
            wants(buffer > 0, "batch webhook buffer size", buffer.to_string());
            wants(batch > 0, "batch webhook max batch size", batch.to_string());
            if self.audit_webhook_batch_throttle_enable {
                let (qps, burst) =
                    (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
                wants(qps > 0.0, "batch webhook throttle QPS", qps.to_string());
                wants(burst > 0, "batch webhook throttle burst", burst.to_string());
            }
        }
        let (event, batch) =
            (self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size);
        wants(event > 0, "truncate webhook max event size", event.to_string());
        if batch < event {
            errors.push(format!(
                "invalid audit truncate webhook max batch size {batch}, must be greater than max event size ({event})"
            ));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use crate::options::{NOT_IMPLEMENTED, Options};

    fn errors(flags: &[&str]) -> Vec<String> {
        let args = ["kube-apiserver", "--etcd-servers=http://127.0.0.1:2379"].iter().chain(flags);
        let options: Options =
            component_base::flags::try_parse_from(args.map(Into::into), NOT_IMPLEMENTED).expect("parses");
        options.audit.webhook.check()
    }

    #[test]
    fn what_cannot_be_is_refused_in_upstreams_words_where_it_counts() {
        let file = "--audit-webhook-config-file=/x";
        assert_eq!(errors(&[file, "--audit-webhook-initial-backoff=0s"]), Vec::<String>::new());
        for (flags, error) in [
            (
                &["--audit-webhook-batch-buffer-size=0"][..],
                "invalid audit batch webhook buffer size 0, must be a positive number",
            ),
            (
                &["--audit-webhook-batch-max-size=0"],
                "invalid audit batch webhook max batch size 0, must be a positive number",
            ),
            (
                &["--audit-webhook-batch-throttle-qps=NaN"],
                "invalid audit batch webhook throttle QPS NaN, must be a positive number",
            ),
            (
                &["--audit-webhook-batch-throttle-burst=0"],
                "invalid audit batch webhook throttle burst 0, must be a positive number",
            ),
            (
                &["--audit-webhook-truncate-max-event-size=0"],
                "invalid audit truncate webhook max event size 0, must be a positive number",
            ),
            (
                &["--audit-webhook-truncate-max-batch-size=7"],
                "invalid audit truncate webhook max batch size 7, must be greater than max event size (102400)",
            ),
        ] {
            assert_eq!(errors(&[&[file], flags].concat()), [error]);
            assert_eq!(errors(flags), Vec::<String>::new(), "there is no webhook");
        }
        // Batches do not count where requests wait, nor does a throttle that is off.
        let blocking = ["--audit-webhook-mode=blocking", "--audit-webhook-batch-max-size=0"];
        assert_eq!(errors(&[&[file], &blocking[..]].concat()), Vec::<String>::new());
        let unthrottled =
            ["--audit-webhook-batch-throttle-enable=false", "--audit-webhook-batch-throttle-qps=0"];
        assert_eq!(errors(&[&[file], &unthrottled[..]].concat()), Vec::<String>::new());
    }
}
