//! etcd's command line and environment: what is honoured, what is refused by name, and what follows from it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{ArgAction, Parser, ValueEnum};
use component_base::duration::GoDuration;
use url::Url;

use crate::member::MemberInfo;

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

    /// URLs to serve clients on.
    #[arg(
        long,
        env = "ETCD_LISTEN_CLIENT_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    pub listen_client_urls: Vec<Url>,
    /// URLs to tell clients.
    #[arg(
        long,
        env = "ETCD_ADVERTISE_CLIENT_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    pub advertise_client_urls: Vec<Url>,
    /// URLs to serve peers on.
    #[arg(
        long,
        env = "ETCD_LISTEN_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub listen_peer_urls: Vec<Url>,
    /// URLs to tell peers.
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    pub initial_advertise_peer_urls: Vec<Url>,
    /// URLs for `/metrics` and `/health` alone.
    #[arg(long, env = "ETCD_LISTEN_METRICS_URLS", value_delimiter = ',')]
    pub listen_metrics_urls: Vec<Url>,

    /// All members as NAME=PEER_URL,... [default: this member alone]
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    pub initial_cluster: Option<String>,
    /// Whether the cluster is being made or exists.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_STATE", value_enum, default_value_t = ClusterState::New)]
    pub initial_cluster_state: ClusterState,
    /// Keeps clusters apart.
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN", default_value = "etcd-cluster")]
    pub initial_cluster_token: String,

    /// Certificate for clients.
    #[arg(long, env = "ETCD_CERT_FILE", help_heading = "Security")]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "ETCD_KEY_FILE", help_heading = "Security")]
    pub key_file: Option<PathBuf>,
    /// Authority of client certificates.
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE", help_heading = "Security")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate.
    #[arg(long, env = "ETCD_CLIENT_CERT_AUTH", help_heading = "Security", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub client_cert_auth: bool,
    /// Certificate for and towards peers.
    #[arg(long, env = "ETCD_PEER_CERT_FILE", help_heading = "Security")]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "ETCD_PEER_KEY_FILE", help_heading = "Security")]
    pub peer_key_file: Option<PathBuf>,
    /// Authority of peers' certificates.
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE", help_heading = "Security")]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Refuse peers without a certificate.
    #[arg(long, env = "ETCD_PEER_CLIENT_CERT_AUTH", help_heading = "Security", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub peer_client_cert_auth: bool,

    /// Milliseconds between heartbeats.
    #[arg(long, env = "ETCD_HEARTBEAT_INTERVAL", default_value_t = 100, value_name = "MS")]
    pub heartbeat_interval: u64,
    /// Milliseconds without a leader before an election.
    #[arg(long, env = "ETCD_ELECTION_TIMEOUT", default_value_t = 1000, value_name = "MS")]
    pub election_timeout: u64,
    /// Committed entries between two snapshot files, at least.
    #[arg(long, env = "ETCD_SNAPSHOT_COUNT", default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Largest client request, in bytes.
    #[arg(long, env = "ETCD_MAX_REQUEST_BYTES", default_value_t = 3 * 1024 * 1024 / 2)]
    pub max_request_bytes: usize,
    /// Most operations in a transaction.
    #[arg(long, env = "ETCD_MAX_TXN_OPS", default_value_t = 128)]
    pub max_txn_ops: usize,
    /// Most streams on one client connection.
    #[arg(long, env = "ETCD_MAX_CONCURRENT_STREAMS", default_value_t = u32::MAX)]
    pub max_concurrent_streams: u32,
    /// Time between progress notifications of watches that ask for them.
    #[arg(
        long,
        alias = "experimental-watch-progress-notify-interval",
        env = "ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL",
        default_value = "10m"
    )]
    pub watch_progress_notify_interval: GoDuration,
    /// Check the stored state for damage before serving. Always done: every record of log and snapshots has a checksum.
    #[arg(long, env = "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub experimental_initial_corrupt_check: bool,
    /// Features as NAME=true,...; InitialCorruptCheck is the one there is.
    #[arg(long, env = "ETCD_FEATURE_GATES")]
    pub feature_gates: Option<String>,

    /// Least severe log level.
    #[arg(long, env = "ETCD_LOG_LEVEL", value_enum, default_value_t = LogLevel::Info, help_heading = "Logging")]
    pub log_level: LogLevel,
    /// `zap` is the one logger etcd has; accepted for its scripts.
    #[arg(long, env = "ETCD_LOGGER", default_value = "zap", value_parser = ["zap"], help_heading = "Logging")]
    pub logger: String,
    /// `json` for one JSON object a line.
    #[arg(long, env = "ETCD_LOG_FORMAT", default_value = "console", value_parser = ["json", "console"], help_heading = "Logging")]
    pub log_format: String,
}

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// All members start for the first time.
    New,
    /// The cluster runs already.
    Existing,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

/// The largest `--max-request-bytes`: a log entry has to hold it.
const MAX_REQUEST_BYTES_MAX: usize = crate::wal::codec::PAYLOAD_BYTES_MAX / 2;

/// Flags of etcd 3.5 that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "auth-token",
    "auth-token-ttl",
    "auto-compaction-mode",
    "auto-compaction-retention",
    "auto-tls",
    "backend-batch-interval",
    "backend-batch-limit",
    "bcrypt-cost",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-crl-file",
    "config-file",
    "cors",
    "discovery",
    "discovery-fallback",
    "discovery-proxy",
    "discovery-srv",
    "discovery-srv-name",
    "enable-grpc-gateway",
    "enable-log-rotation",
    "enable-pprof",
    "enable-v2",
    "experimental-bootstrap-defrag-threshold-megabytes",
    "experimental-compact-hash-check-enabled",
    "experimental-compact-hash-check-time",
    "experimental-compaction-batch-limit",
    "experimental-compaction-sleep-interval",
    "experimental-corrupt-check-time",
    "experimental-distributed-tracing-address",
    "experimental-enable-distributed-tracing",
    "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist",
    "experimental-max-learners",
    "experimental-memory-mlock",
    "experimental-peer-skip-client-san-verification",
    "experimental-txn-mode-write-with-shared-buffer",
    "experimental-warning-apply-duration",
    "experimental-warning-unary-request-duration",
    "force-new-cluster",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "host-whitelist",
    "initial-election-tick-advance",
    "listen-client-http-urls",
    "log-outputs",
    "log-rotation-config-json",
    "max-learners",
    "max-snapshots",
    "max-wals",
    "metrics",
    "peer-auto-tls",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "pre-vote",
    "proxy",
    "quota-backend-bytes",
    "self-signed-cert-validity",
    "socket-reuse-address",
    "socket-reuse-port",
    "strict-reconfig-check",
    "tls-max-version",
    "tls-min-version",
    "unsafe-no-fsync",
    "v2-deprecation",
    "wal-dir",
];

impl Options {
    /// `--data-dir` or its default.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", self.name).into())
    }

    /// Checks what belongs together, and finds the members. This one's id is that of its name in `--initial-cluster`.
    ///
    /// # Errors
    /// Names the flag and the remedy.
    pub fn cluster(&self) -> anyhow::Result<ClusterDescription> {
        if self.election_timeout < 5 * self.heartbeat_interval {
            bail!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                self.election_timeout,
                self.heartbeat_interval
            );
        }
        if self.max_request_bytes > MAX_REQUEST_BYTES_MAX {
            bail!(
                "--max-request-bytes={} is more than the log takes; the most is {MAX_REQUEST_BYTES_MAX}",
                self.max_request_bytes
            );
        }
        if self.heartbeat_interval == 0 {
            bail!("--heartbeat-interval must be >0 (set to 0ms)");
        }
        if let Some(gate) = self
            .feature_gates
            .iter()
            .flat_map(|g| g.split(','))
            .find(|g| !g.starts_with("InitialCorruptCheck="))
        {
            bail!("--feature-gates: {gate} is not there; InitialCorruptCheck is");
        }
        let own = self.initial_advertise_peer_urls.iter().map(|url| format!("{}={}", self.name, plain(url)));
        let text = self.initial_cluster.clone().unwrap_or_else(|| own.collect::<Vec<_>>().join(","));
        let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, url) = pair
                .split_once('=')
                .with_context(|| format!("--initial-cluster: {pair:?} is not NAME=URL"))?;
            let url: Url = url.parse().with_context(|| format!("--initial-cluster: {url}"))?;
            urls.entry(name).or_default().push(plain(&url));
        }
        let members: Vec<MemberInfo> = urls
            .into_iter()
            .map(|(name, mut peer_urls)| {
                peer_urls.sort();
                let id = hash(&[&peer_urls.join(""), &self.initial_cluster_token]);
                MemberInfo { id, name: name.to_owned(), peer_urls, ..MemberInfo::default() }
            })
            .collect();
        let Some(own) = members.iter().find(|member| member.name == self.name) else {
            bail!("couldn't find local name {:?} in the initial cluster configuration", self.name);
        };
        let id = own.id;
        let mut ids: Vec<String> = members.iter().map(|member| format!("{:x}", member.id)).collect();
        ids.sort();
        let distinct = ids.len();
        ids.dedup();
        if ids.len() != distinct {
            bail!("--initial-cluster gives two members the same peer URLs");
        }
        Ok(ClusterDescription {
            cluster_id: hash(&[&ids.join(","), &self.initial_cluster_token]),
            id,
            members,
        })
    }
}

/// Who the members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Hash of members and token.
    pub cluster_id: u64,
    /// This member.
    pub id: u64,
    /// All members.
    pub members: Vec<MemberInfo>,
}

/// A URL without the slash that parsing adds.
pub fn plain(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// FNV-1a, 64 bits; never 0, which means "nobody".
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash.max(1)
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
            parse(&["--wal-dir=x"])
                .expect_err("refused")
                .to_string()
                .contains("--wal-dir is not implemented")
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
