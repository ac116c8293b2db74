//! The command line, under kube-scheduler's names. Owns the flags and their defaults; what a configuration file may also say is
//! merged in `configuration`.

use std::path::PathBuf;

use clap::Parser;
use component_base::flags::LogFlags;
use component_base::secure_port::SecureServingFlags;
use coracle_client::leader_election::LeaderElectionFlags;

/// Upstream's flags that this scheduler does not have yet.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "allow-metric-labels",
    "allow-metric-labels-manifest",
    "authentication-skip-lookup",
    "authentication-token-webhook-cache-ttl",
    "authentication-tolerate-lookup-failure",
    "authorization-always-allow-paths",
    "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl",
    "client-ca-file",
    "contention-profiling",
    "disable-http2-serving",
    "disabled-metrics",
    "emulated-version",
    "emulation-forward-compatible",
    "http2-max-streams-per-connection",
    "kube-api-content-type",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "min-compatibility-version",
    "permit-address-sharing",
    "permit-port-sharing",
    "pod-max-in-unschedulable-pods-duration",
    "profiling",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "requestheader-extra-headers-prefix",
    "requestheader-group-headers",
    "requestheader-uid-headers",
    "requestheader-username-headers",
    "show-hidden-metrics-for-version",
    "tls-sni-cert-key",
    "vmodule",
    "write-config-to",
];

/// Decides which node runs each pod.
#[derive(Clone, Debug, Parser)]
#[command(name = "scheduler", display_name = "Kubernetes", version = component_base::version::KUBERNETES, about)]
pub struct Options {
    /// A KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1); flags that are given win over it.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where the API server is and who we are; in-cluster if absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The API server's address, in place of the kubeconfig's.
    #[arg(long)]
    pub master: Option<String>,
    /// Requests a second to the API server; 0 for no limit.
    #[arg(long, default_value_t = 0.0)]
    pub kube_api_qps: f64,
    /// Requests beyond that rate that may go at once.
    #[arg(long, default_value_t = 100)]
    pub kube_api_burst: u32,
    /// Kubeconfig for checking the tokens of those who read the metrics. Health and metrics are served to all so far.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for asking whether they may. Health and metrics are served to all so far.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// The health and metrics port (HTTPS); 0 for none.
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
    /// Feature gates, Name=true|false: what is so anyway may be said, the rest is refused by name.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub leader_election: LeaderElectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args = std::iter::once("scheduler").chain(args.iter().copied()).map(Into::into);
        component_base::flags::try_parse_from(args, NOT_IMPLEMENTED).map_err(|error| error.to_string())
    }

    #[test]
    fn the_page_of_flags_says_what_is_here() {
        component_base::flags::page::check::<Options>("kube-scheduler", NOT_IMPLEMENTED)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn kubeadms_command_line_is_taken() {
        let options = parse(&[
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true",
            "-v=2",
        ])
        .expect("parses");
        assert_eq!(options.secure_port, 10259);
        assert!(options.leader_election.leader_elect);
    }

    #[test]
    fn a_flag_that_is_not_there_yet_is_refused_by_name() {
        let error = parse(&["--write-config-to=/x"]).expect_err("refused");
        assert!(error.contains("--write-config-to is not implemented"), "{error}");
    }
}
