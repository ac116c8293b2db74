//! The controllers work on a real cluster through a connection with faults (stale reads, broken watches, repeated events, failing requests, ends between any
//! two writes): what people ask for comes about, and the history of the store, judged when the cluster ends, breaks no promise.
//! `SEED=n cargo nextest run -p coracle-tests promises_hold_while` runs another plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use controller_simulation::real::run_controllers;
use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(120);

/// Says how to run a failing plan again.
struct Plan(u64);

impl Drop for Plan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with: SEED={} cargo nextest run -p coracle-tests promises_hold_while", self.0);
        }
    }
}

/// Controllers in this process; the cluster's own stand by.
struct Controllers {
    trouble: Arc<AtomicBool>,
    ended: CancellationToken,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Controllers {
    fn start(cluster: &Cluster, seed: u64) -> Self {
        let trouble = Arc::new(AtomicBool::new(true));
        let ended = CancellationToken::new();
        let (own_trouble, own_ended) = (Arc::clone(&trouble), ended.clone());
        let kubeconfig = cluster.data().join("kubeconfig");
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                component_base::tls::install_provider();
                let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("kubeconfig");
                let options = KubeConfigOptions::default();
                let config =
                    kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("config");
                let client = kube::Client::try_from(config).expect("client");
                run_controllers(client, &["*"], seed, own_trouble, own_ended).await
            })
        });
        Self { trouble, ended, thread: Some(thread) }
    }

    fn calm(&self) {
        self.trouble.store(false, Ordering::Relaxed);
    }

    fn end(&mut self) -> u64 {
        self.ended.cancel();
        self.thread.take().map_or(0, |thread| thread.join().expect("the controllers"))
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives the leadership away, so that nothing but this process works on what controllers look after.
fn depose(cluster: &Cluster) {
    let patch = json!({ "spec": { "holderIdentity": "the-test", "leaseDurationSeconds": 86_400 } });
    cluster
        .kubectl(&format!("-n kube-system patch lease kube-controller-manager --type=merge -p '{patch}'"))
        .ok();
    wait_for("no controller-manager leads", DEADLINE, || {
        let rows = cluster.coracle("status -o json").result()?;
        let rows: Vec<Value> = serde_json::from_str(&rows).map_err(|error| error.to_string())?;
        let managers = rows
            .iter()
            .filter(|row| row["name"].as_str().is_some_and(|name| name.starts_with("controller-manager")));
        let roles: Vec<_> = managers.map(|row| row["role"].clone()).collect();
        if roles.iter().any(|role| role == "active") { Err(format!("{roles:?}")) } else { Ok(()) }
    });
}

fn workload(kind: &str, name: &str, replicas: u32) -> String {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "x:v1" }] } },
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object.to_string()
}

#[test]
fn promises_hold_while_the_controllers_see_late_lose_watches_and_die() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(3);
    let _plan = Plan(seed);
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "3"]);
    depose(&cluster);
    let mut controllers = Controllers::start(&cluster, seed);

    cluster.kubectl_stdin("create -f -", &workload("Deployment", "web", 6)).ok();
    cluster.kubectl_stdin("create -f -", &workload("StatefulSet", "db", 3)).ok();
    cluster.kubectl("create poddisruptionbudget web --selector=app=web --min-available=4").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    cluster.kubectl("rollout status statefulset/db --timeout=90s").ok();
    for version in ["v2", "v3"] {
        cluster.kubectl(&format!("set image deployment/web c=x:{version}")).ok();
        cluster.kubectl(&format!("set image statefulset/db c=x:{version}")).ok();
        // The rollout may have taken it just now.
        cluster.kubectl("delete pod db-0 --wait=false --ignore-not-found").ok();
    }
    cluster.kubectl("scale deployment/web --replicas=9").ok();
    let node = cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok();
    let drained = cluster
        .kubectl(&format!("drain {} --ignore-daemonsets --delete-emptydir-data --timeout=60s", node.trim()));
    drained.ok();
    controllers.calm();
    cluster.kubectl("rollout status deployment/web --timeout=120s").ok();
    cluster.kubectl("rollout status statefulset/db --timeout=120s").ok();
    wait_for("as many pods as asked for", DEADLINE, || {
        let pods =
            cluster.kubectl("get pods -l app=web --field-selector=status.phase=Running -o name").result()?;
        if pods.lines().count() == 9 { Ok(()) } else { Err(pods) }
    });
    assert!(controllers.end() > 1, "they died at least once");
}
