//! What a user does with kubectl, on three nodes with real containers, by the oldest and the newest client that must work.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A child that ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(cluster: &Cluster, arguments: &str) -> Value {
    let text = cluster.kubectl(&format!("{arguments} -o json")).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}: {text}"))
}

fn pods_of(cluster: &Cluster, app: &str) -> Vec<String> {
    let list = json(cluster, &format!("get pods -l app={app} --field-selector=status.phase=Running"));
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("name").to_owned();
    let ending = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    list["items"].as_array().expect("items").iter().filter(ending).map(name).collect()
}

fn create_web(cluster: &Cluster) {
    cluster.kubectl("create deployment web --image=demo:v1 --replicas=3 --port=8080").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
}

#[test]
fn a_deployment_is_run_inspected_and_changed() {
    let mut cluster = Cluster::up(&[]);
    for minor in [27, 35] {
        cluster.use_kubectl(minor);
        nodes_are_in_three_zones(&cluster);
        create_web(&cluster);
        pods_spread_over_all_nodes(&cluster);
        pods_can_be_read(&cluster);
        services_are_reached(&cluster);
        deployments_roll_forward_and_back(&cluster);
        objects_are_changed_in_every_way(&cluster);
        config_map_changes_reach_the_pod(&cluster);
        bad_manifests_are_refused(&cluster);
        nodes_are_cordoned_and_drained(&cluster);
        deletion_cascades(&cluster);
    }
    discovery_and_explain(&cluster);
}

fn nodes_are_in_three_zones(cluster: &Cluster) {
    let table = cluster.kubectl("get nodes -o wide").ok();
    for node in ["node-a", "node-b", "node-c"] {
        let line =
            table.lines().find(|line| line.starts_with(node)).unwrap_or_else(|| panic!("{node} in {table}"));
        assert!(
            line.contains(" Ready ") && line.contains("v1.35.0") && line.contains("containerd://"),
            "{line}"
        );
    }
    let nodes = json(cluster, "get nodes");
    let zones: BTreeSet<&str> = nodes["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|node| node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str())
        .collect();
    assert_eq!(zones, BTreeSet::from(["a", "b", "c"]));
}

fn pods_spread_over_all_nodes(cluster: &Cluster) {
    let pods = json(cluster, "get pods -l app=web");
    let pods = pods["items"].as_array().expect("items");
    let nodes: BTreeSet<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    assert_eq!(nodes.len(), 3, "one pod a zone");
    let wide = cluster.kubectl("get pods -o wide").ok();
    assert_eq!(
        wide.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count(),
        3,
        "{wide}"
    );
}

fn pods_can_be_read(cluster: &Cluster) {
    let pod = &pods_of(cluster, "web")[0];
    let described = cluster.kubectl(&format!("describe pod {pod}")).ok();
    for expected in [
        "Successfully assigned",
        "Container image \"demo:v1\" already present on machine and can be accessed by the pod",
        "Container started",
    ] {
        assert!(described.contains(expected), "{expected:?} in {described}");
    }
    let events = cluster.kubectl("get events").ok();
    assert!(events.contains("Scheduled") && events.contains("ScalingReplicaSet"), "{events}");

    assert_eq!(cluster.kubectl(&format!("exec {pod} -- hostname")).ok().trim(), pod);
    let shell = cluster.kubectl_stdin(&format!("exec -i {pod} -- sh"), "echo from the shell\nexit 3\n");
    assert!(shell.stdout.contains("from the shell"), "{shell:?}");
    assert!(!shell.success && shell.stderr.contains("exit code 3"), "{shell:?}");
    let failing = cluster.kubectl(&format!("exec {pod} -- false")).err();
    assert!(failing.contains("exit code 1"), "{failing}");

    let forward = forward_port(cluster, pod);
    assert!(http_get(forward.1, "/").contains(pod.as_str()));

    // The request above is in the log; following prints what comes later as well.
    let mut follow = Background(
        cluster
            .kubectl_command()
            .args(["logs", "-f", pod])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl logs"),
    );
    let lines = BufReader::new(follow.0.stdout.take().expect("stdout")).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    http_get(forward.1, "/seen-by-follow");
    wait_for("the followed log shows the request", SOON, || {
        let line = receiver.try_recv().map_err(|error| error.to_string())?;
        if line.contains("/seen-by-follow") { Ok(()) } else { Err(line) }
    });
    let tail = cluster.kubectl(&format!("logs {pod} --tail=1 --timestamps")).ok();
    assert_eq!(tail.lines().count(), 1, "{tail}");
}

fn forward_port(cluster: &Cluster, pod: &str) -> (Background, u16) {
    let mut command = cluster.kubectl_command();
    let mut child = command
        .args(["port-forward", pod, ":8080"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl port-forward");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("stdout"));
    output.read_line(&mut line).expect("a line");
    // kubectl goes on printing, and would end with the pipe.
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(drop));
    let port = line.split(" -> ").next().and_then(|l| l.rsplit(':').next()).and_then(|p| p.parse().ok());
    let background = Background(child);
    (background, port.unwrap_or_else(|| panic!("no port in {line:?}")))
}

fn http_get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("deadline");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("request");
    let mut response = Vec::new();
    // kubectl may reset the connection behind the last byte.
    let ended = stream.read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response).into_owned();
    assert!(response.starts_with("HTTP/1.1 200"), "{response:?} {ended:?}");
    response
}

fn services_are_reached(cluster: &Cluster) {
    cluster.kubectl("expose deployment web --port=80 --target-port=8080 --type=NodePort").ok();
    let service = json(cluster, "get service web");
    let address = service["spec"]["clusterIP"].as_str().expect("clusterIP").to_owned();
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("nodePort");
    wait_for("three endpoints", SOON, || {
        let slices = json(cluster, "get endpointslices -l kubernetes.io/service-name=web");
        let ready = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        if ready == 3 { Ok(()) } else { Err(format!("{slices}")) }
    });
    // From a pod of every node, so that some answers come from other nodes; and each pod answers some time.
    for pod in pods_of(cluster, "web") {
        let mut answering = BTreeSet::new();
        wait_for("every pod answers on the ClusterIP", SOON, || {
            let body = cluster.kubectl(&format!("exec {pod} -- get http://{address}:80/")).result()?;
            answering.extend(pods_of(cluster, "web").into_iter().filter(|name| body.contains(name.as_str())));
            if answering.len() == 3 { Ok(()) } else { Err(format!("{pod} reached only {answering:?}")) }
        });
    }
    // From the machine itself.
    wait_for("the ClusterIP answers the machine", SOON, || tcp_get(&format!("{address}:80")));
    let node = json(cluster, "get node node-b");
    let node_address = node["status"]["addresses"][0]["address"].as_str().expect("address").to_owned();
    wait_for("the NodePort answers", SOON, || tcp_get(&format!("{node_address}:{node_port}")));
}

fn tcp_get(address: &str) -> Result<(), String> {
    let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
        .map_err(|e| format!("{address}: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").map_err(|e| e.to_string())?;
    let mut response = String::new();
    stream.read_to_string(&mut response).map_err(|e| e.to_string())?;
    if response.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(response) }
}

fn deployments_roll_forward_and_back(cluster: &Cluster) {
    cluster.kubectl("scale deployment web --replicas=4").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    assert_eq!(pods_of(cluster, "web").len(), 4);
    cluster.kubectl("scale deployment web --replicas=2").ok();
    wait_for("two pods remain", SOON, || match pods_of(cluster, "web").len() {
        2 => Ok(()),
        other => Err(format!("{other} pods")),
    });
    let image =
        || json(cluster, "get deployment web")["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    cluster.kubectl("set image deployment/web demo=demo:v2").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    assert_eq!(image(), "demo:v2");
    let history = cluster.kubectl("rollout history deployment/web").ok();
    assert!(
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() >= 2,
        "{history}"
    );
    cluster.kubectl("rollout undo deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    assert_eq!(image(), "demo:v1");
    cluster.kubectl("rollout pause deployment/web").ok();
    cluster.kubectl("set env deployment/web CHANGED=yes").ok();
    cluster.kubectl("rollout resume deployment/web").ok();
    cluster.kubectl("rollout restart deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    let pod = &pods_of(cluster, "web")[0];
    assert_eq!(cluster.kubectl(&format!("exec {pod} -- sh -c 'env'")).ok().matches("CHANGED=yes").count(), 1);
}

fn objects_are_changed_in_every_way(cluster: &Cluster) {
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  labels: {{team: blue}}\ndata:\n  color: {value}\n  size: big\n"
        )
    };
    let data = |key: &str| json(cluster, "get configmap settings")["data"][key].clone();
    cluster.kubectl_stdin("apply -f -", &manifest("red")).ok();
    assert!(cluster.kubectl_stdin("apply -f -", &manifest("red")).ok().contains("unchanged"));
    cluster.kubectl_stdin("apply -f -", &manifest("green").replace("  size: big\n", "")).ok();
    assert_eq!((data("color"), data("size")), ("green".into(), Value::Null));
    // Client-side ownership becomes server-side ownership without a conflict.
    cluster.kubectl_stdin("apply --server-side -f -", &manifest("blue")).ok();
    assert_eq!(data("color"), "blue");
    let conflict =
        cluster.kubectl_stdin("apply --server-side --field-manager=other -f -", &manifest("pink")).err();
    assert!(conflict.contains("conflict with \"kubectl\"") && conflict.contains(".data.color"), "{conflict}");
    cluster
        .kubectl_stdin("apply --server-side --force-conflicts --field-manager=other -f -", &manifest("pink"))
        .ok();
    assert_eq!(data("color"), "pink");

    cluster.kubectl(r#"patch configmap settings -p '{"data":{"a":"strategic"}}'"#).ok();
    cluster.kubectl(r#"patch configmap settings --type=merge -p '{"data":{"b":"merge","size":null}}'"#).ok();
    cluster
        .kubectl(
            r#"patch configmap settings --type=json -p '[{"op":"add","path":"/data/c","value":"json"}]'"#,
        )
        .ok();
    assert_eq!(
        (data("a"), data("b"), data("c"), data("size")),
        ("strategic".into(), "merge".into(), "json".into(), Value::Null)
    );
    cluster.kubectl("label configmap settings team=red --overwrite").ok();
    cluster.kubectl("annotate configmap settings note=hello").ok();
    let object = json(cluster, "get configmap settings");
    assert_eq!(
        (&object["metadata"]["labels"]["team"], &object["metadata"]["annotations"]["note"]),
        (&"red".into(), &"hello".into())
    );

    let mut edit = cluster.kubectl_command();
    edit.args(["edit", "configmap", "settings"]).env("EDITOR", "sed -i s/pink/violet/");
    coracle_tests::tools::run(&mut edit).ok();
    assert_eq!(data("color"), "violet");
    assert!(cluster.kubectl("get configmap settings -o yaml").ok().contains("color: violet"));
    assert_eq!(cluster.kubectl("get configmaps -l team=red -o name").ok().trim(), "configmap/settings");
    cluster.kubectl("delete configmap settings").ok();
    assert!(cluster.kubectl("get configmap settings").err().contains("configmaps \"settings\" not found"));
}

fn config_map_changes_reach_the_pod(cluster: &Cluster) {
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: live}
data: {value: before}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: reader
    image: demo:v1
    env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
    volumeMounts: [{name: live, mountPath: /live}, {name: scratch, mountPath: /scratch}]
    resources: {limits: {memory: 64Mi, cpu: 200m}}
  volumes:
  - {name: live, configMap: {name: live}}
  - {name: scratch, emptyDir: {}}
"#;
    cluster.kubectl_stdin("apply -f -", manifest).ok();
    cluster.kubectl("wait --for=condition=Ready pod/reader --timeout=60s").ok();
    assert_eq!(cluster.kubectl("exec reader -- cat /live/value").ok().trim(), "before");
    cluster.kubectl(r#"patch configmap live -p '{"data":{"value":"after"}}'"#).ok();
    wait_for("the changed ConfigMap is seen in the pod", Duration::from_secs(90), || {
        let seen = cluster.kubectl("exec reader -- cat /live/value").result()?;
        if seen.trim() == "after" { Ok(()) } else { Err(seen) }
    });
    // A token of the pod's own ServiceAccount is mounted, too.
    assert!(
        cluster
            .kubectl("exec reader -- cat /var/run/secrets/kubernetes.io/serviceaccount/token")
            .ok()
            .split('.')
            .count()
            == 3
    );
    cluster.kubectl("delete pod reader --wait").ok();
    cluster.kubectl("delete configmap live").ok();
}

fn bad_manifests_are_refused(cluster: &Cluster) {
    let pod = |extra: &str, image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec:\n  {extra}\n  containers: [{{name: c, image: {image}}}]\n"
        )
    };
    let unknown =
        cluster.kubectl_stdin("apply --validate=strict -f -", &pod("noSuchField: 1", "demo:v1")).err();
    assert!(unknown.contains("unknown field \"spec.noSuchField\""), "{unknown}");
    let warned = cluster
        .kubectl_stdin("apply --dry-run=server --validate=warn -f -", &pod("noSuchField: 1", "demo:v1"));
    assert!(warned.success && warned.stderr.contains("unknown field \"spec.noSuchField\""), "{warned:?}");
    let invalid = cluster.kubectl_stdin("apply -f -", &pod("restartPolicy: Sometimes", "demo:v1")).err();
    assert!(invalid.contains("spec.restartPolicy: Unsupported value: \"Sometimes\""), "{invalid}");
    let huge = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: huge}}\ndata: {{x: {}}}\n",
        "a".repeat(10 << 20)
    );
    let huge = cluster.kubectl_stdin("create -f -", &huge).err();
    assert!(huge.contains("too large") || huge.contains("Too long"), "{huge}");
    assert!(cluster.kubectl("get pod bad").err().contains("not found"));
    let server = cluster.kubectl("config view -o jsonpath={.clusters[0].cluster.server}").ok();
    let stranger = format!("--kubeconfig=/dev/null --server={server} --insecure-skip-tls-verify");
    let refused = cluster.kubectl(&format!("{stranger} --token=not-a-token get pods")).err();
    assert!(refused.contains("Unauthorized") || refused.contains("logged in"), "{refused}");
    let token = cluster.kubectl("create token default --duration=10m").ok();
    let forbidden = cluster.kubectl(&format!("{stranger} --token={} get pods", token.trim())).err();
    assert!(
        forbidden.contains("User \"system:serviceaccount:default:default\" cannot list resource \"pods\""),
        "{forbidden}"
    );
}

fn nodes_are_cordoned_and_drained(cluster: &Cluster) {
    cluster.kubectl("cordon node-c").ok();
    assert!(cluster.kubectl("get node node-c").ok().contains("SchedulingDisabled"));
    cluster.kubectl("drain node-c --ignore-daemonsets --delete-emptydir-data --timeout=90s").ok();
    cluster.kubectl("rollout status deployment/web --timeout=90s").ok();
    let left = cluster.kubectl("get pods -A --field-selector=spec.nodeName=node-c -o name").ok();
    assert_eq!(left.trim(), "", "drained");
    cluster.kubectl("uncordon node-c").ok();
}

fn deletion_cascades(cluster: &Cluster) {
    cluster.kubectl("delete service web").ok();
    cluster.kubectl("delete deployment web --cascade=orphan").ok();
    let set = cluster.kubectl("get replicasets -l app=web -o name").ok();
    assert!(!set.trim().is_empty(), "an orphaned ReplicaSet stays");
    for set in set.split_whitespace() {
        cluster.kubectl(&format!("delete {set} --cascade=foreground")).ok();
    }
    wait_for("all pods are gone", SOON, || {
        let pods = cluster.kubectl("get pods -l app=web -o name").result()?;
        if pods.trim().is_empty() { Ok(()) } else { Err(pods) }
    });
    cluster.kubectl("create namespace other").ok();
    cluster.kubectl("create deployment web --image=demo:v1 -n other").ok();
    cluster.kubectl("wait --for=condition=Available deployment/web -n other --timeout=60s").ok();
    cluster.kubectl("delete namespace other --timeout=90s").ok();
    assert!(cluster.kubectl("get namespace other").err().contains("not found"));
}

fn discovery_and_explain(cluster: &Cluster) {
    let resources = cluster.kubectl("api-resources").ok();
    for line in ["deployments", "endpointslices", "priorityclasses", "leases"] {
        assert!(resources.lines().any(|l| l.starts_with(line)), "{line} in {resources}");
    }
    let explained = cluster.kubectl("explain deployment.spec.strategy.rollingUpdate").ok();
    assert!(explained.contains("maxSurge") && explained.contains("maxUnavailable"), "{explained}");
    assert!(cluster.kubectl("version").ok().contains("Server Version: v1.35.0"));
    let ready = cluster.kubectl("get --raw /readyz?verbose").ok();
    assert!(ready.contains("readyz check passed"), "{ready}");
}
