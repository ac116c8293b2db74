//! etcd's command line, environment and configuration file: what is honoured, what is refused by name, and what follows from it. One file
//! for each group of flags.

mod cluster_description;
mod clustering;
mod command_line;
mod config_file;
mod etcd_url;
mod inert;
mod logging;
mod operations;
mod refused;
mod security;
mod serving;
mod tuning;
mod urls;
mod verify;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;

pub use cluster_description::ClusterDescription;
pub use clustering::{ClusterState, ClusteringOptions};
pub use command_line::{Notice, Refusal, parse};
pub use etcd_url::{EtcdUrl, UrlError, plain};
pub use logging::{LogLevel, LoggingOptions};
pub use operations::{AutoCompactionMode, OperationOptions};
pub use refused::NOT_IMPLEMENTED;
pub use security::SecurityOptions;
pub use serving::{MetricsLevel, ServingOptions};
use tuning::MAX_REQUEST_BYTES_MAX;
pub use tuning::TuningOptions;
pub use urls::UrlOptions;

use crate::tokens::options::AuthOptions;

/// A small, fast etcd: the v3 API on a replicated log.
#[derive(Parser, Clone, Debug)]
#[command(name = "etcd-lite", max_term_width = 110)]
pub struct Options {
    /// Human-readable name of this member.
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Directory of the log, the checkpoint and snapshots [default: NAME.etcd]
    #[arg(long)]
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
    /// The client port.
    #[command(flatten)]
    pub serving: ServingOptions,
    /// Upkeep.
    #[command(flatten)]
    pub operations: OperationOptions,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingOptions,
    /// The flags that were given, by command line, variable or file.
    #[arg(skip)]
    given: BTreeSet<String>,
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

    fn parse(args: &[&str]) -> Result<Options, Refusal> {
        let args = std::iter::once("etcd-lite").chain(args.iter().copied()).map(Into::into);
        super::parse(args, []).map(|(options, _)| options)
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
    fn contradictions_are_named_in_the_words_of_etcd() {
        let verify = |args: &[&str]| parse(args).expect("flags").verify();
        let error = |args: &[&str]| verify(args).expect_err("refused");
        let cluster = parse(&["--name=c", "--initial-cluster=a=http://x:1"]).expect("flags").cluster();
        assert!(cluster.expect_err("refused").to_string().contains("couldn't find local name \"c\""));
        assert_eq!(
            error(&["--election-timeout=200"]),
            "--election-timeout[200ms] should be at least as 5 times as --heartbeat-interval[100ms]"
        );
        assert_eq!(
            error(&["--election-timeout=60000"]),
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms"
        );
        assert_eq!(error(&["--heartbeat-interval=0"]), "--heartbeat-interval must be >0 (set to 0ms)");
        assert_eq!(error(&["--election-timeout=0"]), "--election-timeout must be >0 (set to 0ms)");
        assert!(error(&["--feature-gates=Other=true"]).contains("Other"));
        assert!(error(&["--max-request-bytes=100000000"]).contains("the most is 33554432"));
        assert_eq!(
            error(&["--listen-client-urls=http://127.0.0.1:1"]),
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        );
        assert_eq!(
            error(&["--listen-client-urls=http://foo.bar:1", "--advertise-client-urls=http://a:1"]),
            "expected IP in URL for binding (http://foo.bar:1)"
        );
        assert_eq!(error(&["--listen-peer-urls=http://:1"]), "expected IP in URL for binding (http://:1)");
        assert_eq!(
            error(&["--advertise-client-urls=http://:1"]),
            "--advertise-client-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))"
        );
        assert_eq!(error(&["--logger=foo"]), "unknown logger option \"foo\"");
        assert_eq!(
            error(&["--log-outputs=default,stdout"]),
            "multi logoutput for \"default\" is not supported yet"
        );
        verify(&["--listen-peer-urls=http://localhost:1,http://[::1]:1,unix://localhost:m1"])
            .expect("addresses");
    }

    #[test]
    fn what_kubeadm_writes_is_taken() {
        let options = parse(&[
            "--advertise-client-urls=https://10.0.0.1:2379",
            "--cert-file=/a",
            "--client-cert-auth=true",
            "--data-dir=/d",
            "--experimental-initial-corrupt-check=true",
            "--experimental-watch-progress-notify-interval=5s",
            "--feature-gates=InitialCorruptCheck=true",
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
        ])
        .expect("kubeadm's flags");
        options.verify().expect("they hold together");
    }
}
