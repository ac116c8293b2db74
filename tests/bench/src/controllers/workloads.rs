//! What people wait for: Deployments, Jobs, the end of a namespace, and what rest costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use serde_json::{Value, json};

use super::cluster::{Cluster, Programs};
use crate::api::client::STRATEGIC;
use crate::api::objects::{NAMESPACE, PODS, pod_object};
use crate::report::{Figure, figure};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/bench/deployments/web";
const NAMESPACE_PATH: &str = "/api/v1/namespaces/bench";
/// How long the controllers are watched while they have nothing to do, and how long they have to come to rest before.
const REST: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A Deployment from none to all, then another template through all of them, then rest.
    Deployment,
    /// A namespace with half pods and half ConfigMaps is deleted.
    Namespace,
    /// Jobs of one pod each.
    Jobs,
}

impl Workload {
    /// What `--only` takes.
    pub const NAMES: &[&str] = &["deployment", "namespace", "jobs"];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "deployment" => Some(Self::Deployment),
            "namespace" => Some(Self::Namespace),
            "jobs" => Some(Self::Jobs),
            _ => None,
        }
    }

    /// Measures a controller-manager on a fresh cluster with so many objects of each kind.
    ///
    /// # Errors
    /// When a program does not start, or what is waited for does not come about.
    pub async fn run(
        self,
        programs: &Programs,
        controllers: &Path,
        dir: &Path,
        count: usize,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut cluster = Cluster::start(programs, controllers, dir, count).await?;
        cluster.system.furnish().await?;
        match self {
            Self::Deployment => deployment(&mut cluster, count).await,
            Self::Namespace => namespace(&mut cluster, count).await,
            Self::Jobs => jobs(&mut cluster, count).await,
        }
    }
}

fn body(object: &Value) -> Bytes {
    object.to_string().into()
}

/// The template of a pod that a workload makes.
fn template(labels: &Value) -> Value {
    let mut pod = pod_object("");
    pod["metadata"] = json!({ "labels": labels });
    json!({ "metadata": pod["metadata"], "spec": pod["spec"] })
}

async fn deployment(cluster: &mut Cluster, count: usize) -> anyhow::Result<Vec<Figure>> {
    let labels = json!({ "app": "web" });
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": template(&labels) },
    });
    cluster.client.post("/apis/apps/v1/namespaces/bench/deployments", body(&object)).await?;
    let complete = |wanted: usize| {
        move |object: &Value| {
            let status = &object["status"];
            let number = |field: &str| status[field].as_u64().unwrap_or_default() as usize;
            status["observedGeneration"] == object["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .iter()
                    .all(|field| number(field) == wanted)
        }
    };
    cluster.wait(DEPLOYMENT, "a Deployment of none", complete(0)).await?;
    let grown = json!({ "spec": { "replicas": count } });
    cluster.client.send("PATCH", DEPLOYMENT, STRATEGIC, body(&grown)).await?;
    let scaled = cluster.wait(DEPLOYMENT, "a Deployment that grows", complete(count)).await?;
    let changed =
        json!({ "spec": { "template": { "metadata": { "annotations": { "example.com/version": "2" } } } } });
    cluster.client.send("PATCH", DEPLOYMENT, STRATEGIC, body(&changed)).await?;
    let rolled = cluster.wait(DEPLOYMENT, "a Deployment that rolls", complete(count)).await?;
    tokio::time::sleep(REST).await;
    let before = cluster.controllers.cpu_seconds()?;
    tokio::time::sleep(REST).await;
    let resting = (cluster.controllers.cpu_seconds()? - before) * 60.0 / REST.as_secs_f64();
    let memory = cluster.controllers.resident_bytes()? as f64 / 1e6;
    Ok(vec![
        figure("a Deployment from none to all", scaled.as_secs_f64(), "s"),
        figure("a rolling update through all", rolled.as_secs_f64(), "s"),
        figure("CPU a minute at rest after that", resting, "s"),
        figure("memory after that", memory, "MB"),
    ])
}

async fn namespace(cluster: &mut Cluster, count: usize) -> anyhow::Result<Vec<Figure>> {
    let named = |number: usize| format!("object-{number}");
    cluster
        .system
        .create(PODS, (0..count).map(|number| body(&pod_object(&named(number)))))
        .await
        .context("create pods")?;
    let config_maps = (0..count).map(|number| {
        body(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": named(number) },
            "data": { "key": "value" } }))
    });
    cluster
        .system
        .create("/api/v1/namespaces/bench/configmaps", config_maps)
        .await
        .context("create ConfigMaps")?;
    for number in 0..count {
        let path = format!("{PODS}/{}", named(number));
        cluster.wait(&path, "a pod that runs", |pod| pod["status"]["phase"] == "Running").await?;
    }
    cluster.client.send("DELETE", NAMESPACE_PATH, crate::api::client::JSON, Bytes::new()).await?;
    let gone = cluster.wait_gone(NAMESPACE_PATH, "a namespace that is deleted").await?;
    Ok(vec![figure("the end of a namespace with as many pods and ConfigMaps", gone.as_secs_f64(), "s")])
}

async fn jobs(cluster: &mut Cluster, count: usize) -> anyhow::Result<Vec<Figure>> {
    let named = |number: usize| format!("job-{number}");
    let jobs = "/apis/batch/v1/namespaces/bench/jobs";
    let objects = (0..count).map(|number| {
        let mut template = template(&json!({ "app": "job" }));
        template["spec"]["restartPolicy"] = "Never".into();
        body(&json!({ "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": named(number), "namespace": NAMESPACE }, "spec": { "template": template } }))
    });
    let began = Instant::now();
    cluster.system.create(jobs, objects).await.context("create Jobs")?;
    for number in 0..count {
        let path = format!("{jobs}/{}", named(number));
        cluster.wait(&path, "a Job that ends", |job| job["status"]["succeeded"] == 1).await?;
    }
    Ok(vec![figure("Jobs from their creation to their end", began.elapsed().as_secs_f64(), "s")])
}
