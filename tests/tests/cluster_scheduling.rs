//! The scheduler end to end on hollow nodes: who gets a node, who has to leave for it, and who decides.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::binaries;
use coracle_tests::wait::wait_for;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

fn shows(cluster: &Cluster, what: &str, path: &str, expected: &str) {
    wait_for(&format!("{what} shows {expected} at {path}"), DEADLINE, || {
        let found = cluster.kubectl(&format!("get {what} -o jsonpath={path}")).result()?;
        if found == expected { Ok(()) } else { Err(found) }
    });
}

fn create(cluster: &Cluster, object: &Value) {
    cluster.kubectl_stdin("create -f -", &object.to_string()).ok();
}

/// A pod of this class (or of none) that requests this much CPU.
fn pod(name: &str, class: &str, cpu: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "anything:v1", "resources": {"requests": {"cpu": cpu}}}],
        },
    });
    if !class.is_empty() {
        pod["spec"]["priorityClassName"] = json!(class);
    }
    pod
}

/// CPU that takes more than half of a node, in millicores.
fn most_of_a_node(cluster: &Cluster) -> String {
    let cpu = cluster.kubectl("get node node-a -o jsonpath={.status.allocatable.cpu}").ok();
    let milli: u64 = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse().expect("millicores"),
        None => cpu.parse::<u64>().expect("cores") * 1000,
    };
    format!("{}m", milli * 6 / 10)
}

#[test]
fn pods_of_lower_priority_make_room() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "2"]);
    for (class, value, policy) in [
        ("low", 1, "PreemptLowerPriority"),
        ("mid", 10, "PreemptLowerPriority"),
        ("polite", 100, "Never"),
        ("high", 100, "PreemptLowerPriority"),
    ] {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": class}, "value": value, "preemptionPolicy": policy,
        });
        create(&cluster, &class);
    }
    let cpu = most_of_a_node(&cluster);
    create(&cluster, &pod("first", "low", &cpu));
    create(&cluster, &pod("second", "mid", &cpu));
    for name in ["first", "second"] {
        shows(&cluster, &format!("pod/{name}"), "{.status.phase}", "Running");
    }
    let room = cluster.kubectl("get pod first -o jsonpath={.spec.nodeName}").ok();

    create(&cluster, &pod("patient", "polite", &cpu));
    let refusal = "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, \
                   preemption: not eligible due to preemptionPolicy=Never.";
    shows(&cluster, "pod/patient", "{.status.conditions[?(@.type==\"PodScheduled\")].message}", refusal);

    // The victim stays to be looked at.
    cluster
        .kubectl("patch pod first --type=merge -p '{\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}'")
        .ok();
    create(&cluster, &pod("urgent", "high", &cpu));
    let condition = "{.status.conditions[?(@.type==\"DisruptionTarget\")]";
    shows(&cluster, "pod/first", &format!("{condition}.reason}}"), "PreemptionByScheduler");
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    shows(&cluster, "pod/first", &format!("{condition}.message}}"), message);
    let urgent_uid = cluster.kubectl("get pod urgent -o jsonpath={.metadata.uid}").ok();
    let preempted = "events --field-selector=reason=Preempted,involvedObject.name=first";
    shows(
        &cluster,
        preempted,
        "{.items[*].message}",
        &format!("Preempted by pod {urgent_uid} on node {room}"),
    );
    cluster.kubectl("patch pod first --type=merge -p '{\"metadata\":{\"finalizers\":null}}'").ok();
    shows(&cluster, "pod/urgent", "{.spec.nodeName}", &room);
    shows(&cluster, "pod/second", "{.status.phase}", "Running");
    shows(&cluster, "pod/patient", "{.status.phase}", "Pending");
}

#[test]
fn replicas_that_keep_apart_get_a_node_each() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "3"]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "apart"},
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "apart"}},
            "template": {
                "metadata": {"labels": {"app": "apart"}},
                "spec": {
                    "containers": [{"name": "c", "image": "anything:v1"}],
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}]}},
                },
            },
        },
    });
    create(&cluster, &deployment);
    shows(&cluster, "deployment/apart", "{.status.readyReplicas}", "3");
    let mut nodes: Vec<String> = cluster
        .kubectl("get pods -l app=apart --field-selector=status.phase=Running -o jsonpath={.items[*].spec.nodeName}")
        .ok()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["node-a", "node-b", "node-c"]);
    let waiting = "pods -l app=apart --field-selector=status.phase=Pending";
    shows(
        &cluster,
        waiting,
        "{.items[*].status.conditions[?(@.type==\"PodScheduled\")].message}",
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, \
         preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.",
    );
    // A pod that wants to be near one of them follows it; one that leaves makes room for the fourth.
    let mut friend = pod("friend", "", "10m");
    friend["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "late"}}}]}});
    create(&cluster, &friend);
    shows(
        &cluster,
        "pod/friend",
        "{.status.conditions[?(@.type==\"PodScheduled\")].reason}",
        "Unschedulable",
    );
    let mut late = pod("late", "", "10m");
    late["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-b"});
    create(&cluster, &late);
    shows(&cluster, "pod/friend", "{.spec.nodeName}", "node-b");
    cluster.kubectl("scale deployment apart --replicas=3").ok();
    shows(&cluster, waiting, "{.items}", "[]");
}

/// A scheduler beside those of the cluster, ended with the test.
struct Scheduler(Child);

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PROFILES: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
profiles:
- schedulerName: packer
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}, {name: PodTopologySpread}]
- schedulerName: careless
  plugins:
    multiPoint:
      disabled: [{name: NodeUnschedulable}, {name: TaintToleration}]
";

#[test]
fn each_profile_decides_for_the_pods_that_name_it() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "3"]);
    let file = cluster.data().join("profiles.yaml");
    std::fs::write(&file, PROFILES).expect("configuration");
    let _scheduler = Scheduler(
        Command::new(binaries().join("scheduler"))
            .arg("--config")
            .arg(&file)
            .arg("--kubeconfig")
            .arg(cluster.data().join("kubeconfigs/scheduler-cp-a.conf"))
            .arg("--secure-port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the scheduler"),
    );
    let by = |name: &str, scheduler: &str| {
        let mut pod = pod(name, "", "100m");
        pod["spec"]["schedulerName"] = json!(scheduler);
        pod
    };
    let node_of = |name: &str| {
        shows(&cluster, &format!("pod/{name}"), "{.status.phase}", "Running");
        cluster.kubectl(&format!("get pod {name} -o jsonpath={{.spec.nodeName}}")).ok()
    };
    for index in 0..4 {
        create(&cluster, &by(&format!("packed-{index}"), "packer"));
        node_of(&format!("packed-{index}"));
    }
    let nodes: std::collections::BTreeSet<_> =
        (0..4).map(|index| node_of(&format!("packed-{index}"))).collect();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    cluster.kubectl("cordon node-a node-b node-c").ok();
    create(&cluster, &by("usual", "default-scheduler"));
    create(&cluster, &by("bold", "careless"));
    node_of("bold");
    let message = "{.status.conditions[?(@.type==\"PodScheduled\")].message}";
    wait_for("the usual pod waits for a node that is not cordoned", DEADLINE, || {
        let seen = cluster.kubectl(&format!("get pod usual -o jsonpath={message}")).result()?;
        if seen.starts_with("0/3 nodes are available: 3 node(s) were unschedulable.") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    // The event says who decided.
    shows(
        &cluster,
        "events --field-selector=reason=Scheduled,involvedObject.name=bold",
        "{.items[*].reportingComponent}",
        "careless",
    );
}
