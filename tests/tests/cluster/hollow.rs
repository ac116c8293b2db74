//! Clusters of hollow nodes: no root and no containerd needed, many nodes, several clusters side by side.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::{binaries, run};
use coracle_tests::wait::wait_for;
use serde_json::Value;

#[test]
fn two_hollow_clusters_live_side_by_side() {
    let first = Cluster::up(&["--runtime", "hollow", "--nodes", "6"]);
    let second = Cluster::up(&["--runtime", "hollow", "--nodes", "2", "--zones", "x,y"]);
    for (cluster, nodes) in [(&first, 6), (&second, 2)] {
        assert_eq!(cluster.kubectl("get nodes -o name").ok().lines().count(), nodes);
    }
    first.kubectl("create deployment web --image=anything:v1 --replicas=30").ok();
    first.kubectl("rollout status deployment/web --timeout=90s").ok();
    assert!(second.kubectl("get deployment web").err().contains("not found"));
    let exec = first.kubectl("exec deploy/web -- ls").err();
    assert!(exec.contains("hollow"), "what is simulated says so: {exec}");

    wait_for("the metrics server is registered", Duration::from_secs(60), || {
        first
            .kubectl("wait --for=condition=Available apiservice/v1beta1.metrics.k8s.io --timeout=1s")
            .result()
    });
    let top = first.kubectl("top nodes").err();
    assert!(top.contains("metrics not available yet"), "hollow nodes use nothing: {top}");

    let pids: Vec<u64> = serde_json::from_str::<Vec<Value>>(&first.coracle("status -o json").ok())
        .expect("JSON")
        .iter()
        .filter_map(|row| row["pid"].as_u64())
        .collect();
    assert!(pids.len() > 10);
    first.coracle("down").ok();
    let alive = |pid: &&u64| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    assert_eq!(pids.iter().filter(alive).count(), 0, "down ends every process");
    first.coracle("up").ok();
    wait_for("the Deployment is there again", Duration::from_secs(60), || {
        let web = first.kubectl("get deployment web -o jsonpath={.status.availableReplicas}").result()?;
        if web == "30" { Ok(()) } else { Err(web) }
    });
    assert!(second.kubectl("get nodes").success, "the other cluster was left alone");
}

#[test]
fn wrong_use_of_the_launcher_is_explained() {
    let coracle =
        |arguments: &[&str]| run(std::process::Command::new(binaries().join("coracle")).args(arguments));
    let data = tempfile::tempdir().expect("dir");
    let data = data.path().to_str().expect("path");
    for (arguments, expected) in [
        (&["up", "--no-such-flag"][..], "unknown flag: --no-such-flag"),
        (&["status", "--data", data], "there is no cluster in"),
        (&["up", "--nodes", "0", "--runtime", "hollow", "--data", data], "--nodes"),
        (&["up", "--zones", "a,a", "--runtime", "hollow", "--data", data], "twice"),
        (&["up", "--data", "/tmp/with space"], "without spaces"),
        (&["logs", "kubelet", "--data", data], "there is no cluster in"),
    ] {
        let said = coracle(arguments).err();
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    std::fs::write(format!("{data}/cluster.json"), "{").expect("write");
    assert!(coracle(&["status", "--data", data]).err().contains("is damaged"));
}
