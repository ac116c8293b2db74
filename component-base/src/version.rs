//! Which upstream level the binaries answer for, in one place.

use serde::Serialize;

/// The Kubernetes level served, as `gitVersion` has it.
pub const KUBERNETES: &str = "v1.35.0";

/// The etcd level served, as etcd's `Status` has it.
pub const ETCD: &str = "3.5.21";

/// Upstream's `version.Info`, the body of `/version`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Info {
    pub major: &'static str,
    pub minor: &'static str,
    pub git_version: String,
    pub git_commit: &'static str,
    pub git_tree_state: &'static str,
    pub build_date: &'static str,
    pub go_version: &'static str,
    pub compiler: &'static str,
    pub platform: &'static str,
}

impl Info {
    /// What `--version=raw` prints: the form that Go gives a struct.
    pub fn raw(&self) -> String {
        format!(
            "version.Info{{Major:{:?}, Minor:{:?}, GitVersion:{:?}, GitCommit:{:?}, GitTreeState:{:?}, BuildDate:{:?}, GoVersion:{:?}, Compiler:{:?}, Platform:{:?}}}",
            self.major,
            self.minor,
            self.git_version,
            self.git_commit,
            self.git_tree_state,
            self.build_date,
            self.go_version,
            self.compiler,
            self.platform
        )
    }
}

/// The Kubernetes level with Coracle's own version as build metadata (`v1.35.0+coracle.0.1.0`), which version
/// comparisons of clients ignore.
pub fn kubernetes_info() -> Info {
    Info {
        major: "1",
        minor: "35",
        git_version: format!("{KUBERNETES}+coracle.{}", env!("CARGO_PKG_VERSION")),
        git_commit: "",
        git_tree_state: "",
        build_date: "1970-01-01T00:00:00Z",
        go_version: "",
        compiler: "rustc",
        platform: if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" },
    }
}
