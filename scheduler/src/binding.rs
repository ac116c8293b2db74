//! Tells the API which node a pod gets. Owns the one call; what follows from its answer is the loop's.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::config::within;
use kube::Client;
use scheduler_core::pod_info::PodInfo;
use serde_json::json;

/// How long the API may take to answer.
const BIND_DEADLINE: Duration = Duration::from_secs(30);

/// What became of a binding.
pub struct Bound {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node it was to get.
    pub node: Arc<str>,
    /// The answer.
    pub result: Result<(), kube::Error>,
    /// When the attempt began, since the loop's start.
    pub began: Duration,
    /// When the pod entered the queue, since the loop's start.
    pub first_added: Duration,
    /// How often it has been tried.
    pub attempts: u32,
}

/// Posts the binding.
pub async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
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
