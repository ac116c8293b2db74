//! What the kubelet asks of a container runtime, in CRI's messages; two implementations: [`cri`] and [`hollow`].
//!
//! Never here: decisions about pods.

pub mod cri;
pub mod hollow;
pub mod observe;

#[cfg(test)]
mod containerd_test;

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_cri::v1::{
    Container, ContainerConfig, ContainerStatus, ExecRequest, Image, LinuxContainerResources, PodSandbox,
    PodSandboxConfig, PodSandboxStatus,
};
use tokio::sync::mpsc;
use tonic::Code;

/// An error from the runtime.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct RuntimeError {
    /// gRPC's code.
    pub code: Code,
    /// The runtime's text.
    pub message: String,
}

impl RuntimeError {
    /// An error with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<tonic::Status> for RuntimeError {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// The future of a call.
pub type Call<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// Which runtime answers.
#[derive(Clone, Debug)]
pub struct RuntimeVersion {
    /// Its name, e.g. `containerd`; the scheme of container ids.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether the runtime can run pods; the errors say why not.
#[derive(Clone, Debug)]
pub struct RuntimeHealth {
    /// The runtime itself.
    pub runtime: Result<(), String>,
    /// The pod network.
    pub network: Result<(), String>,
}

/// The end of a command run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecOutcome {
    /// Its exit code.
    pub exit_code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Credentials for a registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
    /// Both, in base64, if that is what is known.
    pub auth: String,
}

/// A container runtime.
pub trait Runtime: Send + Sync {
    /// Whether containers are only simulated.
    fn is_hollow(&self) -> bool {
        false
    }
    /// Name and version.
    fn version(&self) -> Call<'_, RuntimeVersion>;
    /// Health.
    fn health(&self) -> Call<'_, RuntimeHealth>;
    /// How the runtime names cgroups, `cgroupfs` or `systemd`; `None` if it does not say.
    fn cgroup_driver(&self) -> Call<'_, Option<&'static str>> {
        Box::pin(async { Ok(None) })
    }
    /// All sandboxes, or those of one pod.
    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<PodSandbox>>;
    /// One sandbox; `None` if there is none.
    fn sandbox_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<PodSandboxStatus>>;
    /// Makes and starts a sandbox with the runtime's handler of that name, empty for its default; returns its id.
    fn run_sandbox<'a>(&'a self, config: PodSandboxConfig, handler: &'a str) -> Call<'a, String>;
    /// Stops a sandbox and all containers in it, at once.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Removes a sandbox and its containers.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// All containers, or those of one pod.
    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<Container>>;
    /// One container; `None` if there is none.
    fn container_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<ContainerStatus>>;
    /// Makes a container; returns its id.
    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Call<'a, String>;
    /// Starts a container.
    fn start_container<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Changes the resources of a running container.
    fn update_container<'a>(&'a self, id: &'a str, resources: LinuxContainerResources) -> Call<'a, ()>;
    /// Stops a container: SIGTERM, after `grace` SIGKILL.
    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> Call<'a, ()>;
    /// Removes a container.
    fn remove_container<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Makes the runtime write to a new log file after the old one was renamed.
    fn reopen_log<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// Runs a command to its end.
    fn exec_sync<'a>(&'a self, id: &'a str, command: Vec<String>, timeout: Duration)
    -> Call<'a, ExecOutcome>;
    /// Where to stream a command's input and output.
    fn exec_url(&self, request: ExecRequest) -> Call<'_, String>;
    /// Where to stream the main process's input and output. Takes the same fields as exec but the command.
    fn attach_url(&self, request: ExecRequest) -> Call<'_, String>;
    /// Where to stream a pod's ports.
    fn port_forward_url<'a>(&'a self, sandbox_id: &'a str, ports: Vec<i32>) -> Call<'a, String>;
    /// An image on this node.
    fn image<'a>(&'a self, image: &'a str) -> Call<'a, Option<Image>>;
    /// All images on this node.
    fn list_images(&self) -> Call<'_, Vec<Image>>;
    /// Fetches an image; returns its reference.
    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        auth: Option<RegistryAuth>,
        sandbox: PodSandboxConfig,
    ) -> Call<'a, String>;
    /// UIDs of pods as something happens to their containers, if the runtime tells; `None` if it does not.
    fn events(&self) -> Call<'_, Option<mpsc::Receiver<String>>>;
}

/// The label with the pod's name.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// The label with the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label with the pod's UID.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// The label with the container's name.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The annotation with the hash of the spec that a container was made from.
pub const ANNOTATION_HASH: &str = "io.kubernetes.container.hash";
/// The annotation with the number of instances before this one.
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// The annotation with the path of the termination message on the node.
pub const ANNOTATION_TERMINATION_LOG: &str = "coracle.io/termination-log";
/// The annotation with the termination message policy.
pub const ANNOTATION_TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The annotation with the pod's grace period, for pods that the API server has forgotten.
pub const ANNOTATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
