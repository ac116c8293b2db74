//! Which cluster a member belongs to.

use clap::{ArgAction, Args, ValueEnum};

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
    /// Refuse changes of the members that would cost the majority.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub strict_reconfig_check: bool,
    /// Learners there may be at a time.
    #[arg(long, alias = "max-learners", default_value_t = 1)]
    pub experimental_max_learners: u32,
    /// Go on as the only member, with the data there is. For when the majority of the others is lost for ever.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub force_new_cluster: bool,
}

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// All members start for the first time.
    New,
    /// The cluster runs already.
    Existing,
}
