//! Flags of a member's upkeep: space, compaction, files, checks of itself.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use component_base::duration::GoDuration;
use etcd_lite_core::auto_compaction::Retention;

use crate::corruption::Compared;

/// Space, compaction, files, checks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Upkeep")]
pub struct OperationOptions {
    /// Bytes of keys and values, past versions included, beyond which NOSPACE is raised; 0 for 2 GiB, negative for no limit.
    #[arg(long, default_value_t = 0, value_name = "BYTES", allow_negative_numbers = true)]
    pub quota_backend_bytes: i64,
    /// Keep history by time or by count.
    #[arg(long, value_enum, default_value_t = AutoCompactionMode::Periodic)]
    pub auto_compaction_mode: AutoCompactionMode,
    /// How much history to keep: `5m` or a number of hours, or a number of revisions; 0 switches it off.
    #[arg(long, default_value = "0")]
    pub auto_compaction_retention: String,
    /// Directory of the log, if not in the data directory.
    #[arg(long)]
    pub wal_dir: Option<PathBuf>,
    /// Snapshot files to keep at most; two are kept always, no more. 0 is no limit.
    #[arg(long, default_value_t = 5)]
    pub max_snapshots: u32,
    /// Log files to keep at most beyond those needed; none is kept that is not needed. 0 is no limit.
    #[arg(long, default_value_t = 5)]
    pub max_wals: u32,
    /// Time after which a request that is applied or read is logged as slow.
    #[arg(long, alias = "warning-apply-duration", default_value = "100ms")]
    pub experimental_warning_apply_duration: GoDuration,
    /// Time after which a call with one answer is logged as slow.
    #[arg(long, alias = "warning-unary-request-duration", default_value = "300ms")]
    pub experimental_warning_unary_request_duration: GoDuration,
    /// Compare the members' data at the revision compacted last, by the leader.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub experimental_compact_hash_check_enabled: bool,
    /// Time between such comparisons.
    #[arg(long, default_value = "1m")]
    pub experimental_compact_hash_check_time: GoDuration,
    /// Time between comparisons of the members' data by the leader; 0 switches them off.
    #[arg(long, default_value = "0s")]
    pub experimental_corrupt_check_time: GoDuration,
    /// Acknowledge writes that are not on disk yet. A power cut loses them and may break the cluster.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub unsafe_no_fsync: bool,
}

/// `--auto-compaction-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AutoCompactionMode {
    /// By time.
    Periodic,
    /// By count.
    Revision,
}

impl OperationOptions {
    /// What the leader compares between members, and how often.
    pub fn comparisons(&self) -> impl Iterator<Item = (Compared, Duration)> + use<> {
        let current = (Compared::Current, self.experimental_corrupt_check_time.get());
        let compacted = (Compared::Compacted, self.experimental_compact_hash_check_time.get());
        let compacted = self.experimental_compact_hash_check_enabled.then_some(compacted);
        [Some(current), compacted].into_iter().flatten().filter(|(_, interval)| !interval.is_zero())
    }

    /// Checks the values, and says what history to keep; `None` for all of it.
    ///
    /// # Errors
    /// Names the flag and the remedy.
    pub fn retention(&self) -> anyhow::Result<Option<Retention>> {
        if self.max_snapshots == 1 {
            bail!("--max-snapshots=1: two snapshot files are always kept; use 2 or more, or 0");
        }
        let text = self.auto_compaction_retention.as_str();
        let number = if text.is_empty() { Some(0) } else { text.parse::<u32>().ok() };
        match (self.auto_compaction_mode, number) {
            (_, Some(0)) => Ok(None),
            (AutoCompactionMode::Revision, Some(count)) => {
                Ok(Some(Retention::Revisions { count: i64::from(count) }))
            }
            (AutoCompactionMode::Revision, None) => {
                bail!(
                    "--auto-compaction-retention={text} with --auto-compaction-mode=revision: write a number of revisions"
                )
            }
            (AutoCompactionMode::Periodic, Some(hours)) => {
                Ok(Some(Retention::Period { milliseconds: u64::from(hours) * 3_600_000 }))
            }
            (AutoCompactionMode::Periodic, None) => match text.parse::<GoDuration>() {
                Ok(duration) if duration.get().as_millis() == 0 => Ok(None),
                Ok(duration) => {
                    Ok(Some(Retention::Period { milliseconds: duration.get().as_millis() as u64 }))
                }
                Err(error) => bail!("--auto-compaction-retention: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        operations: OperationOptions,
    }

    fn retention(args: &[&str]) -> anyhow::Result<Option<Retention>> {
        let flags = Flags::try_parse_from(std::iter::once(&"etcd-lite").chain(args))?;
        flags.operations.retention()
    }

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        let hours = |hours: u64| Some(Retention::Period { milliseconds: hours * 3_600_000 });
        assert_eq!(retention(&[]).expect("default"), None);
        assert_eq!(retention(&["--auto-compaction-retention=2"]).expect("hours"), hours(2));
        assert_eq!(retention(&["--auto-compaction-retention=1h"]).expect("text"), hours(1));
        assert_eq!(retention(&["--auto-compaction-retention=0s"]).expect("none"), None);
        let count = ["--auto-compaction-mode=revision", "--auto-compaction-retention=1000"];
        assert_eq!(retention(&count).expect("count"), Some(Retention::Revisions { count: 1000 }));
        assert!(retention(&["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"]).is_err());
        assert!(retention(&["--auto-compaction-retention=x"]).is_err());
        assert!(retention(&["--auto-compaction-mode=x"]).is_err());
        assert!(retention(&["--max-snapshots=1"]).is_err());
    }
}
