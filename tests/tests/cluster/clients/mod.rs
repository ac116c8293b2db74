//! Clients other than kubectl: helm, the official clients for Python and Node.js, kube-rs, etcdctl. They share one cluster with real
//! containers, each in namespaces of its own, and work side by side.

mod helm;
mod kube_rs;

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::{client, run};

/// A client's name, and all that it does.
type Client = (&'static str, fn(&Cluster));

#[test]
fn clients_that_are_not_ours_work() {
    let cluster = Cluster::up(&[]);
    let clients: [Client; 5] = [
        ("helm", helm::a_release_lives),
        ("python", python_client),
        ("node", node_client),
        ("kube-rs", kube_rs::a_controller_lives),
        ("etcdctl", etcdctl_reads_and_writes),
    ];
    thread::scope(|scope| {
        let named = |&(name, client): &Client| {
            let cluster = &cluster;
            thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, move || client(cluster))
                .expect(name)
        };
        // All of them run to their end; a failure is told by the thread's name.
        let running: Vec<_> = clients.iter().map(named).collect();
        let ended: Vec<_> = running.into_iter().map(thread::ScopedJoinHandle::join).collect();
        if let Some(failure) = ended.into_iter().find_map(Result::err) {
            resume_unwind(failure);
        }
    });
    // Nobody makes or removes definitions any more.
    python(&cluster, &["dynamic_client", "files"]);
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

/// Parts of `clients/python`, side by side in one interpreter.
fn python_client(cluster: &Cluster) {
    python(cluster, &[]);
}

fn python(cluster: &Cluster, which: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/main.py");
    let mut command = Command::new(client("python/bin/python"));
    command.arg("-B").arg(script).arg(cluster.data().join("kubeconfig")).args(which);
    println!("{}", run(&mut command).ok());
}

/// The story in `clients/node`.
fn node_client(cluster: &Cluster) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/node/main.mjs");
    let mut command = Command::new(client("node/bin/node"));
    command.arg(script).arg(cluster.data().join("kubeconfig")).arg(client("node"));
    assert_eq!(run(&mut command).ok().trim(), "ok");
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
