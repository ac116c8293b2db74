//! Simulated containers, in memory: what runs is only said to run. For machines without root or containerd, and for
//! tests of scale.
//!
//! Never here: processes, mounts, network. What cannot be simulated is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1::{
    Container, ContainerConfig, ContainerState, ContainerStatus, ExecRequest, Image, LinuxContainerResources,
    PodSandbox, PodSandboxConfig, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use kubelet_core::container_log;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Code;

use super::{
    Call, ExecOutcome, LABEL_POD_UID, RegistryAuth, Runtime, RuntimeError, RuntimeHealth, RuntimeVersion,
};

const IMAGE_BYTES: u64 = 1 << 20;
const EVENTS_MAX: usize = 1024;

struct HollowSandbox {
    status: PodSandboxStatus,
    log_directory: String,
    address: Option<Ipv4Addr>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// First address and number of addresses of the node's pod network.
    network: Option<(u32, u32)>,
    used: BTreeSet<u32>,
    sandboxes: BTreeMap<String, HollowSandbox>,
    containers: BTreeMap<String, (String, ContainerStatus)>,
    images: BTreeMap<String, Image>,
    watcher: Option<mpsc::Sender<String>>,
}

/// The simulated runtime.
pub struct HollowRuntime {
    start_latency: Duration,
    state: Mutex<State>,
}

fn nanoseconds() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn refused<T>(what: &str) -> Result<T, RuntimeError> {
    Err(RuntimeError::new(
        Code::Unimplemented,
        format!("{what} is not possible: this node is hollow, its containers are simulated"),
    ))
}

fn absent(kind: &str, id: &str) -> RuntimeError {
    RuntimeError::new(Code::NotFound, format!("{kind} {id:?} not found"))
}

/// `10.244.1.0/24` as first address and number of addresses.
fn parse_cidr(cidr: &str) -> Option<(u32, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    let bits: u32 = bits.parse().ok().filter(|bits| (8..=30).contains(bits))?;
    let size = 1_u32 << (32 - bits);
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?) & !(size - 1), size))
}

impl HollowRuntime {
    /// A runtime whose sandboxes take `start_latency` to start.
    pub fn new(start_latency: Duration) -> Self {
        Self { start_latency, state: Mutex::default() }
    }

    /// The node's pod network; before it is known no pod gets an address.
    pub fn set_pod_cidr(&self, cidr: &str) {
        self.state.lock().network = parse_cidr(cidr);
    }
}

impl State {
    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("{:016x}{:048x}", nanoseconds(), self.next_id)
    }

    fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, size) = self.network?;
        // The network's own address, its gateway and broadcast are not given out.
        let offset = (2..size - 1).find(|offset| !self.used.contains(&(first + offset)))?;
        self.used.insert(first + offset);
        Some(Ipv4Addr::from(first + offset))
    }

    fn tell(&self, sandbox_id: &str) {
        if let (Some(watcher), Some(sandbox)) = (&self.watcher, self.sandboxes.get(sandbox_id)) {
            let uid = sandbox.status.labels.get(LABEL_POD_UID).cloned().unwrap_or_default();
            // A full queue is made up for by the next relist.
            let _ = watcher.try_send(uid);
        }
    }

    fn stop(&mut self, id: &str, exit_code: i32) {
        let Some((sandbox_id, status)) = self.containers.get_mut(id) else { return };
        if status.state == ContainerState::ContainerRunning as i32 {
            status.state = ContainerState::ContainerExited as i32;
            status.finished_at = nanoseconds();
            status.exit_code = exit_code;
            status.reason = if exit_code == 0 { "Completed".to_owned() } else { "Error".to_owned() };
        }
        let sandbox_id = sandbox_id.clone();
        self.tell(&sandbox_id);
    }

    fn stop_sandbox(&mut self, id: &str) {
        let inside: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, (sandbox, _))| sandbox == id)
            .map(|(id, _)| id.clone())
            .collect();
        for container in inside {
            self.stop(&container, 137);
        }
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.status.state = PodSandboxState::SandboxNotready as i32;
            if let Some(address) = sandbox.address.take() {
                self.used.remove(&u32::from(address));
            }
        }
    }
}

fn of_pod(labels: &std::collections::HashMap<String, String>, pod_uid: Option<&str>) -> bool {
    pod_uid.is_none_or(|uid| labels.get(LABEL_POD_UID).is_some_and(|have| have == uid))
}

impl Runtime for HollowRuntime {
    fn is_hollow(&self) -> bool {
        true
    }

    fn cgroup_driver(&self) -> Call<'_, Option<&'static str>> {
        // There are no cgroups.
        Box::pin(async { Ok(Some("cgroupfs")) })
    }

    fn version(&self) -> Call<'_, RuntimeVersion> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Box::pin(async move { Ok(RuntimeVersion { name: "hollow".to_owned(), version }) })
    }

    fn health(&self) -> Call<'_, RuntimeHealth> {
        Box::pin(async move {
            let network = match self.state.lock().network {
                Some(_) => Ok(()),
                None => {
                    Err("NetworkReady=false reason:NetworkPluginNotReady message:the node has no podCIDR yet"
                        .to_owned())
                }
            };
            Ok(RuntimeHealth { runtime: Ok(()), network })
        })
    }

    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<PodSandbox>> {
        Box::pin(async move {
            let state = self.state.lock();
            let matching = state.sandboxes.values().filter(|sandbox| of_pod(&sandbox.status.labels, pod_uid));
            Ok(matching
                .map(|HollowSandbox { status, .. }| PodSandbox {
                    id: status.id.clone(),
                    metadata: status.metadata.clone(),
                    state: status.state,
                    created_at: status.created_at,
                    labels: status.labels.clone(),
                    annotations: status.annotations.clone(),
                    ..PodSandbox::default()
                })
                .collect())
        })
    }

    fn sandbox_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<PodSandboxStatus>> {
        Box::pin(async move { Ok(self.state.lock().sandboxes.get(id).map(|sandbox| sandbox.status.clone())) })
    }

    fn run_sandbox<'a>(&'a self, config: PodSandboxConfig, _: &'a str) -> Call<'a, String> {
        Box::pin(async move {
            tokio::time::sleep(self.start_latency).await;
            let mut state = self.state.lock();
            let host_network = config
                .linux
                .as_ref()
                .and_then(|linux| linux.security_context.as_ref()?.namespace_options.as_ref())
                .is_some_and(|options| options.network == k8s_cri::v1::NamespaceMode::Node as i32);
            let address = if host_network {
                None
            } else {
                let allocated = state.allocate();
                Some(allocated.ok_or_else(|| {
                    RuntimeError::new(
                        Code::Unknown,
                        "failed to allocate an address: the node's range is used up",
                    )
                })?)
            };
            let id = state.id();
            let status = PodSandboxStatus {
                id: id.clone(),
                metadata: config.metadata,
                state: PodSandboxState::SandboxReady as i32,
                created_at: nanoseconds(),
                network: Some(PodSandboxNetworkStatus {
                    ip: address.map(|address| address.to_string()).unwrap_or_default(),
                    additional_ips: Vec::new(),
                }),
                labels: config.labels,
                annotations: config.annotations,
                ..PodSandboxStatus::default()
            };
            let sandbox = HollowSandbox { status, log_directory: config.log_directory, address };
            state.sandboxes.insert(id.clone(), sandbox);
            Ok(id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            self.state.lock().stop_sandbox(id);
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let mut state = self.state.lock();
            state.stop_sandbox(id);
            state.containers.retain(|_, (sandbox, _)| sandbox != id);
            state.sandboxes.remove(id);
            Ok(())
        })
    }

    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<Container>> {
        Box::pin(async move {
            let state = self.state.lock();
            let matching = state.containers.values().filter(|(_, status)| of_pod(&status.labels, pod_uid));
            Ok(matching
                .map(|(sandbox_id, status)| Container {
                    id: status.id.clone(),
                    pod_sandbox_id: sandbox_id.clone(),
                    metadata: status.metadata.clone(),
                    image: status.image.clone(),
                    image_ref: status.image_ref.clone(),
                    state: status.state,
                    created_at: status.created_at,
                    labels: status.labels.clone(),
                    annotations: status.annotations.clone(),
                    ..Container::default()
                })
                .collect())
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<ContainerStatus>> {
        Box::pin(async move { Ok(self.state.lock().containers.get(id).map(|(_, status)| status.clone())) })
    }

    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: ContainerConfig,
        _: PodSandboxConfig,
    ) -> Call<'a, String> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let sandbox = state.sandboxes.get(sandbox_id).ok_or_else(|| absent("sandbox", sandbox_id))?;
            let log_path = format!("{}/{}", sandbox.log_directory, config.log_path);
            let id = state.id();
            let mut image = config.image.unwrap_or_default();
            image.image = kubelet_core::image::full_name(&image.user_specified_image);
            let status = ContainerStatus {
                id: id.clone(),
                metadata: config.metadata,
                state: ContainerState::ContainerCreated as i32,
                created_at: nanoseconds(),
                image_ref: format!("{}@hollow", image.image),
                image: Some(image),
                labels: config.labels,
                annotations: config.annotations,
                log_path,
                ..ContainerStatus::default()
            };
            state.containers.insert(id.clone(), (sandbox_id.to_owned(), status));
            Ok(id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let (_, status) = state.containers.get_mut(id).ok_or_else(|| absent("container", id))?;
            status.state = ContainerState::ContainerRunning as i32;
            status.started_at = nanoseconds();
            let line = "this node is hollow: the container is simulated, nothing runs in it";
            let text = container_log::format(Timestamp::now(), false, line);
            // A log that cannot be written is no reason not to simulate.
            if let Err(error) = std::fs::write(&status.log_path, text) {
                tracing::debug!(path = status.log_path, %error, "cannot write a hollow log");
            }
            Ok(())
        })
    }

    fn update_container<'a>(&'a self, id: &'a str, _: LinuxContainerResources) -> Call<'a, ()> {
        Box::pin(async move {
            match self.state.lock().containers.contains_key(id) {
                true => Ok(()),
                false => Err(absent("container", id)),
            }
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, _: Duration) -> Call<'a, ()> {
        Box::pin(async move {
            self.state.lock().stop(id, 0);
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            self.state.lock().containers.remove(id);
            Ok(())
        })
    }

    fn reopen_log<'a>(&'a self, _: &'a str) -> Call<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn exec_sync<'a>(&'a self, _: &'a str, _: Vec<String>, _: Duration) -> Call<'a, ExecOutcome> {
        Box::pin(async { refused("exec") })
    }

    fn exec_url(&self, _: ExecRequest) -> Call<'_, String> {
        Box::pin(async { refused("exec") })
    }

    fn attach_url(&self, _: ExecRequest) -> Call<'_, String> {
        Box::pin(async { refused("attach") })
    }

    fn port_forward_url<'a>(&'a self, _: &'a str, _: Vec<i32>) -> Call<'a, String> {
        Box::pin(async { refused("port-forward") })
    }

    fn image<'a>(&'a self, image: &'a str) -> Call<'a, Option<Image>> {
        Box::pin(async move {
            let name = kubelet_core::image::full_name(image);
            Ok(self.state.lock().images.get(&name).cloned())
        })
    }

    fn list_images(&self) -> Call<'_, Vec<Image>> {
        Box::pin(async move { Ok(self.state.lock().images.values().cloned().collect()) })
    }

    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        _: Option<RegistryAuth>,
        _: PodSandboxConfig,
    ) -> Call<'a, String> {
        Box::pin(async move {
            let name = kubelet_core::image::full_name(image);
            let pulled = Image {
                id: name.clone(),
                repo_tags: vec![name.clone()],
                size: IMAGE_BYTES,
                ..Image::default()
            };
            self.state.lock().images.insert(name.clone(), pulled);
            Ok(name)
        })
    }

    fn events(&self) -> Call<'_, Option<mpsc::Receiver<String>>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(EVENTS_MAX);
            self.state.lock().watcher = Some(sender);
            Ok(Some(receiver))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_nodes_range_and_go_back() {
        let runtime = HollowRuntime::new(Duration::ZERO);
        runtime.set_pod_cidr("10.244.3.0/30");
        let mut state = runtime.state.lock();
        assert_eq!(state.allocate(), Some(Ipv4Addr::new(10, 244, 3, 2)));
        assert_eq!(state.allocate(), None);
        state.used.clear();
        assert!(state.allocate().is_some());
        assert_eq!(parse_cidr("10.244.1.7/24"), Some((u32::from(Ipv4Addr::new(10, 244, 1, 0)), 256)));
        assert_eq!(parse_cidr("nonsense"), None);
    }

    #[tokio::test]
    async fn a_container_lives_and_ends() {
        let runtime = HollowRuntime::new(Duration::ZERO);
        runtime.set_pod_cidr("10.244.3.0/24");
        let sandbox = runtime.run_sandbox(PodSandboxConfig::default(), "").await.unwrap();
        let id = runtime
            .create_container(&sandbox, ContainerConfig::default(), PodSandboxConfig::default())
            .await
            .unwrap();
        runtime.start_container(&id).await.unwrap();
        let state = |status: Option<ContainerStatus>| status.unwrap().state;
        assert_eq!(
            state(runtime.container_status(&id).await.unwrap()),
            ContainerState::ContainerRunning as i32
        );
        runtime.stop_sandbox(&sandbox).await.unwrap();
        assert_eq!(
            state(runtime.container_status(&id).await.unwrap()),
            ContainerState::ContainerExited as i32
        );
        runtime.remove_sandbox(&sandbox).await.unwrap();
        assert!(runtime.container_status(&id).await.unwrap().is_none());
        let error = runtime.exec_sync(&id, vec![], Duration::ZERO).await.unwrap_err();
        assert!(error.message.contains("hollow"), "{error}");
    }
}
