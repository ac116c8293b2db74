//! What a node does with pods beyond starting them, on a real containerd: ephemeral containers, resizes, claims, static
//! pods, deadlines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(90);

fn json(cluster: &Cluster, arguments: &str) -> Result<Value, String> {
    let text = cluster.kubectl(&format!("{arguments} -o json")).result()?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// Waits until a JSON pointer into an object has this value.
fn shows(cluster: &Cluster, what: &str, pointer: &str, expected: impl Into<Value>) {
    let expected = expected.into();
    wait_for(&format!("{what} shows {expected} at {pointer}"), SOON, || {
        let object = json(cluster, &format!("get {what}"))?;
        match object.pointer(pointer) {
            Some(found) if *found == expected => Ok(()),
            other => Err(format!("{other:?} in {}", object["status"])),
        }
    });
}

fn condition(cluster: &Cluster, pod: &str, kind: &str) -> Result<Option<Value>, String> {
    let object = json(cluster, &format!("get pod {pod}"))?;
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().find(|condition| condition["type"] == kind))
}

fn told(cluster: &Cluster, pod: &str, reason: &str, text: &str) {
    wait_for(&format!("an event {reason} says {text:?}"), SOON, || {
        let events = cluster
            .kubectl(&format!(
                "get events --field-selector=involvedObject.name={pod},reason={reason} -o jsonpath={{.items[*].message}}"
            ))
            .result()?;
        if events.contains(text) { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_node_debugs_resizes_mounts_and_mirrors() {
    let cluster = Cluster::up(&["--nodes", "1"]);
    running_pods_are_debugged(&cluster);
    running_pods_are_resized(&cluster);
    claims_are_mounted(&cluster);
    static_pods_are_mirrored(&cluster);
    pods_end_in_their_ways(&cluster);
    containers_are_told_of_as_upstream_does(&cluster);
    hooks_run_together(&cluster);
}

const PLAIN: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "demo:v1"}]
"#;

fn running_pods_are_debugged(cluster: &Cluster) {
    cluster.kubectl_stdin("apply -f -", PLAIN).ok();
    cluster.kubectl("wait --for=condition=Ready pod/plain --timeout=90s").ok();
    let debug = "debug -i plain --image=demo:v1 --target=main -c shell --profile=general -- sh";
    let session = cluster.kubectl_stdin(debug, "echo from the debugger\ncat /proc/1/cmdline\nexit 5\n");
    assert!(session.success, "{session:?}");
    shows(cluster, "pod/plain", "/status/ephemeralContainerStatuses/0/state/terminated/exitCode", 5);
    let pod = json(cluster, "get pod plain").expect("the pod");
    let status = &pod["status"]["ephemeralContainerStatuses"][0];
    assert_eq!((&status["restartCount"], &status["ready"]), (&0.into(), &false.into()), "{status}");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(pod["status"]["phase"], "Running");
    // A client whose input has ended may be cut off before the output has: the log has all of it.
    let log = cluster.kubectl("logs plain -c shell").ok();
    assert!(log.contains("from the debugger"), "{log}");
    assert!(log.contains("coracle-demo"), "the target's first process is seen: {log}");
    cluster.kubectl("debug plain --image=demo:v1 -c lost --profile=general -- /no/such/program").ok();
    shows(cluster, "pod/plain", "/status/ephemeralContainerStatuses/1/state/terminated/reason", "StartError");
    cluster.kubectl("debug plain --image=demo:v1 -c idle --profile=general -- sleep 3600").ok();
    wait_for("commands run in an ephemeral container", SOON, || {
        cluster.kubectl("exec plain -c idle -- hostname").result().and_then(|name| match name.trim() {
            "plain" => Ok(()),
            other => Err(other.to_owned()),
        })
    });
    cluster.kubectl("delete pod plain").ok();
}

const SIZED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: demo:v1
    resources: {limits: {cpu: 100m, memory: 64Mi}}
    resizePolicy:
    - {resourceName: cpu, restartPolicy: NotRequired}
    - {resourceName: memory, restartPolicy: RestartContainer}
"#;

fn resize(cluster: &Cluster, cpu: &str, memory: &str) {
    let amounts = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
    let resources = format!(r#"{{"requests":{amounts},"limits":{amounts}}}"#);
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#);
    cluster.kubectl(&format!("patch pod sized --subresource=resize -p '{patch}'")).ok();
}

/// A file of the container's cgroup: of version 1 or 2.
fn cgroup_file(id: &str, names: [&str; 2]) -> Result<String, String> {
    fn find(directory: &Path, id: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name() == *id {
                found.push(entry.path());
            } else if depth > 0 {
                find(&entry.path(), id, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    find(Path::new("/sys/fs/cgroup"), id, 8, &mut found);
    let files = found.iter().flat_map(|directory| names.map(|name| directory.join(name)));
    let text = files.into_iter().find_map(|file| std::fs::read_to_string(file).ok());
    text.map(|text| text.trim().to_owned()).ok_or_else(|| format!("{names:?} in none of {found:?}"))
}

fn has_limits(cluster: &Cluster, quota: &str, bytes: &str) {
    wait_for(&format!("the cgroup has {quota} and {bytes}"), SOON, || {
        let pod = json(cluster, "get pod sized")?;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default();
        let cpu = cgroup_file(id, ["cpu.cfs_quota_us", "cpu.max"])?;
        let memory = cgroup_file(id, ["memory.limit_in_bytes", "memory.max"])?;
        let fits = cpu.split(' ').next() == Some(quota) && memory == bytes;
        if fits { Ok(()) } else { Err(format!("{cpu} {memory} {}", pod["status"])) }
    });
}

fn running_pods_are_resized(cluster: &Cluster) {
    cluster.kubectl_stdin("apply -f -", SIZED).ok();
    cluster.kubectl("wait --for=condition=Ready pod/sized --timeout=90s").ok();
    has_limits(cluster, "10000", "67108864");
    let of = "/status/containerStatuses/0";
    resize(cluster, "200m", "64Mi");
    shows(cluster, "pod/sized", &format!("{of}/resources/limits/cpu"), "200m");
    shows(cluster, "pod/sized", &format!("{of}/allocatedResources/cpu"), "200m");
    shows(cluster, "pod/sized", &format!("{of}/restartCount"), 0);
    has_limits(cluster, "20000", "67108864");
    resize(cluster, "150m", "96Mi");
    shows(cluster, "pod/sized", &format!("{of}/resources/limits/memory"), "96Mi");
    shows(cluster, "pod/sized", &format!("{of}/restartCount"), 1);
    has_limits(cluster, "15000", "100663296");
    let gone = |kind: &str| {
        wait_for(&format!("{kind} is taken back"), SOON, || match condition(cluster, "sized", kind)? {
            None => Ok(()),
            Some(found) => Err(found.to_string()),
        });
    };
    gone("PodResizeInProgress");
    told(cluster, "sized", "ResizeCompleted", "Pod resize completed");
    // More than the node has.
    resize(cluster, "1000", "96Mi");
    wait_for("the resize is infeasible", SOON, || {
        let found = condition(cluster, "sized", "PodResizePending")?.unwrap_or_default();
        let pod = json(cluster, "get pod sized")?;
        let same = found["observedGeneration"] == pod["metadata"]["generation"];
        if found["reason"] == "Infeasible" && same { Ok(()) } else { Err(format!("{found}")) }
    });
    shows(cluster, "pod/sized", &format!("{of}/resources/limits/cpu"), "150m");
    resize(cluster, "150m", "96Mi");
    gone("PodResizePending");
    shows(cluster, "pod/sized", &format!("{of}/restartCount"), 1);
    cluster.kubectl("delete pod sized").ok();
}

const CLAIMING: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: disk, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  nodeName: node-a
  restartPolicy: Never
  containers:
  - name: main
    image: demo:v1
    command: [sh, -c, "echo written > /own/file; cat /all/writer/file; touch /all/x"]
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    volumeMounts:
    - {name: data, mountPath: /own, subPathExpr: $(POD_NAME)}
    - {name: data, mountPath: /all, readOnly: true}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: remote}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], nfs: {server: example.invalid, path: /},
  claimRef: {namespace: default, name: far-data}}
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  nodeName: node-a
  containers: [{name: main, image: "demo:v1", volumeMounts: [{name: data, mountPath: /data}]}]
  volumes:
  - name: data
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 1Gi}}}}}
"#;

fn claims_are_mounted(cluster: &Cluster) {
    let directory = cluster.data().join("volume");
    std::fs::create_dir(&directory).expect("directory");
    cluster.kubectl_stdin("apply -f -", CLAIMING).ok();
    told(cluster, "writer", "FailedMount", "error processing PVC default/data: PVC is not bound");
    let volume = format!(
        r#"{{"apiVersion":"v1","kind":"PersistentVolume","metadata":{{"name":"disk"}},"spec":{{"capacity":{{"storage":"1Gi"}},"accessModes":["ReadWriteOnce"],"hostPath":{{"path":"{}"}}}}}}"#,
        directory.display()
    );
    cluster.kubectl_stdin("apply -f -", &volume).ok();
    shows(cluster, "pod/writer", "/status/phase", "Failed");
    let written = cluster.kubectl("logs writer").ok();
    assert!(written.contains("written"), "one volume behind two mounts: {written}");
    assert!(written.contains("Read-only") || written.contains("read-only"), "{written}");
    assert_eq!(std::fs::read_to_string(directory.join("writer/file")).expect("the file"), "written\n");
    told(cluster, "far", "FailedMount", "volume kind nfs is not supported");
    cluster.kubectl("delete pod writer far --grace-period=0 --force").ok();
    assert!(directory.join("writer/file").exists(), "what is in a volume outlives the pod");
}

fn static_pods_are_mirrored(cluster: &Cluster) {
    let manifests = cluster.data().join("nodes/node-a/manifests");
    std::fs::create_dir_all(&manifests).expect("manifests");
    let write = |marker: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: fixed, labels: {{app: fixed}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: 'demo:v1', env: [{{name: MARKER, value: {marker}}}]}}]}}}}"
        );
        std::fs::write(manifests.join(".fixed"), text).expect("manifest");
        std::fs::rename(manifests.join(".fixed"), manifests.join("fixed.yaml")).expect("rename");
    };
    write("one");
    shows(cluster, "pod/fixed-node-a", "/status/phase", "Running");
    let marker = |expected: &str| {
        wait_for(&format!("it runs with {expected}"), SOON, || {
            let env = cluster.kubectl("exec fixed-node-a -- env").result()?;
            if env.contains(&format!("MARKER={expected}")) { Ok(()) } else { Err(env) }
        });
    };
    marker("one");
    let id = "/status/containerStatuses/0/containerID";
    let before = json(cluster, "get pod fixed-node-a").expect("the mirror");
    assert_eq!(before["metadata"]["ownerReferences"][0]["kind"], "Node");
    // The mirror is only a mirror.
    cluster.kubectl("delete pod fixed-node-a --wait=false").ok();
    wait_for("the mirror is made again", SOON, || {
        let now = json(cluster, "get pod fixed-node-a")?;
        let new = now["metadata"]["uid"] != before["metadata"]["uid"];
        if new { Ok(()) } else { Err(now["metadata"].to_string()) }
    });
    shows(cluster, "pod/fixed-node-a", id, before.pointer(id).cloned().unwrap_or_default());
    write("two");
    marker("two");
    std::fs::remove_file(manifests.join("fixed.yaml")).expect("remove");
    cluster.kubectl("wait --for=delete pod/fixed-node-a --timeout=60s").ok();
}

const ENDING: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  nodeName: node-a
  activeDeadlineSeconds: 5
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "demo:v1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: tuned}
spec:
  nodeName: node-a
  securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]}
  containers: [{name: main, image: "demo:v1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: named}
spec:
  nodeName: node-a
  hostname: short
  subdomain: group
  setHostnameAsFQDN: true
  restartPolicy: Never
  securityContext: {sysctls: [{name: net/ipv4/ip_unprivileged_port_start, value: "1"}]}
  initContainers:
  - {name: side, image: "demo:v1", restartPolicy: Always}
  containers:
  - name: main
    image: demo:v1
    command: [sh, -c, "hostname; cat /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"]
"#;

fn pods_end_in_their_ways(cluster: &Cluster) {
    cluster.kubectl_stdin("apply -f -", ENDING).ok();
    shows(cluster, "pod/limited", "/status/reason", "DeadlineExceeded");
    shows(cluster, "pod/limited", "/status/phase", "Failed");
    shows(cluster, "pod/tuned", "/status/reason", "SysctlForbidden");
    shows(cluster, "pod/named", "/status/phase", "Succeeded");
    let pod = json(cluster, "get pod named").expect("the pod");
    let side = &pod["status"]["initContainerStatuses"][0]["state"];
    assert!(side["terminated"].is_object(), "a pod has ended when its sidecars have: {side}");
    let said = cluster.kubectl("logs named -c main").ok();
    let full = "short.group.default.svc.cluster.local";
    assert!(said.starts_with(full), "{said}");
    assert!(said.contains(&format!("\t{full}\tshort")), "{said}");
    assert!(said.trim_end().ends_with('1'), "{said}");
}

/// One pod is killed again and again, the other never gets past its hook.
const RESTARTED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 3
  containers:
  - name: main
    image: demo:v1
    livenessProbe: {exec: {command: [sh, -c, "echo unwell; exit 1"]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 3
  containers:
  - name: main
    image: demo:v1
    lifecycle: {postStart: {exec: {command: [sh, -c, "echo secret; exit 4"]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: unnamed-port}
spec:
  nodeName: node-a
  containers:
  - name: main
    image: demo:v1
    livenessProbe: {tcpSocket: {port: web}, periodSeconds: 1, failureThreshold: 1}
"#;

fn containers_are_told_of_as_upstream_does(cluster: &Cluster) {
    cluster.kubectl_stdin("apply -f -", RESTARTED).ok();
    told(cluster, "sick", "Unhealthy", "Liveness probe failed: unwell");
    told(cluster, "sick", "Killing", "Container main failed liveness probe, will be restarted");
    told(cluster, "sick", "Created", "Container created");
    told(cluster, "sick", "Started", "Container started");
    told(cluster, "sick", "BackOff", "Back-off restarting failed container main in pod sick_default(");
    told(
        cluster,
        "sick",
        "Pulled",
        "Container image \"demo:v1\" already present on machine and can be accessed by the pod",
    );
    told(cluster, "hooked", "FailedPostStartHook", "PostStartHook failed");
    told(cluster, "hooked", "Killing", "FailedPostStartHook");
    let events = cluster.kubectl("get events --field-selector=involvedObject.name=hooked").ok();
    assert!(!events.contains("secret"), "what a hook says is not for everyone: {events}");
    let text =
        "Liveness probe errored and resulted in unknown state: strconv.Atoi: parsing \"web\": invalid syntax";
    told(cluster, "unnamed-port", "Unhealthy", text);
    shows(cluster, "pod/unnamed-port", "/status/containerStatuses/0/restartCount", 0);
    cluster.kubectl("delete pod sick hooked unnamed-port").ok();
}

/// Each container says goodbye once all have begun to, and notes it.
fn slow_to_part(directory: &std::path::Path) -> String {
    let container = |name: &str, more: &str| {
        format!(
            r#"
  - name: {name}
    image: demo:v1
    args: [pause]{more}
    volumeMounts: [{{name: notes, mountPath: /notes}}]
    lifecycle:
      preStop:
        exec:
          command:
          - sh
          - -c
          - |
            touch /notes/begun-{name}
            while sleep 0.1; do
              if ls /notes/begun-one && ls /notes/begun-two && ls /notes/begun-side; then
                touch /notes/done-{name}; exit 0
              fi
            done"#
        )
    };
    let side = container("side", "\n    restartPolicy: Always");
    let (one, two) = (container("one", ""), container("two", ""));
    let directory = directory.display();
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: slow}}
spec:
  nodeName: node-a
  terminationGracePeriodSeconds: 20
  volumes: [{{name: notes, hostPath: {{path: "{directory}"}}}}]
  initContainers:{side}
  containers:{one}{two}
"#
    )
}

fn hooks_run_together(cluster: &Cluster) {
    let notes = cluster.data().join("notes");
    std::fs::create_dir(&notes).expect("directory");
    cluster.kubectl_stdin("apply -f -", &slow_to_part(&notes)).ok();
    cluster.kubectl("wait --for=condition=Ready pod/slow --timeout=60s").ok();
    cluster.kubectl("delete pod slow --timeout=60s").ok();
    for name in ["one", "two", "side"] {
        let done = notes.join(format!("done-{name}"));
        assert!(done.exists(), "the hook of {name} was cut off: it waits for the others'");
    }
}
