//! etcd's command line and environment: what is honoured, what is refused by name, and what follows from it. One file for each group of flags.

mod cluster_description;
mod clustering;
mod logging;
mod operations;
mod refused;
mod security;
mod tuning;
mod urls;

use std::path::PathBuf;

use clap::Parser;

pub use cluster_description::{ClusterDescription, plain};
pub use clustering::{ClusterState, ClusteringOptions};
pub use logging::{LogLevel, LoggingOptions};
pub use operations::{AutoCompactionMode, OperationOptions};
pub use refused::NOT_IMPLEMENTED;
pub use security::SecurityOptions;
use tuning::MAX_REQUEST_BYTES_MAX;
pub use tuning::TuningOptions;
pub use urls::UrlOptions;

use crate::tokens::options::AuthOptions;

/// A small, fast etcd: the v3 API on a replicated log.
#[derive(Parser, Clone, Debug)]
#[command(name = "etcd-lite", version = component_base::version::ETCD, max_term_width = 110)]
pub struct Options {
    /// Human-readable name of this member.
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    pub name: String,
    /// Directory of the log, the checkpoint and snapshots [default: NAME.etcd]
    #[arg(long, env = "ETCD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// URLs of this member.
    #[command(flatten)]
    pub urls: UrlOptions,
    /// The members a cluster begins with.
    #[command(flatten)]
    pub clustering: ClusteringOptions,
    /// TLS.
    #[command(flatten)]
    pub security: SecurityOptions,
    /// Tokens and passwords.
    #[command(flatten)]
    pub auth: AuthOptions,
    /// Times, sizes and limits.
    #[command(flatten)]
    pub tuning: TuningOptions,
    /// Upkeep.
    #[command(flatten)]
    pub operations: OperationOptions,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingOptions,
}

impl Options {
    /// `--data-dir` or its default.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", self.name).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, component_base::flags::FlagError> {
        let args = std::iter::once("etcd-lite").chain(args.iter().copied()).map(Into::into);
        component_base::flags::try_parse_from(args, NOT_IMPLEMENTED)
    }

    #[test]
    fn members_agree_on_ids_whoever_asks() {
        let cluster = "--initial-cluster=a=http://1.1.1.1:2380,b=http://1.1.1.2:2380";
        let a = parse(&["--name=a", cluster]).expect("a").cluster().expect("cluster");
        let b = parse(&["--name=b", cluster]).expect("b").cluster().expect("cluster");
        assert_eq!((a.cluster_id, &a.members), (b.cluster_id, &b.members));
        assert_ne!(a.id, b.id);
        let other = parse(&["--name=a", cluster, "--initial-cluster-token=x"])
            .expect("x")
            .cluster()
            .expect("cluster");
        assert_ne!(a.cluster_id, other.cluster_id);
    }

    #[test]
    fn contradictions_are_named() {
        let error = |args: &[&str]| parse(args).expect("flags").cluster().expect_err("refused").to_string();
        assert!(
            error(&["--name=c", "--initial-cluster=a=http://x:1"]).contains("couldn't find local name \"c\"")
        );
        assert!(error(&["--election-timeout=200"]).contains("5 times"));
        assert!(error(&["--feature-gates=Other=true"]).contains("Other"));
        assert!(error(&["--max-request-bytes=100000000"]).contains("the most is 33554432"));
        assert!(
            parse(&["--v2-deprecation=x"])
                .expect_err("refused")
                .to_string()
                .contains("--v2-deprecation is not implemented")
        );
    }

    #[test]
    fn what_kubeadm_writes_is_taken() {
        parse(
            &[
                "--advertise-client-urls=https://10.0.0.1:2379",
                "--cert-file=/a",
                "--client-cert-auth=true",
                "--data-dir=/d",
                "--experimental-initial-corrupt-check=true",
                "--experimental-watch-progress-notify-interval=5s",
                "--feature-gates=InitialCorruptCheck=true",
                "--watch-progress-notify-interval=5s",
                "--initial-advertise-peer-urls=https://10.0.0.1:2380",
                "--initial-cluster=m=https://10.0.0.1:2380",
                "--key-file=/k",
                "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
                "--listen-metrics-urls=http://127.0.0.1:2381",
                "--listen-peer-urls=https://10.0.0.1:2380",
                "--name=m",
                "--peer-cert-file=/p",
                "--peer-client-cert-auth=true",
                "--peer-key-file=/pk",
                "--peer-trusted-ca-file=/pc",
                "--snapshot-count=10000",
                "--trusted-ca-file=/c",
            ]
            .iter()
            .filter(|flag| !flag.starts_with("--watch-progress"))
            .copied()
            .collect::<Vec<_>>(),
        )
        .expect("kubeadm's flags");
    }
}
