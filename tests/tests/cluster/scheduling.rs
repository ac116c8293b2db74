//! The scheduler end to end on hollow nodes: who gets a node, who has to leave for it, and who decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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

impl Scheduler {
    /// Starts one beside the cluster's own, with this configuration.
    fn start(cluster: &Cluster, configuration: &str) -> Self {
        let file = cluster.data().join("scheduler.yaml");
        std::fs::write(&file, configuration).expect("configuration");
        let child = Command::new(binaries().join("scheduler"))
            .arg("--config")
            .arg(&file)
            .arg("--kubeconfig")
            .arg(cluster.data().join("kubeconfigs/scheduler-cp-a.conf"))
            .arg("--secure-port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the scheduler"))
    }
}

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
    let _scheduler = Scheduler::start(&cluster, PROFILES);
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

/// Answers the requests of one connection until it ends: path and body in, answer out.
fn serve(stream: TcpStream, answer: impl Fn(&str, Value) -> Value) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            match line.trim().to_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = answer(&path, serde_json::from_slice(&body).expect("JSON")).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all((head + &body).as_bytes()).ok()?;
    }
}

/// Two servers in one: `/harbour` knows the nodes, keeps pods off node-c, prefers node-b and binds; `/devices` manages a resource that only
/// node-a has.
fn extend(cluster: &Cluster, path: &str, question: &Value) -> Value {
    let pod = question["Pod"]["metadata"]["name"].as_str().unwrap_or_default();
    match path {
        "/harbour/filter" if pod == "caught" => json!({"Error": "a storm"}),
        "/harbour/filter" => {
            assert!(question["Nodes"].is_null(), "{question}");
            let names = question["NodeNames"].as_array().expect("names").iter();
            let passed: Vec<_> = names.filter(|name| *name != "node-c" && pod != "lost").collect();
            let failed = json!({"node-c": "no harbour"});
            // As one written in Go without tags may answer, too.
            json!({"nodenames": passed, "failedNodes": failed, "Error": ""})
        }
        "/harbour/prioritize" => json!([{"Host": "node-a", "Score": 0}, {"Host": "node-b", "Score": 10}]),
        "/harbour/bind" => {
            let (namespace, name) =
                (question["PodNamespace"].as_str(), question["PodName"].as_str().expect("name"));
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "uid": question["PodUID"]},
                "target": {"kind": "Node", "name": question["Node"]}});
            let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", namespace.expect("namespace"));
            let bound = cluster.kubectl_stdin(&format!("create --raw {path} -f -"), &binding.to_string());
            json!({"Error": if bound.success { "" } else { &bound.stderr }})
        }
        "/devices/filter" => {
            let nodes = question["Nodes"]["items"].as_array().expect("whole nodes").iter();
            let passed: Vec<_> = nodes.filter(|node| node["metadata"]["name"] == "node-a").collect();
            json!({"Nodes": {"metadata": {}, "items": passed}, "FailedNodes": {"node-b": "no boat"}})
        }
        other => panic!("{other}"),
    }
}

#[test]
fn extenders_filter_score_and_bind() {
    let cluster = Arc::new(Cluster::up(&["--runtime", "hollow", "--nodes", "3"]));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("address").port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, behind) = (Arc::clone(&asked), Arc::downgrade(&cluster));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (seen, behind) = (Arc::clone(&seen), behind.clone());
            std::thread::spawn(move || {
                serve(stream, |path, question| {
                    let cluster = behind.upgrade().expect("the test goes on");
                    seen.lock().expect("lock").push(path.to_owned());
                    extend(&cluster, path, &question)
                })
            });
        }
    });
    let _scheduler = Scheduler::start(
        &cluster,
        &format!(
            "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {{leaderElect: false}}
profiles: [{{schedulerName: guided}}]
extenders:
- {{urlPrefix: 'http://127.0.0.1:1/nobody', filterVerb: filter, ignorable: true}}
- {{urlPrefix: 'http://127.0.0.1:{port}/harbour', filterVerb: filter, prioritizeVerb: prioritize, weight: 100, bindVerb: bind, nodeCacheCapable: true}}
- urlPrefix: 'http://127.0.0.1:{port}/devices/'
  filterVerb: filter
  managedResources: [{{name: example.com/boat, ignoredByScheduler: true}}]
"
        ),
    );
    let guided = |name: &str, resources: Value| {
        let mut pod = pod(name, "", "100m");
        pod["spec"]["schedulerName"] = json!("guided");
        pod["spec"]["containers"][0]["resources"]["limits"] = resources.clone();
        create(&cluster, &pod);
    };
    let at = |name: &str, node: &str| shows(&cluster, &format!("pod/{name}"), "{.spec.nodeName}", node);
    guided("plain", json!({}));
    at("plain", "node-b");
    guided("sailor", json!({"example.com/boat": "1"}));
    at("sailor", "node-a");
    let asked = |path: &str| asked.lock().expect("lock").iter().filter(|seen| *seen == path).count();
    assert_eq!((asked("/harbour/bind"), asked("/devices/filter")), (2, 1), "only who is concerned is asked");
    let told = |name: &str, expected: &str| {
        let condition = ".status.conditions[?(@.type==\"PodScheduled\")]";
        let path = format!("{{{condition}.reason}}:{{{condition}.message}}");
        wait_for(&format!("{name} is told {expected}"), DEADLINE, || {
            let seen = cluster.kubectl(&format!("get pod {name} -o jsonpath={path}")).result()?;
            if seen.starts_with(expected) { Ok(()) } else { Err(seen) }
        });
    };
    guided("lost", json!({}));
    told("lost", "Unschedulable:0/3 nodes are available: 1 no harbour.");
    guided("caught", json!({}));
    told("caught", "SchedulerError:a storm");
}

#[test]
fn a_gang_gets_its_nodes_together_or_not_at_all() {
    let cluster = Cluster::up(&[
        "--runtime",
        "hollow",
        "--nodes",
        "2",
        "--component-flag=apiserver:--runtime-config=scheduling.k8s.io/v1alpha1=true",
        "--component-flag=apiserver:--feature-gates=GenericWorkload=true",
        "--component-flag=scheduler:--feature-gates=GenericWorkload=true,GangScheduling=true",
    ]);
    let cpu = most_of_a_node(&cluster);
    let member = |name: &str, workload: &str, cpu: &str| {
        let mut pod = pod(name, "", cpu);
        pod["metadata"]["labels"]["gang"] = json!(workload);
        pod["spec"]["workloadRef"] = json!({"name": workload, "podGroup": "workers"});
        create(&cluster, &pod);
    };
    let workload = |name: &str, minimum: u32| {
        let workload = json!({
            "apiVersion": "scheduling.k8s.io/v1alpha1", "kind": "Workload", "metadata": {"name": name},
            "spec": {"podGroups": [{"name": "workers", "policy": {"gang": {"minCount": minimum}}}]},
        });
        create(&cluster, &workload);
    };
    let big = "pods -l gang=big";
    // Two of three fit: none is bound.
    for name in ["big-a", "big-b", "big-c"] {
        member(name, "big", &cpu);
    }
    workload("big", 3);
    let reasons = "{.items[*].status.conditions[?(@.type==\"PodScheduled\")].message}";
    let message = "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, \
                   preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    shows(&cluster, big, reasons, message);
    create(&cluster, &pod("single", "", "100m"));
    shows(&cluster, "pod/single", "{.status.phase}", "Running");
    shows(&cluster, big, "{.items[*].spec.nodeName}", "");
    // With one smaller member they all fit.
    cluster.kubectl("delete pods -l gang=big --wait").ok();
    for name in ["big-d", "big-e"] {
        member(name, "big", &cpu);
    }
    let seen = cluster.coracle("why pod/big-d").ok();
    assert!(seen.contains("waiting for minCount pods from a gang"), "{seen}");
    shows(&cluster, big, "{.items[*].spec.nodeName}", "");
    member("big-f", "big", "100m");
    shows(&cluster, big, "{.items[*].status.phase}", "Running Running Running");
    // What the group no longer needs is scheduled as it comes; a pod without a workload waits for it.
    member("big-g", "big", "100m");
    shows(&cluster, "pod/big-g", "{.status.phase}", "Running");
    member("late", "later", "100m");
    let seen = cluster.coracle("why pod/late").ok();
    assert!(seen.contains("waiting for pods's workload \"later\" to appear"), "{seen}");
    workload("later", 1);
    shows(&cluster, "pod/late", "{.status.phase}", "Running");
}
