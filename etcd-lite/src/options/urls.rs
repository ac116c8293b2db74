//! Where a member listens and what addresses it tells others.

use clap::{ArgAction, Args};

use super::EtcdUrl;

/// URLs of this member.
#[derive(Args, Clone, Debug)]
pub struct UrlOptions {
    /// URLs to serve clients on; http and https may share a port.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    pub listen_client_urls: Vec<EtcdUrl>,
    /// URLs to serve JSON, health and metrics on; --listen-client-urls then serve gRPC alone.
    #[arg(long, value_delimiter = ',')]
    pub listen_client_http_urls: Vec<EtcdUrl>,
    /// URLs to tell clients.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    pub advertise_client_urls: Vec<EtcdUrl>,
    /// URLs to serve peers on.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub listen_peer_urls: Vec<EtcdUrl>,
    /// URLs to tell peers.
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub initial_advertise_peer_urls: Vec<EtcdUrl>,
    /// URLs for `/metrics` and `/health` alone.
    #[arg(long, value_delimiter = ',', help_heading = "Profiling and monitoring")]
    pub listen_metrics_urls: Vec<EtcdUrl>,
    /// Let another process listen on the same port (SO_REUSEPORT).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub socket_reuse_port: bool,
    /// Let listeners take addresses that are in TIME_WAIT (SO_REUSEADDR). Always done.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub socket_reuse_address: bool,
}
