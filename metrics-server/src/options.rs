//! The command line, under the names of upstream's metrics-server. Owns the flags and their defaults.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use component_base::duration::GoDuration;
use component_base::flags::LogFlags;
use component_base::secure_port::SecureServingFlags;

/// Upstream's flags that this server does not have, but for values that say what is so anyway. Others are unknown to it.
pub const NOT_IMPLEMENTED: &[&str] =
    &["contention-profiling", "http2-max-streams-per-connection", "profiling", "tls-sni-cert-key", "vmodule"];

/// Upstream takes no less: kubelets renew what they measure no faster.
const RESOLUTION_MIN: GoDuration = GoDuration::from_secs(10);
const ADDRESS_TYPES: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];

/// Serves what nodes and containers use as metrics.k8s.io/v1beta1.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "metrics-server",
    display_name = "Kubernetes",
    version = component_base::version::KUBERNETES,
    about
)]
pub struct Options {
    /// Where the API server is and who we are, also to kubelets; in-cluster if absent.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig for having tokens reviewed, if not that one.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for asking who may read, if not that one.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// How often kubelets are asked; at least 10s, and the span that CPU is averaged over.
    #[arg(long, default_value_t = GoDuration::from_secs(60))]
    pub metric_resolution: GoDuration,
    /// Which address of a node its kubelet is asked at: the first of these that the node has.
    #[arg(long, value_delimiter = ',', default_values = ADDRESS_TYPES)]
    pub kubelet_preferred_address_types: Vec<String>,
    /// The kubelets' port.
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Take the port from the node's status in place of --kubelet-port.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub kubelet_use_node_status_port: bool,
    /// Do not look whose certificate a kubelet has. Not for use where that matters.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub kubelet_insecure_tls: bool,
    /// Authorities of the kubelets' certificates, if not those of the kubeconfig.
    #[arg(long, default_value = "")]
    pub kubelet_certificate_authority: String,
    /// Certificate shown to kubelets, if not that of the kubeconfig.
    #[arg(long, default_value = "", requires = "kubelet_client_key")]
    pub kubelet_client_certificate: String,
    /// Its key.
    #[arg(long, default_value = "", requires = "kubelet_client_certificate")]
    pub kubelet_client_key: String,
    /// How long a kubelet may take to answer.
    #[arg(long, default_value_t = GoDuration::from_secs(10))]
    pub kubelet_request_timeout: GoDuration,
    /// Ask only nodes with these labels.
    #[arg(long, short = 'l', default_value = "")]
    pub node_selector: String,
    /// The port of the API and of health and metrics (HTTPS).
    #[arg(long, default_value_t = 443)]
    pub secure_port: u16,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
}

impl Options {
    /// Whether the values go together.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> anyhow::Result<()> {
        let (resolution, patience) = (self.metric_resolution, self.kubelet_request_timeout);
        anyhow::ensure!(
            resolution >= RESOLUTION_MIN,
            "metric-resolution should be a time duration at least {RESOLUTION_MIN}, but value {resolution} provided"
        );
        // A round that waits for a lost kubelet must be over before the next one, with something to spare.
        anyhow::ensure!(
            resolution.get().mul_f64(0.9) >= patience.get(),
            "metric-resolution should be larger than kubelet-request-timeout, but metric-resolution value {resolution} kubelet-request-timeout value {patience} provided"
        );
        anyhow::ensure!(
            !self.kubelet_insecure_tls || self.kubelet_certificate_authority.is_empty(),
            "cannot use both --kubelet-certificate-authority and --kubelet-insecure-tls"
        );
        anyhow::ensure!(self.secure_port != 0, "--secure-port 0: this server has nothing but its port");
        for kind in &self.kubelet_preferred_address_types {
            anyhow::ensure!(
                ADDRESS_TYPES.contains(&kind.as_str()),
                "--kubelet-preferred-address-types: {kind:?} is none of {}",
                ADDRESS_TYPES.join(", ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args = std::iter::once("metrics-server").chain(args.iter().copied()).map(Into::into);
        let options: Options = component_base::flags::try_parse_from(args, NOT_IMPLEMENTED)
            .map_err(|error| error.to_string())?;
        options.check().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn the_arguments_of_upstreams_manifest_are_taken() {
        let options = parse(&[
            "--cert-dir=/tmp",
            "--secure-port=10250",
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
            "--kubelet-use-node-status-port",
            "--metric-resolution=15s",
            "--kubelet-insecure-tls",
        ])
        .expect("parses");
        assert_eq!(options.kubelet_preferred_address_types, ["InternalIP", "ExternalIP", "Hostname"]);
        assert!(options.kubelet_use_node_status_port && options.kubelet_insecure_tls);
        assert_eq!(options.metric_resolution, GoDuration::from_secs(15));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (args, part) in [
            (&["--metric-resolution=5s"][..], "at least 10s"),
            (&["--metric-resolution=10s"], "larger than kubelet-request-timeout"),
            (&["--kubelet-insecure-tls", "--kubelet-certificate-authority=a"], "cannot use both"),
            (&["--kubelet-preferred-address-types=Nowhere"], "none of Hostname"),
            (&["--deprecated-kubelet-completely-insecure"], "deprecated-kubelet-completely-insecure"),
            (&["--authentication-skip-lookup"], "authentication-skip-lookup"),
            (&["--profiling"], "profiling"),
        ] {
            let error = parse(args).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
