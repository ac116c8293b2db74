//! Components are killed one after another, then all at once, while a client writes through the kubeconfig's endpoint:
//! nothing acknowledged is lost, containers keep running, the Deployment is at its count again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// Writes ten objects a second and keeps the names of those that were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

async fn client(cluster_dir: &std::path::Path) -> kube::Client {
    component_base::tls::install_provider();
    let kubeconfig = Kubeconfig::read_from(cluster_dir.join("kubeconfig")).expect("kubeconfig");
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("config");
    config.connect_timeout = Some(Duration::from_secs(2));
    config.read_timeout = Some(Duration::from_secs(10));
    kube::Client::try_from(config).expect("client")
}

impl Writer {
    fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, dir) = (Arc::clone(&stop), cluster.data().to_owned());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let api: kube::Api<ConfigMap> = kube::Api::namespaced(client(&dir).await, "default");
                let mut acknowledged = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(100));
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                for number in 0u64.. {
                    pace.tick().await;
                    if flag.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("write-{number}");
                    let object: ConfigMap = serde_json::from_value(json!({
                        "metadata": {"name": name, "labels": {"written": "yes"}},
                        "data": {"number": number.to_string()},
                    }))
                    .expect("a ConfigMap");
                    // What fails was not acknowledged; it may or may not be there afterwards.
                    if api.create(&PostParams::default(), &object).await.is_ok() {
                        acknowledged.push(name);
                    }
                }
                acknowledged
            })
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer")
    }
}

/// Container ids with their restart counts, of the Deployment's pods.
fn containers(cluster: &Cluster) -> BTreeSet<(String, i64)> {
    let text = cluster.kubectl("get pods -l app=web -o json").ok();
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        (
            status["containerID"].as_str().unwrap_or_default().to_owned(),
            status["restartCount"].as_i64().unwrap_or(-1),
        )
    };
    list["items"].as_array().expect("items").iter().map(of).collect()
}

fn status(cluster: &Cluster) -> Vec<Value> {
    serde_json::from_str(&cluster.coracle("status -o json").ok()).expect("JSON")
}

fn pid(rows: &[Value], name: &str) -> Option<u64> {
    rows.iter().find(|row| row["name"] == name)?["pid"].as_u64()
}

/// The one instance of a component that leads.
fn leader(cluster: &Cluster, component: &str, role: &str) -> String {
    wait_for(&format!("a {role} of {component}"), SOON, || {
        let rows = status(cluster);
        let found = rows
            .iter()
            .find(|r| r["name"].as_str().is_some_and(|n| n.starts_with(component)) && r["role"] == role);
        found.and_then(|row| row["name"].as_str()).map(str::to_owned).ok_or_else(|| format!("{rows:?}"))
    })
}

/// Kills a process and waits until the supervisor has started it again.
fn kill_and_wait(cluster: &Cluster, name: &str) {
    let before = pid(&status(cluster), name).unwrap_or_else(|| panic!("{name} runs"));
    cluster.coracle(&format!("kill {name}")).ok();
    wait_for(&format!("{name} runs again"), SOON, || match pid(&status(cluster), name) {
        Some(now) if now != before => Ok(()),
        other => Err(format!("pid {other:?}, was {before}")),
    });
}

fn deployment_is_at_its_count(cluster: &Cluster, replicas: u32) {
    cluster.kubectl(&format!("scale deployment web --replicas={replicas}")).ok();
    cluster.kubectl("rollout status deployment/web --timeout=120s").ok();
    wait_for("as many pods as asked for", SOON, || match containers(cluster).len() as u32 {
        count if count == replicas => Ok(()),
        count => Err(format!("{count} pods")),
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_components_are_killed() {
    let cluster = Cluster::up(&[]);
    cluster.kubectl("create deployment web --image=demo:v1 --replicas=3").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    let running = containers(&cluster);
    assert_eq!(running.len(), 3);
    let writer = Writer::start(&cluster);

    kill_and_wait(&cluster, &leader(&cluster, "etcd-lite", "leader"));
    kill_and_wait(&cluster, "apiserver-cp-a");
    kill_and_wait(&cluster, &leader(&cluster, "scheduler", "active"));
    kill_and_wait(&cluster, &leader(&cluster, "controller-manager", "active"));
    kill_and_wait(&cluster, "kubelet-node-a");
    assert_eq!(containers(&cluster), running, "containers go on while components are killed");
    // The successors work: more pods are made, bound and run.
    deployment_is_at_its_count(&cluster, 4);
    let running = containers(&cluster);

    kill_everything_but_containerd(&cluster);
    cluster.coracle("up").ok();
    assert!(running.is_subset(&containers(&cluster)), "containers go on without any Coracle process");
    deployment_is_at_its_count(&cluster, 5);

    let acknowledged = writer.finish();
    assert!(acknowledged.len() > 50, "the writer was at work: {}", acknowledged.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let stored: BTreeSet<String> = runtime.block_on(async {
        let api: kube::Api<ConfigMap> = kube::Api::namespaced(client(cluster.data()).await, "default");
        let list = api.list(&ListParams::default().labels("written=yes")).await.expect("list");
        list.items.into_iter().filter_map(|object| object.metadata.name).collect()
    });
    let missing: Vec<&String> = acknowledged.iter().filter(|name| !stored.contains(*name)).collect();
    assert!(missing.is_empty(), "acknowledged but not stored: {missing:?}");
}

fn kill_everything_but_containerd(cluster: &Cluster) {
    let rows = status(cluster);
    let ours = |row: &&Value| row["name"].as_str().is_some_and(|name| !name.starts_with("containerd"));
    let mut pids: Vec<u64> = rows.iter().filter(ours).filter_map(|row| row["pid"].as_u64()).collect();
    // The supervisor first, so that it starts nothing again.
    pids.sort_by_key(|p| Some(*p) != pid(&rows, "supervisor"));
    assert!(pids.len() > 10, "{rows:?}");
    for pid in pids {
        let pid = nix::unistd::Pid::from_raw(pid as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    }
}
