//! Clients other than kubectl: kube-rs, the official Python client, helm, etcdctl.

use std::process::Command;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::{Ran, client, run};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(90);

#[test]
fn clients_that_are_not_ours_work() {
    let cluster = Cluster::up(&[]);
    python_client(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(2 * DEADLINE, kube_rs(&cluster)).await.expect("kube-rs in time")
    });
    helm_chart(&cluster);
    etcdctl_reads_and_writes(&cluster);
    a_neighbour_comes_and_goes(&cluster);
}

/// Taking down a cluster of hollow nodes once killed the containers of the real cluster that has the same slot.
fn a_neighbour_comes_and_goes(cluster: &Cluster) {
    cluster.kubectl("create deployment stays --image=demo:v1 --replicas=3").ok();
    cluster.kubectl("rollout status deployment/stays --timeout=90s").ok();
    let containers = || {
        let path =
            "{range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount}{\"\\n\"}{end}";
        cluster.kubectl(&format!("get pods -l app=stays -o jsonpath='{path}'")).ok()
    };
    let before = containers();
    drop(Cluster::up(&["--runtime", "hollow", "--nodes", "1"]));
    let pods = cluster.kubectl("get pods -l app=stays -o name").ok();
    for pod in pods.split_whitespace() {
        cluster.kubectl(&format!("exec {} -- true", pod.trim_start_matches("pod/"))).ok();
    }
    assert_eq!(containers(), before);
}

fn python_client(cluster: &Cluster) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/deployment.py");
    let kubeconfig = cluster.data().join("kubeconfig");
    let printed = run(Command::new(client("python/bin/python")).arg(script).arg(kubeconfig)).ok();
    assert_eq!(printed.trim(), "ok");
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

fn helm(cluster: &Cluster, arguments: &[&str]) -> Ran {
    let mut command = Command::new(client("helm"));
    command.args(arguments).env("KUBECONFIG", cluster.data().join("kubeconfig")).env("HOME", cluster.data());
    run(&mut command)
}

/// A chart of a Deployment, a Service and a ConfigMap is installed, upgraded, rolled back and removed.
fn helm_chart(cluster: &Cluster) {
    let chart = tempfile::tempdir().expect("chart");
    let write = |name: &str, text: &str| {
        let path = chart.path().join(name);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("create");
        std::fs::write(path, text).expect("write");
    };
    write("Chart.yaml", "apiVersion: v2\nname: boat\nversion: 0.1.0\n");
    write("values.yaml", "color: red\n");
    write(
        "templates/all.yaml",
        r#"apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-settings"}
data: {color: "{{ .Values.color }}"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: 1
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}"}}
    spec: {containers: [{name: web, image: "demo:v1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec: {selector: {app: "{{ .Release.Name }}"}, ports: [{port: 80, targetPort: 8080}]}
"#,
    );
    let chart = chart.path().to_str().expect("path");
    let color = || cluster.kubectl("get configmap boat-settings -o jsonpath={.data.color}").ok();
    helm(cluster, &["install", "boat", chart, "--wait", "--timeout", "90s"]).ok();
    assert_eq!(color(), "red");
    helm(cluster, &["upgrade", "boat", chart, "--set", "color=blue", "--wait", "--timeout", "90s"]).ok();
    assert_eq!(color(), "blue");
    helm(cluster, &["rollback", "boat", "1", "--wait", "--timeout", "90s"]).ok();
    assert_eq!(color(), "red");
    assert!(helm(cluster, &["history", "boat"]).ok().contains("Rollback to 1"));
    helm(cluster, &["uninstall", "boat", "--wait", "--timeout", "90s"]).ok();
    assert!(cluster.kubectl("get deployment boat").err().contains("not found"));
}

/// Debian's etcdctl against the cluster's own three members, with the API server's certificate.
fn etcdctl_reads_and_writes(cluster: &Cluster) {
    let commands = cluster.coracle("status --commands").ok();
    let servers = commands
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--etcd-servers="))
        .expect("the API server's --etcd-servers")
        .to_owned();
    let pki = cluster.data().join("pki");
    let etcdctl = |arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&servers);
        command.arg("--cacert").arg(pki.join("etcd/ca.crt"));
        command
            .arg("--cert")
            .arg(pki.join("apiserver-etcd-client.crt"))
            .arg("--key")
            .arg(pki.join("apiserver-etcd-client.key"));
        run(command.args(arguments))
    };
    let members = etcdctl(&["member", "list"]).ok();
    assert_eq!(members.lines().filter(|line| line.contains("started")).count(), 3, "{members}");
    let status = etcdctl(&["endpoint", "status"]).ok();
    assert_eq!(status.lines().filter(|line| line.contains(", true,")).count(), 1, "one leader: {status}");
    assert!(etcdctl(&["get", "/registry/namespaces/default"]).ok().contains("\"kind\":\"Namespace\""));
    etcdctl(&["put", "/elsewhere/a", "1"]).ok();
    assert_eq!(etcdctl(&["get", "--prefix", "/elsewhere/"]).ok().trim(), "/elsewhere/a\n1");
    assert_eq!(etcdctl(&["del", "--prefix", "/elsewhere/"]).ok().trim(), "1");
}
