//! The workload controllers on real containers: what is checked is what the containers did, by their logs, their exit codes, the files they wrote
//! and what containerd has, and not only what the API says. One cluster carries all walks, each in a namespace of its own and at the same time;
//! `node-c` is kept free for the walks that empty a node or fill it.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::run;
use coracle_tests::wait::wait_for;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);
/// A schedule of every minute fires within one; the rest is the machine's.
const NEXT_MINUTE: Duration = Duration::from_secs(150);
/// Two rounds of measuring of 15 s each that lie behind what is to be seen, and one of looking at them of as long; the rest is the machine's.
const MEASURED: Duration = Duration::from_secs(150);

#[test]
fn workloads_run_and_end_as_asked_on_real_containers() {
    let cluster = Cluster::up(&["--nodes", "3", "--runtime", "containerd"]);
    cluster.kubectl("taint node node-c walk=alone:NoSchedule").ok();
    let walks: [(&str, Steps); 8] = [
        ("stateful", a_stateful_set_keeps_order_names_and_volumes),
        ("daemons", a_daemon_set_replaces_its_containers_node_by_node),
        ("jobs", jobs_follow_exit_codes),
        ("cron", a_cron_job_fires),
        ("garbage", deletion_waits_for_containers_or_leaves_them),
        ("load", a_deployment_grows_under_load_and_shrinks_after_it),
        ("meters", metrics_are_for_those_who_may_read_them),
        ("node-c", a_node_is_emptied_within_a_budget_and_filled_by_priority),
    ];
    thread::scope(|scope| {
        for (namespace, walk) in walks {
            let cluster = &cluster;
            scope.spawn(move || {
                cluster.kubectl(&format!("create namespace {namespace}")).ok();
                walk(&Walk { cluster, namespace });
            });
        }
    });
}

type Steps = fn(&Walk);

/// One walk: the cluster through a namespace.
struct Walk<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

impl Walk<'_> {
    #[track_caller]
    fn kubectl(&self, arguments: &str) -> String {
        self.cluster.kubectl(&format!("-n {} {arguments}", self.namespace)).ok()
    }

    #[track_caller]
    fn create(&self, object: &Value) {
        self.cluster.kubectl_stdin(&format!("-n {} create -f -", self.namespace), &object.to_string()).ok();
    }

    #[track_caller]
    fn get(&self, what: &str) -> Value {
        let text = self.kubectl(&format!("get {what} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"))
    }

    /// Waits until `check` finds what it looks for in `kubectl get WHAT`.
    fn until<T>(&self, what: &str, wanted: &str, check: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(wanted, SOON, || {
            let arguments = format!("-n {} get {what} -o json", self.namespace);
            let text = self.cluster.kubectl(&arguments).result()?;
            let seen: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            check(&seen).ok_or(text)
        })
    }

    /// Pods of a label, by name.
    #[track_caller]
    fn pods(&self, label: &str) -> Vec<Value> {
        let mut pods = items(&self.get(&format!("pods -l {label}"))).to_vec();
        pods.sort_by_key(|pod| name(pod).to_owned());
        pods
    }

    /// Whether containerd, on the node, runs this container.
    fn runs(&self, container: &Container) -> Result<bool, String> {
        let tasks = self.ctr(&container.node, "tasks ls")?;
        let line = tasks.lines().find(|line| line.starts_with(&container.id));
        Ok(line.is_some_and(|line| line.ends_with("RUNNING")))
    }

    /// Waits until containerd has removed the container.
    fn gone(&self, container: &Container) {
        wait_for(&format!("{container:?} is gone"), SOON, || {
            let all = self.ctr(&container.node, "containers ls -q")?;
            if all.contains(&container.id) { Err(all) } else { Ok(()) }
        });
    }

    fn ctr(&self, node: &str, arguments: &str) -> Result<String, String> {
        let socket: PathBuf = self.cluster.data().join(format!("nodes/{node}/containerd.sock"));
        let words = arguments.split(' ');
        run(Command::new("ctr").arg("--address").arg(socket).args(["-n", "k8s.io"]).args(words)).result()
    }

    /// The first process of a container, as the machine numbers it.
    fn pid(&self, container: &Container) -> i32 {
        let tasks = self.ctr(&container.node, "tasks ls").expect("tasks");
        let line = tasks.lines().find(|line| line.starts_with(&container.id)).expect("the container's task");
        line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a process id")
    }
}

/// Where a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    id: String,
    node: String,
}

/// The only container of a pod.
fn container(pod: &Value) -> Container {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let id =
        id.strip_prefix("containerd://").unwrap_or_else(|| panic!("a real container: {}", pod["status"]));
    Container { id: id.to_owned(), node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned() }
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn ended(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["terminated"]
}

/// The reason of a condition that holds.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let all = object["status"]["conditions"].as_array()?;
    let holds = |condition: &&Value| condition["type"] == kind && condition["status"] == "True";
    all.iter().find(holds)?["reason"].as_str().or(Some(""))
}

/// A pod's spec whose one container runs a script of the demo image's shell.
fn script(text: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "demo:v1", "command": ["sh", "-c", text]}],
    })
}

fn template(app: &str, spec: &Value) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": spec})
}

/// When a container's first line says that it began, in seconds.
fn began(log: &str) -> f64 {
    let first = log.lines().next().unwrap_or_default();
    first.parse().unwrap_or_else(|_| panic!("a time in the first line: {log}"))
}

fn a_stateful_set_keeps_order_names_and_volumes(walk: &Walk) {
    const REPLICAS: usize = 3;
    let directory = |index: usize| walk.cluster.data().join(format!("volume-{index}"));
    for index in 0..REPLICAS {
        std::fs::create_dir(directory(index)).expect("directory");
        walk.create(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("db-{index}")}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": directory(index)},
            "claimRef": {"namespace": walk.namespace, "name": format!("data-db-{index}")},
        }}));
    }
    // Ready a second after it began, so that an order of starting shows in the logs.
    let mut spec =
        script("date; hostname; echo $POD >> /data/names; sleep 1; touch /state/ready; sleep infinity");
    spec["containers"][0]["env"] =
        json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["cat", "/state/ready"]}, "periodSeconds": 1});
    spec["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "state", "mountPath": "/state"}]);
    spec["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    walk.create(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]}}));
    walk.create(&json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "replicas": REPLICAS, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template("db", &spec),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}],
    }}));
    walk.kubectl("rollout status statefulset/db --timeout=90s");
    let pods = walk.pods("app=db");
    assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), ["db-0", "db-1", "db-2"]);
    let logs: Vec<String> = pods.iter().map(|pod| walk.kubectl(&format!("logs {}", name(pod)))).collect();
    for (pod, log) in pods.iter().zip(&logs) {
        assert_eq!(log.lines().nth(1), Some(name(pod)), "the name inside the container");
    }
    for pair in logs.windows(2) {
        let apart = began(&pair[1]) - began(&pair[0]);
        assert!(
            apart >= 1.0,
            "the next one begins when the one before is ready, not {apart} s after it: {logs:?}"
        );
    }

    // A process that dies is started again in the same pod; a pod that is deleted comes again under its name, on its volume.
    let killed = container(&pods[1]);
    let pid = walk.pid(&killed);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill");
    let again = walk.until("pod db-1", "the killed container runs again", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        (status["restartCount"] == 1 && status["ready"] == true).then(|| pod.clone())
    });
    assert_eq!(again["metadata"]["uid"], pods[1]["metadata"]["uid"]);
    assert_eq!(again["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    walk.kubectl("delete pod db-1");
    let new = walk.until("pod db-1", "the pod is made again and ready", |pod| {
        let is_new = pod["metadata"]["uid"] != pods[1]["metadata"]["uid"];
        (is_new && condition(pod, "Ready").is_some()).then(|| pod.clone())
    });
    walk.gone(&container(&again));
    assert_eq!(walk.runs(&container(&new)), Ok(true));
    let names =
        |index: usize| std::fs::read_to_string(directory(index).join("names")).expect("the volume's file");
    assert_eq!(names(0), "db-0\n");
    assert_eq!(names(1), "db-1\ndb-1\ndb-1\n", "begun, killed, deleted: one volume");

    walk.kubectl("scale statefulset db --replicas=1");
    walk.gone(&container(&pods[2]));
    walk.gone(&container(&new));
    assert_eq!(walk.runs(&container(&pods[0])), Ok(true));
    assert_eq!(items(&walk.get("pvc")).len(), REPLICAS, "claims stay");
}

fn a_daemon_set_replaces_its_containers_node_by_node(walk: &Walk) {
    let says = |word: &str| format!("date; echo {word}; sleep infinity");
    walk.create(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", &script(&says("one"))),
    }}));
    let on_nodes = |word: &str| {
        walk.kubectl("rollout status daemonset/agent --timeout=90s");
        let mut found: Vec<(Container, f64)> = Vec::new();
        for pod in walk.pods("app=agent") {
            let log = walk.kubectl(&format!("logs {}", name(&pod)));
            assert_eq!(log.lines().nth(1), Some(word));
            assert_eq!(walk.runs(&container(&pod)), Ok(true));
            found.push((container(&pod), began(&log)));
        }
        found.sort_by(|a, b| a.0.node.cmp(&b.0.node));
        let nodes: Vec<&str> = found.iter().map(|(container, _)| container.node.as_str()).collect();
        assert_eq!(nodes, ["node-a", "node-b"], "not where the taint is not tolerated");
        found
    };
    let before = on_nodes("one");
    // One at a time, each available for two seconds before the next.
    let command = json!(["sh", "-c", says("two")]);
    let patch = json!({"spec": {"minReadySeconds": 2, "template": {"spec": {"containers": [{"name": "main", "command": command}]}}}});
    walk.kubectl(&format!("patch daemonset agent -p '{patch}'"));
    let after = on_nodes("two");
    let apart = (after[0].1 - after[1].1).abs();
    assert!(apart >= 2.0, "one node after the other, not {apart} s apart");
    for (container, _) in &before {
        walk.gone(container);
    }
    walk.kubectl("delete daemonset agent --timeout=60s");
    for (container, _) in &after {
        walk.gone(container);
    }
}

fn job(name: &str, text: &str, more: &Value) -> Value {
    let mut spec = script(text);
    spec["restartPolicy"] = "Never".into();
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": spec}}});
    for (key, value) in more.as_object().expect("fields") {
        job["spec"][key] = value.clone();
    }
    job
}

fn jobs_follow_exit_codes(walk: &Walk) {
    walk.create(&job("counted", "echo done", &json!({"completions": 3, "parallelism": 2})));
    let indexed = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    walk.create(&job("indexed", "echo index $JOB_COMPLETION_INDEX; hostname", &indexed));
    walk.create(&job("failing", "echo no; exit 3", &json!({"backoffLimit": 1})));
    let policy = json!({"backoffLimit": 6, "podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}}]}});
    walk.create(&job("hopeless", "exit 42", &policy));
    // Fails once, and finds that out when its container is started again in the same pod.
    let mut stubborn =
        job("stubborn", "if cat /state/tried; then exit 0; fi; touch /state/tried; exit 7", &json!({}));
    let spec = &mut stubborn["spec"]["template"]["spec"];
    spec["restartPolicy"] = "OnFailure".into();
    spec["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    walk.create(&stubborn);

    walk.kubectl("wait --for=condition=Complete job/counted job/indexed job/stubborn --timeout=90s");
    let logs = walk.kubectl("logs -l job-name=counted --tail=-1");
    assert_eq!(logs, "done\ndone\ndone\n");
    assert_eq!(walk.get("job counted")["status"]["succeeded"], 3);

    let pods = walk.pods("job-name=indexed");
    assert_eq!(pods.len(), 3);
    for (index, pod) in pods.iter().enumerate() {
        let log = walk.kubectl(&format!("logs {}", name(pod)));
        assert_eq!(log, format!("index {index}\nindexed-{index}\n"), "its index and its host name");
        assert_eq!(ended(pod)["exitCode"], 0);
    }
    assert_eq!(walk.get("job indexed")["status"]["completedIndexes"], "0-2");

    let pods = walk.pods("job-name=stubborn");
    let status = &pods[0]["status"]["containerStatuses"][0];
    assert_eq!(
        (pods.len(), &status["restartCount"], &ended(&pods[0])["exitCode"]),
        (1, &1.into(), &0.into())
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 7);

    walk.kubectl("wait --for=condition=Failed job/failing job/hopeless --timeout=90s");
    let codes = |job: &str| -> Vec<Value> {
        walk.pods(&format!("job-name={job}")).iter().map(|pod| ended(pod)["exitCode"].clone()).collect()
    };
    assert_eq!(codes("failing"), [3, 3], "tried again once");
    assert_eq!(condition(&walk.get("job failing"), "Failed"), Some("BackoffLimitExceeded"));
    assert_eq!(codes("hopeless"), [42], "not tried again");
    assert_eq!(condition(&walk.get("job hopeless"), "Failed"), Some("PodFailurePolicy"));
}

fn a_cron_job_fires(walk: &Walk) {
    let mut spec = script("date; echo tick");
    spec["restartPolicy"] = "Never".into();
    walk.create(&json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": {
        "schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": spec}}}}}));
    walk.kubectl("create job by-hand --from=cronjob/tick");
    walk.kubectl("wait --for=condition=Complete job/by-hand --timeout=90s");
    assert!(walk.kubectl("logs job/by-hand").ends_with("tick\n"));
    let job = wait_for("the schedule fires", NEXT_MINUTE, || {
        let text = walk.kubectl("get cronjob tick -o jsonpath={.status.lastScheduleTime}");
        let jobs = walk.get("jobs");
        let made = items(&jobs).iter().find(|job| name(job).starts_with("tick-"));
        made.cloned().ok_or(format!("last fired {text:?}"))
    });
    walk.kubectl(&format!("wait --for=condition=Complete job/{} --timeout=90s", name(&job)));
    // The name of a Job tells its minute, and so does the annotation.
    let minute: f64 = name(&job).trim_start_matches("tick-").parse().expect("minutes since 1970");
    let log = walk.kubectl(&format!("logs job/{}", name(&job)));
    let late = began(&log) - minute * 60.0;
    assert!((0.0..60.0).contains(&late), "the container began {late} s after its minute");
    walk.kubectl("delete cronjob tick --timeout=60s");
    wait_for("its Jobs go with it", SOON, || {
        let left = walk.kubectl("get jobs,pods -o name");
        if left.contains("tick-") { Err(left) } else { Ok(()) }
    });
}

fn deployment(walk: &Walk, app: &str, spec: &Value, replicas: usize) -> Vec<Value> {
    walk.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template(app, spec)}}));
    walk.kubectl(&format!("rollout status deployment/{app} --timeout=90s"));
    let pods = walk.pods(&format!("app={app}"));
    assert_eq!(pods.len(), replicas);
    pods
}

fn deletion_waits_for_containers_or_leaves_them(walk: &Walk) {
    // Hears no SIGTERM, so it lives for its whole grace period.
    let mut deaf = script("sleep infinity");
    deaf["terminationGracePeriodSeconds"] = 8.into();
    let pods = deployment(walk, "front", &deaf, 2);
    walk.kubectl("delete deployment front --cascade=foreground --wait=false");
    let front = walk.get("deployment front");
    assert_eq!(front["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    walk.kubectl("wait --for=delete deployment/front --timeout=90s");
    assert_eq!(items(&walk.get("replicasets,pods -l app=front")).len(), 0, "dependents go first");
    for pod in &pods {
        assert_eq!(walk.runs(&container(pod)), Ok(false), "nothing runs once the owner is gone");
        walk.gone(&container(pod));
    }

    let pods = deployment(walk, "left", &script("sleep infinity"), 2);
    walk.kubectl("delete deployment left --cascade=orphan");
    walk.kubectl("delete replicaset -l app=left --cascade=orphan");
    wait_for("nobody owns the pods", SOON, || {
        let owners = walk.kubectl("get pods -l app=left -o jsonpath={.items[*].metadata.ownerReferences}");
        if owners.is_empty() { Ok(()) } else { Err(owners) }
    });
    // A Deployment of the same selector takes them over as they are.
    let taken = deployment(walk, "left", &script("sleep infinity"), 2);
    let containers = |pods: &[Value]| pods.iter().map(container).collect::<Vec<_>>();
    assert_eq!(containers(&taken), containers(&pods), "the same containers under a new owner");
    for pod in &pods {
        assert_eq!(walk.runs(&container(pod)), Ok(true));
    }
    walk.kubectl("delete deployment left");
    for pod in &pods {
        walk.gone(&container(pod));
    }
}

fn a_node_is_emptied_within_a_budget_and_filled_by_priority(walk: &Walk) {
    let tolerations = json!([{"key": "walk", "value": "alone", "effect": "NoSchedule"}]);
    let mut spec = script("sleep infinity");
    spec["tolerations"] = tolerations.clone();
    let here = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-c"]}]});
    spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]}});
    let pods = deployment(walk, "kept", &spec, 2);
    let containers: Vec<Container> = pods.iter().map(container).collect();
    assert!(containers.iter().all(|container| container.node == "node-c"), "{containers:?}");
    walk.create(
        &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "kept"}}}}),
    );
    walk.until("pdb kept", "the budget counts its pods", |budget| {
        (budget["status"]["currentHealthy"] == 2 && budget["status"]["disruptionsAllowed"] == 0).then_some(())
    });
    let refused = walk.cluster.kubectl("drain node-c --ignore-daemonsets --timeout=8s").err();
    assert!(
        refused.contains("Cannot evict pod as it would violate the pod's disruption budget"),
        "{refused}"
    );
    for container in &containers {
        assert_eq!(walk.runs(container), Ok(true), "the budget holds the containers");
    }
    walk.kubectl("patch pdb kept -p '{\"spec\":{\"minAvailable\":1}}'");
    walk.cluster.kubectl("drain node-c --ignore-daemonsets --timeout=90s").ok();
    for container in &containers {
        walk.gone(container);
    }
    walk.kubectl("rollout status deployment/kept --timeout=90s");
    let moved: Vec<Container> = walk.pods("app=kept").iter().map(container).collect();
    assert_eq!(moved.len(), 2);
    assert!(moved.iter().all(|container| container.node != "node-c"), "{moved:?}");
    assert_eq!(walk.runs(&moved[0]), Ok(true));
    walk.cluster.kubectl("uncordon node-c").ok();

    // Two pods that want more than half of the node each.
    let cpu = walk.get("node node-c")["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_owned();
    let milli: u64 = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse().expect("milli CPU"),
        None => cpu.parse::<u64>().expect("CPUs") * 1000,
    };
    let amount = format!("{}m", milli * 6 / 10);
    let pod = |name: &str, class: &str| {
        let mut spec = script("echo here; sleep infinity");
        spec["tolerations"] = tolerations.clone();
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": "node-c"});
        spec["priorityClassName"] = class.into();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": amount}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    };
    for (class, value) in [("low", 1), ("high", 1000)] {
        walk.create(&json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": value}));
    }
    walk.create(&pod("humble", "low"));
    walk.kubectl("wait --for=condition=Ready pod/humble --timeout=90s");
    let victim = container(&walk.get("pod humble"));
    walk.create(&pod("urgent", "high"));
    walk.kubectl("wait --for=condition=Ready pod/urgent --timeout=90s");
    assert_eq!(walk.kubectl("logs urgent"), "here\n");
    assert_eq!(walk.runs(&victim), Ok(false), "the victim's process ended before its room was taken");
    walk.gone(&victim);
    let gone = walk.cluster.kubectl(&format!("-n {} get pod humble", walk.namespace)).err();
    assert!(gone.contains("not found"), "{gone}");
    let told = walk.kubectl("get events --field-selector=involvedObject.name=humble,reason=Preempted -o jsonpath={.items[*].message}");
    assert!(told.contains("Preempted by"), "{told:?}");
}

/// What `kubectl top` says of pods: CPU in thousandths, memory in MiB.
fn top(walk: &Walk, label: &str) -> Result<Vec<(u64, u64)>, String> {
    let arguments = format!("-n {} top pods -l {label} --no-headers", walk.namespace);
    let text = walk.cluster.kubectl(&arguments).result()?;
    let number = |word: Option<&str>, unit: &str| word?.strip_suffix(unit)?.parse().ok();
    let row = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((number(words.next(), "m")?, number(words.next(), "Mi")?))
    };
    text.lines().map(|line| row(line).ok_or_else(|| text.clone())).collect()
}

fn a_deployment_grows_under_load_and_shrinks_after_it(walk: &Walk) {
    let directory = walk.cluster.data().join("load");
    std::fs::create_dir(&directory).expect("directory");
    let switch = directory.join("on");
    std::fs::write(&switch, "").expect("the switch");
    // Reads the empty file as fast as it can, as long as it is there.
    let mut spec = script("while true; do if cat /load/on; then true; else sleep 1; fi; done");
    let amounts = |cpu: &str| json!({"cpu": cpu, "memory": "32Mi"});
    spec["containers"][0]["resources"] = json!({"requests": amounts("100m"), "limits": amounts("200m")});
    spec["containers"][0]["volumeMounts"] = json!([{"name": "load", "mountPath": "/load"}]);
    spec["volumes"] = json!([{"name": "load", "hostPath": {"path": directory}}]);
    deployment(walk, "busy", &spec, 1);
    walk.create(&json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "busy"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
        "minReplicas": 1, "maxReplicas": 3,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }}));
    let used = wait_for("the load is measured", MEASURED, || match top(walk, "app=busy")?.first() {
        Some(used) if used.0 >= 120 => Ok(*used),
        other => Err(format!("{other:?}")),
    });
    assert!(used.0 <= 300 && used.1 <= 32, "not beyond the limits: {used:?}");
    let ready = |count: u32| {
        wait_for(&format!("{count} containers run"), MEASURED, || {
            let autoscaler = walk.get("hpa busy");
            let pods = walk.pods("app=busy");
            let running = pods.iter().filter(|pod| condition(pod, "Ready").is_some()).count();
            if running == count as usize && pods.len() == running {
                Ok(pods)
            } else {
                Err(format!("{running} of {} pods: {}", pods.len(), autoscaler["status"]))
            }
        })
    };
    let grown = ready(3);
    let told = walk.kubectl("get events --field-selector=involvedObject.name=busy,reason=SuccessfulRescale -o jsonpath={.items[*].message}");
    assert!(told.contains("cpu resource utilization (percentage of request) above target"), "{told:?}");
    for pod in &grown {
        assert_eq!(walk.runs(&container(pod)), Ok(true));
    }
    std::fs::remove_file(&switch).expect("the switch");
    let left = ready(1);
    for pod in grown.iter().filter(|pod| name(pod) != name(&left[0])) {
        walk.gone(&container(pod));
    }
    let now = top(walk, "app=busy").expect("still measured");
    assert!(now.iter().all(|(cpu, _)| *cpu < 60), "the load has ended: {now:?}");
}

/// The metrics server decides for itself who may read, also when it is asked directly.
fn metrics_are_for_those_who_may_read_them(walk: &Walk) {
    deployment(walk, "quiet", &script("sleep infinity"), 2);
    wait_for("both pods are measured", MEASURED, || match top(walk, "app=quiet")?.len() {
        2 => Ok(()),
        count => Err(format!("{count} pods")),
    });
    let nodes = walk.cluster.kubectl("top nodes --no-headers").ok();
    assert_eq!(
        nodes.lines().filter(|line| line.starts_with("node-") && line.contains('%')).count(),
        3,
        "{nodes}"
    );
    let metrics = walk.get(&format!("podmetrics.metrics.k8s.io -l app=quiet -n {}", walk.namespace));
    assert_eq!(items(&metrics)[0]["containers"][0]["name"], "main");
    assert!(walk.cluster.kubectl("explain podmetrics.containers.usage").ok().contains("What is used"));

    let commands = walk.cluster.coracle("status --commands").ok();
    let line = commands.lines().find(|line| line.starts_with("metrics-server ")).unwrap_or_default();
    let flag = |name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_else(|| panic!("{commands}"))
    };
    let server = format!("https://{}:{}", flag("--bind-address="), flag("--secure-port="));
    walk.kubectl("create serviceaccount reader");
    let token = walk.kubectl("create token reader");
    let ask = |token: &str| {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", walk.namespace);
        walk.cluster.kubectl(&format!(
            "--kubeconfig=/dev/null --server={server} --insecure-skip-tls-verify --token={token} get --raw {path}"
        ))
    };
    assert!(ask("nonsense").err().contains("Unauthorized"));
    let refused = ask(token.trim()).err();
    assert!(
        refused.contains(
            "pods.metrics.k8s.io is forbidden: User \"system:serviceaccount:meters:reader\" cannot list"
        ),
        "{refused}"
    );
    walk.kubectl("create rolebinding reader --clusterrole=view --serviceaccount=meters:reader");
    let list = wait_for("who may view may read metrics", SOON, || ask(token.trim()).result());
    assert!(list.contains("\"PodMetricsList\"") && list.contains("quiet-"), "{list}");
}
