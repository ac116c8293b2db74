//! kube-rs: typed calls and watches of a Deployment.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(90);

/// A Deployment is created, watched until it runs, and deleted.
pub fn a_deployment_lives(cluster: &Cluster) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(2 * DEADLINE, kube_rs(cluster)).await.expect("kube-rs in time")
    });
}

async fn kube_rs(cluster: &Cluster) {
    component_base::tls::install_provider();
    let kubeconfig = Kubeconfig::read_from(cluster.data().join("kubeconfig")).expect("kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("config");
    let kube = kube::Client::try_from(config).expect("client");
    let deployments: kube::Api<Deployment> = kube::Api::namespaced(kube.clone(), "default");
    let labels = json!({"app": "kube-rs"});
    let wanted: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "kube-rs", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "demo:v1"}]},
            },
        },
    }))
    .expect("a Deployment");
    let created = deployments.create(&PostParams::default(), &wanted).await.expect("create");
    let version = created.metadata.resource_version.expect("resourceVersion");

    let mut events = deployments
        .watch(&WatchParams::default().labels("app=kube-rs"), &version)
        .await
        .expect("watch")
        .boxed();
    while let Some(event) = events.try_next().await.expect("event") {
        let WatchEvent::Modified(deployment) = event else { continue };
        if deployment.status.and_then(|status| status.available_replicas) == Some(2) {
            break;
        }
    }
    let listed = deployments.list(&ListParams::default().labels("app=kube-rs")).await.expect("list");
    assert_eq!(listed.items.len(), 1);
    let pods: kube::Api<Pod> = kube::Api::namespaced(kube, "default");
    assert_eq!(pods.list(&ListParams::default().labels("app=kube-rs")).await.expect("pods").items.len(), 2);

    let version = listed.metadata.resource_version.expect("resourceVersion of the list");
    deployments.delete("kube-rs", &DeleteParams::foreground()).await.expect("delete");
    let mut events = deployments
        .watch(&WatchParams::default().labels("app=kube-rs"), &version)
        .await
        .expect("watch")
        .boxed();
    loop {
        match events.try_next().await.expect("event").expect("the watch goes on until the deletion") {
            WatchEvent::Deleted(_) => break,
            WatchEvent::Modified(_) | WatchEvent::Added(_) | WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => panic!("{error:?}"),
        }
    }
}
