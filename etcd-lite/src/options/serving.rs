//! What is served on the client port beside gRPC, to whom, and how connections are kept.

use clap::{ArgAction, Args, ValueEnum};
use component_base::duration::GoDuration;

use super::{EtcdUrl, UrlError};

/// The client port.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Client port")]
pub struct ServingOptions {
    /// Serve JSON on /v3/ beside gRPC.
    #[arg(long, env = "ETCD_ENABLE_GRPC_GATEWAY", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub enable_grpc_gateway: bool,
    /// Origins of pages that may read answers (* for any).
    #[arg(long, env = "ETCD_CORS", value_delimiter = ',', default_value = "*", value_parser = origin)]
    pub cors: Vec<String>,
    /// Host names that clients without TLS may use (* for any).
    #[arg(long, env = "ETCD_HOST_WHITELIST", value_delimiter = ',', default_value = "*")]
    pub host_whitelist: Vec<String>,
    /// Time of silence after which a client is asked whether it is there (0 for never).
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_INTERVAL", default_value = "2h")]
    pub grpc_keepalive_interval: GoDuration,
    /// Time it has to answer.
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_TIMEOUT", default_value = "20s")]
    pub grpc_keepalive_timeout: GoDuration,
    /// Least time between a client's own questions whether this member is there.
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_MIN_TIME", default_value = "5s")]
    pub grpc_keepalive_min_time: GoDuration,
    /// How much to measure; extensive adds how long each gRPC call takes.
    #[arg(long, env = "ETCD_METRICS", value_enum, default_value_t = MetricsLevel::Basic)]
    pub metrics: MetricsLevel,
}

/// An origin is written as a URL, as etcd wants it.
fn origin(text: &str) -> Result<String, UrlError> {
    if !matches!(text, "" | "*") {
        text.parse::<EtcdUrl>()?;
    }
    Ok(text.to_owned())
}

/// `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum MetricsLevel {
    Basic,
    Extensive,
}
