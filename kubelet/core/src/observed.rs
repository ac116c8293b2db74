//! What the container runtime says about one pod, in the kubelet's own words.
//!
//! Never here: runtime calls; the shell converts CRI messages into these.

use jiff::Timestamp;

/// Everything the runtime knows of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimePod {
    /// All sandboxes, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// All containers of all sandboxes, newest first.
    pub containers: Vec<ObservedContainer>,
}

/// One pod sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// 0 for the pod's first sandbox, one more for each that replaced it.
    pub attempt: u32,
    /// Whether it is alive.
    pub ready: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// Addresses in the pod network; empty for the host network or before the network is set up.
    pub ips: Vec<String>,
}

/// A container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// One container as the runtime reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// The runtime's id, without scheme.
    pub id: String,
    /// The name in the pod's spec.
    pub name: String,
    /// The sandbox that it runs in.
    pub sandbox_id: String,
    /// Where in its life it is.
    pub state: RunState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The exit code of an ended container.
    pub exit_code: i32,
    /// The runtime's word for the end: `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// Details: the termination message or the runtime's error.
    pub message: String,
    /// The image as the runtime names it.
    pub image: String,
    /// The image's digest or id.
    pub image_id: String,
    /// How many containers of this name the pod had before.
    pub restart_count: u32,
    /// [`crate::spec_hash::container_hash`] of the spec that it was made from.
    pub hash: String,
}

impl RuntimePod {
    /// The newest container of this name, in whatever sandbox.
    pub fn newest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest sandbox if it can hold containers.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Whether any container runs.
    pub fn any_running(&self) -> bool {
        self.containers.iter().any(|container| container.state == RunState::Running)
    }
}
