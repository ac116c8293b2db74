//! Which cluster a member belongs to.

use clap::{Args, ValueEnum};

/// The members a cluster begins with.
#[derive(Args, Clone, Debug)]
pub struct ClusteringOptions {
    /// All members as NAME=PEER_URL,... [default: this member alone]
    #[arg(long)]
    pub initial_cluster: Option<String>,
    /// Whether the cluster is being made or exists.
    #[arg(long, value_enum, default_value_t = ClusterState::New)]
    pub initial_cluster_state: ClusterState,
    /// Keeps clusters apart.
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
}

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// All members start for the first time.
    New,
    /// The cluster runs already.
    Existing,
}
