//! Tells the API which node a pod gets, once its claims have their volumes. Owns these calls; what follows from the answer is the loop's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::{api_code, describe, is_not_found, within};
use coracle_client::informer::Informer;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use scheduler_core::extender::Extender;
use scheduler_core::plugins::volume_binding::VolumeStep;
use scheduler_core::pod_info::PodInfo;
use serde_json::json;

use crate::extender::HttpExtender;
use crate::volume_steps;

/// How long the API may take to answer.
const BIND_DEADLINE: Duration = Duration::from_secs(30);

/// Why a pod did not get its node.
#[derive(Debug)]
pub enum BindError {
    /// Its claims did not get their volumes.
    Volumes(String),
    /// The extender that was to bind it did not.
    Extender(String),
    /// The API refused or could not be reached.
    Api(kube::Error),
}

impl BindError {
    /// Whether there is no pod to bind any more.
    pub fn is_pod_gone(&self) -> bool {
        matches!(self, Self::Api(error) if is_not_found(error))
    }

    /// What to tell people; nothing if the API could not be reached.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Volumes(error) => {
                Some(format!("running PreBind plugin \"VolumeBinding\": binding volumes: {error}"))
            }
            Self::Extender(error) => Some(format!("binding rejected: {error}")),
            Self::Api(error) => api_code(error).map(|_| format!("binding rejected: {}", describe(error))),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volumes(error) | Self::Extender(error) => f.write_str(error),
            Self::Api(error) => f.write_str(&describe(error)),
        }
    }
}

/// What became of a binding.
pub struct Bound {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node it was to get.
    pub node: Arc<str>,
    /// What had to be done about volumes first.
    pub volumes: Vec<VolumeStep>,
    /// The answer.
    pub result: Result<(), BindError>,
    /// When the attempt began, since the loop's start.
    pub began: Duration,
    /// When the pod entered the queue, since the loop's start.
    pub first_added: Duration,
    /// How often it has been tried.
    pub attempts: u32,
}

/// Binds pods.
#[derive(Clone)]
pub struct Binder {
    /// The API.
    pub client: Client,
    /// Where it is seen that claims have their volumes.
    pub claims: Informer<PersistentVolumeClaim>,
    /// Who binds the pods that it is interested in.
    pub extender: Option<Arc<HttpExtender>>,
}

impl Binder {
    /// Does what has to be done about volumes and posts the binding.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(&self, pod: &PodInfo, node: &str, volumes: &[VolumeStep]) -> Result<(), BindError> {
        if !volumes.is_empty() {
            volume_steps::run(&self.client, &self.claims, volumes, node).await.map_err(BindError::Volumes)?;
        }
        if let Some(extender) = self.extender.as_ref().filter(|extender| extender.is_interested(pod)) {
            match extender.bind(pod, node).await {
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(extender = extender.name(), error, ignored = true, "extender failed");
                }
                bound => return bound.map_err(BindError::Extender),
            }
        }
        post(&self.client, pod, node).await.map_err(BindError::Api)
    }
}

/// Posts the binding.
async fn post(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": &*pod.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    within(BIND_DEADLINE, client.request_text(request)).await.map(|_| ())
}
