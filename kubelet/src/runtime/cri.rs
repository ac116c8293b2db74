//! The runtime behind a CRI v1 socket (containerd, CRI-O). Every call has a deadline.
//!
//! Never here: decisions; messages go through unchanged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{self as cri, PodSandboxConfig};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request};

use super::{
    Call, ExecOutcome, LABEL_POD_UID, RegistryAuth, Runtime, RuntimeError, RuntimeHealth, RuntimeVersion,
};

const SHORT: Duration = Duration::from_secs(10);
const ORDINARY: Duration = Duration::from_secs(120);
/// A sandbox needs its network; a slow plugin may take long.
const SANDBOX: Duration = Duration::from_secs(240);
const PULL: Duration = Duration::from_secs(1800);
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const EVENTS_MAX: usize = 256;

/// A client of one CRI socket. Connects on the first call and again after a failure.
#[derive(Clone)]
pub struct CriRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl CriRuntime {
    /// A client for `unix:///path` or a plain path.
    ///
    /// # Errors
    /// Names an endpoint of another kind.
    pub fn new(endpoint: &str) -> Result<Self, String> {
        let path = match endpoint.split_once("://") {
            Some(("unix", path)) => path,
            Some((scheme, _)) => {
                return Err(format!(
                    "--container-runtime-endpoint {endpoint}: scheme {scheme:?} is not supported; use unix:///path/to/socket or hollow://"
                ));
            }
            None => endpoint,
        };
        if !Path::new(path).is_absolute() {
            return Err(format!(
                "--container-runtime-endpoint {endpoint}: the socket's path must be absolute"
            ));
        }
        let path = PathBuf::from(path);
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(SHORT)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        })
    }
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn absent_is_none<T>(result: Result<T, tonic::Status>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

fn by_pod(pod_uid: Option<&str>) -> std::collections::HashMap<String, String> {
    pod_uid.map(|uid| (LABEL_POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() }
}

impl Runtime for CriRuntime {
    fn version(&self) -> Call<'_, RuntimeVersion> {
        Box::pin(async move {
            let request = within(SHORT, cri::VersionRequest { version: "v1".to_owned() });
            let reply = self.runtime.clone().version(request).await?.into_inner();
            Ok(RuntimeVersion { name: reply.runtime_name, version: reply.runtime_version })
        })
    }

    fn cgroup_driver(&self) -> Call<'_, Option<&'static str>> {
        Box::pin(async move {
            let request = within(SHORT, cri::RuntimeConfigRequest {});
            match self.runtime.clone().runtime_config(request).await {
                Ok(answer) => Ok(answer.into_inner().linux.map(|linux| match linux.cgroup_driver() {
                    cri::CgroupDriver::Systemd => "systemd",
                    cri::CgroupDriver::Cgroupfs => "cgroupfs",
                })),
                // Before containerd 2.
                Err(status) if status.code() == Code::Unimplemented => Ok(None),
                Err(status) => Err(status.into()),
            }
        })
    }

    fn health(&self) -> Call<'_, RuntimeHealth> {
        Box::pin(async move {
            let reply =
                self.runtime.clone().status(within(SHORT, cri::StatusRequest { verbose: false })).await?;
            let conditions = reply.into_inner().status.unwrap_or_default().conditions;
            let of = |kind: &str| match conditions.iter().find(|condition| condition.r#type == kind) {
                Some(condition) if condition.status => Ok(()),
                Some(condition) => {
                    Err(format!("{kind}=false reason:{} message:{}", condition.reason, condition.message))
                }
                None => Err(format!("{kind} is not reported")),
            };
            Ok(RuntimeHealth { runtime: of("RuntimeReady"), network: of("NetworkReady") })
        })
    }

    fn list_sandboxes<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<cri::PodSandbox>> {
        Box::pin(async move {
            let filter =
                cri::PodSandboxFilter { label_selector: by_pod(pod_uid), ..cri::PodSandboxFilter::default() };
            let request = within(ORDINARY, cri::ListPodSandboxRequest { filter: Some(filter) });
            Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
        })
    }

    fn sandbox_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<cri::PodSandboxStatus>> {
        Box::pin(async move {
            let message = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
            let reply =
                absent_is_none(self.runtime.clone().pod_sandbox_status(within(ORDINARY, message)).await)?;
            Ok(reply.and_then(|reply| reply.into_inner().status))
        })
    }

    fn run_sandbox<'a>(&'a self, config: PodSandboxConfig, handler: &'a str) -> Call<'a, String> {
        Box::pin(async move {
            let message =
                cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
            Ok(self
                .runtime
                .clone()
                .run_pod_sandbox(within(SANDBOX, message))
                .await?
                .into_inner()
                .pod_sandbox_id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
            absent_is_none(self.runtime.clone().stop_pod_sandbox(within(ORDINARY, message)).await)?;
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
            absent_is_none(self.runtime.clone().remove_pod_sandbox(within(ORDINARY, message)).await)?;
            Ok(())
        })
    }

    fn list_containers<'a>(&'a self, pod_uid: Option<&'a str>) -> Call<'a, Vec<cri::Container>> {
        Box::pin(async move {
            let filter =
                cri::ContainerFilter { label_selector: by_pod(pod_uid), ..cri::ContainerFilter::default() };
            let request = within(ORDINARY, cri::ListContainersRequest { filter: Some(filter) });
            Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
        })
    }

    fn container_status<'a>(&'a self, id: &'a str) -> Call<'a, Option<cri::ContainerStatus>> {
        Box::pin(async move {
            let message = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
            let reply =
                absent_is_none(self.runtime.clone().container_status(within(ORDINARY, message)).await)?;
            Ok(reply.and_then(|reply| reply.into_inner().status))
        })
    }

    fn create_container<'a>(
        &'a self,
        sandbox_id: &'a str,
        config: cri::ContainerConfig,
        sandbox: PodSandboxConfig,
    ) -> Call<'a, String> {
        Box::pin(async move {
            let message = cri::CreateContainerRequest {
                pod_sandbox_id: sandbox_id.to_owned(),
                config: Some(config),
                sandbox_config: Some(sandbox),
            };
            Ok(self
                .runtime
                .clone()
                .create_container(within(ORDINARY, message))
                .await?
                .into_inner()
                .container_id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::StartContainerRequest { container_id: id.to_owned() };
            self.runtime.clone().start_container(within(ORDINARY, message)).await?;
            Ok(())
        })
    }

    fn update_container<'a>(&'a self, id: &'a str, resources: cri::LinuxContainerResources) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::UpdateContainerResourcesRequest {
                container_id: id.to_owned(),
                linux: Some(resources),
                ..cri::UpdateContainerResourcesRequest::default()
            };
            self.runtime.clone().update_container_resources(within(ORDINARY, message)).await?;
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace: Duration) -> Call<'a, ()> {
        Box::pin(async move {
            let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
            let message = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
            absent_is_none(self.runtime.clone().stop_container(within(grace + ORDINARY, message)).await)?;
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::RemoveContainerRequest { container_id: id.to_owned() };
            absent_is_none(self.runtime.clone().remove_container(within(ORDINARY, message)).await)?;
            Ok(())
        })
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> Call<'a, ()> {
        Box::pin(async move {
            let message = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
            self.runtime.clone().reopen_container_log(within(ORDINARY, message)).await?;
            Ok(())
        })
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Call<'a, ExecOutcome> {
        Box::pin(async move {
            let message = cri::ExecSyncRequest {
                container_id: id.to_owned(),
                cmd: command,
                timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            };
            let reply = self.runtime.clone().exec_sync(within(timeout + SHORT, message)).await?.into_inner();
            Ok(ExecOutcome { exit_code: reply.exit_code, stdout: reply.stdout, stderr: reply.stderr })
        })
    }

    fn exec_url(&self, request: cri::ExecRequest) -> Call<'_, String> {
        Box::pin(async move { Ok(self.runtime.clone().exec(within(SHORT, request)).await?.into_inner().url) })
    }

    fn attach_url(&self, request: cri::ExecRequest) -> Call<'_, String> {
        Box::pin(async move {
            let message = cri::AttachRequest {
                container_id: request.container_id,
                stdin: request.stdin,
                tty: request.tty,
                stdout: request.stdout,
                stderr: request.stderr,
            };
            Ok(self.runtime.clone().attach(within(SHORT, message)).await?.into_inner().url)
        })
    }

    fn port_forward_url<'a>(&'a self, sandbox_id: &'a str, ports: Vec<i32>) -> Call<'a, String> {
        Box::pin(async move {
            let message = cri::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: ports };
            Ok(self.runtime.clone().port_forward(within(SHORT, message)).await?.into_inner().url)
        })
    }

    fn image<'a>(&'a self, image: &'a str) -> Call<'a, Option<cri::Image>> {
        Box::pin(async move {
            let message = cri::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
            Ok(self.images.clone().image_status(within(ORDINARY, message)).await?.into_inner().image)
        })
    }

    fn list_images(&self) -> Call<'_, Vec<cri::Image>> {
        Box::pin(async move {
            let request = within(ORDINARY, cri::ListImagesRequest { filter: None });
            Ok(self.images.clone().list_images(request).await?.into_inner().images)
        })
    }

    fn pull_image<'a>(
        &'a self,
        image: &'a str,
        auth: Option<RegistryAuth>,
        sandbox: PodSandboxConfig,
    ) -> Call<'a, String> {
        Box::pin(async move {
            let message = cri::PullImageRequest {
                image: Some(image_spec(image)),
                auth: auth.map(|auth| cri::AuthConfig {
                    username: auth.username,
                    password: auth.password,
                    auth: auth.auth,
                    ..cri::AuthConfig::default()
                }),
                sandbox_config: Some(sandbox),
            };
            Ok(self.images.clone().pull_image(within(PULL, message)).await?.into_inner().image_ref)
        })
    }

    fn events(&self) -> Call<'_, Option<mpsc::Receiver<String>>> {
        Box::pin(async move {
            let opened = self.runtime.clone().get_container_events(cri::GetEventsRequest {}).await;
            let mut stream = match opened {
                Ok(reply) => reply.into_inner(),
                Err(status) if status.code() == Code::Unimplemented => return Ok(None),
                Err(status) => return Err(status.into()),
            };
            // Some runtimes accept the call and refuse only when the stream is read.
            let first = tokio::time::timeout(Duration::from_millis(500), stream.message()).await;
            if let Ok(Err(status)) = &first
                && status.code() == Code::Unimplemented
            {
                return Ok(None);
            }
            let (sender, receiver) = mpsc::channel(EVENTS_MAX);
            tokio::spawn(async move {
                let mut next = match first {
                    Ok(message) => message,
                    Err(_) => stream.message().await,
                };
                while let Ok(Some(event)) = next {
                    let uid =
                        event.pod_sandbox_status.and_then(|status| status.metadata).map(|meta| meta.uid);
                    if sender.send(uid.unwrap_or_default()).await.is_err() {
                        return;
                    }
                    next = stream.message().await;
                }
            });
            Ok(Some(receiver))
        })
    }
}
