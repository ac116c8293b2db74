//! Where everything of a cluster lies below its data directory. Pure: only joins paths.

use std::path::{Path, PathBuf};

/// The paths of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`, which is absolute.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The decided shape, see [`crate::cluster::Cluster`].
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// The administrator's kubeconfig, the one that users take.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Certificates and keys, named as kubeadm names them.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.root.join("pki").join(file)
    }

    /// A component's kubeconfig.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.root.join("kubeconfigs").join(format!("{user}.conf"))
    }

    /// A component's configuration file.
    pub fn config(&self, file: &str) -> PathBuf {
        self.root.join("config").join(file)
    }

    /// What a process wrote.
    pub fn log(&self, process: &str) -> PathBuf {
        self.root.join("log").join(format!("{process}.log"))
    }

    /// State that means nothing after a reboot: sockets and locks.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Where the supervisor takes requests.
    pub fn control_socket(&self) -> PathBuf {
        self.run().join("supervisor.sock")
    }

    /// Held by the supervisor as long as it lives.
    pub fn lock_file(&self) -> PathBuf {
        self.run().join("supervisor.lock")
    }

    /// A store member's data.
    pub fn store(&self, host: &str) -> PathBuf {
        self.root.join("store").join(host)
    }

    /// Everything of one node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    /// A node's containerd socket.
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("containerd.sock")
    }

    /// Image archives that every node gets.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Directories that exist before anything starts.
    pub fn directories(&self) -> Vec<PathBuf> {
        ["pki/etcd", "kubeconfigs", "config", "log", "run", "store", "nodes", "images"]
            .iter()
            .map(|dir| self.root.join(dir))
            .collect()
    }
}
