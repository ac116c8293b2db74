//! A kubelet started as upstream's scripts start theirs: the first certificate asked for, drop-ins, and what its port shows.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::ports::free_ports;
use coracle_tests::tools::binaries;
use coracle_tests::wait::wait_for;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Ends the process with the test.
struct Kubelet(Child);

impl Drop for Kubelet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As `hack/local-up-cluster.sh` writes it, but for the runtime and the serving certificate.
fn configuration(pki: &Path, port: u16, healthz: u16) -> String {
    let pki = pki.display();
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: \"127.0.0.1\"
cgroupDriver: \"\"
cgroupRoot: \"\"
cgroupsPerQOS: true
containerRuntimeEndpoint: hollow://
cpuCFSQuota: true
enableControllerAttachDetach: true
localStorageCapacityIsolation: true
evictionPressureTransitionPeriod: \"1m\"
failSwapOn: false
port: {port}
healthzPort: {healthz}
readOnlyPort: 0
rotateCertificates: true
runtimeRequestTimeout: \"2m\"
systemReserved: {{cpu: 100m, memory: 50Mi}}
resolvConf: \"/etc/resolv.conf\"
tlsCertFile: {pki}/kubelet-node-a.crt
tlsPrivateKeyFile: {pki}/kubelet-node-a.key
authentication:
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {pki}/ca.crt}}
authorization: {{mode: Webhook}}
evictionHard: {{memory.available: \"1Mi\", nodefs.available: \"1%\", nodefs.inodesFree: \"1%\"}}
featureGates: {{AllAlpha: false}}
"
    )
}

#[test]
fn a_kubelet_asks_for_its_certificate_and_shows_its_configuration() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    let own = tempfile::tempdir().expect("dir");
    let at = |name: &str| own.path().join(name);
    let ports = free_ports(2);
    let pki = cluster.data().join("pki");
    std::fs::write(at("kubelet.yaml"), configuration(&pki, ports[0], ports[1])).expect("write");
    std::fs::create_dir(at("kubelet.conf.d")).expect("dir");
    let drop_in = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\n";
    std::fs::write(at("kubelet.conf.d/10-pods.conf"), drop_in).expect("write");
    let start = || {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let child = Command::new(binaries().join("kubelet"))
            .args([
                "--v=3",
                "--vmodule=",
                "--hostname-override=extra",
                "--cloud-provider=",
                "--node-ip=127.0.0.1",
            ])
            .arg(flag("bootstrap-kubeconfig", &cluster.data().join("kubeconfig")))
            .arg(flag("kubeconfig", &at("rotated.kubeconfig")))
            .arg(flag("config", &at("kubelet.yaml")))
            .arg(flag("config-dir", &at("kubelet.conf.d")))
            .arg(flag("root-dir", &at("root")))
            .arg("--feature-gates=SidecarContainers=true")
            .stdout(Stdio::null())
            .spawn();
        Kubelet(child.expect("kubelet"))
    };
    let kubelet = start();
    let ready = || cluster.kubectl("wait --for=condition=Ready node/extra --timeout=60s").result();
    wait_for("the node has registered", SOON, || cluster.kubectl("get node extra").result());
    ready().expect("the node is ready");
    let requests = cluster.kubectl("get csr").ok();
    assert!(
        requests.contains("kubernetes.io/kube-apiserver-client-kubelet")
            && requests.contains("Approved,Issued"),
        "{requests}"
    );
    assert!(std::fs::read_link(at("root/pki/kubelet-client-current.pem")).is_ok());

    let raw = |path: &str| -> Value {
        let text = cluster.kubectl(&format!("get --raw /api/v1/nodes/extra/proxy/{path}")).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    };
    let shown = raw("configz");
    for (pointer, value) in [
        ("/kubeletconfig/maxPods", Value::from(7)),
        ("/kubeletconfig/evictionPressureTransitionPeriod", "1m".into()),
        ("/kubeletconfig/syncFrequency", "1m0s".into()),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&value), "{pointer} in {shown}");
    }
    let node: Value = serde_json::from_str(&cluster.kubectl("get node extra -o json").ok()).expect("JSON");
    assert_eq!(node["status"]["allocatable"]["pods"], "7");
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    assert_eq!(node["status"]["allocatable"]["cpu"], format!("{}m", cpus * 1000 - 100));

    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "there"},
        "spec": {"nodeName": "extra", "containers": [{"name": "c", "image": "any:v1"}]}}"#;
    cluster.kubectl_stdin("create -f -", pod).ok();
    cluster.kubectl("wait --for=condition=Ready pod/there --timeout=60s").ok();
    let running = raw("runningpods/");
    assert_eq!(running["items"][0]["metadata"]["name"], "there", "{running}");
    assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "c", "{running}");
    let metrics = cluster.kubectl("get --raw /api/v1/nodes/extra/proxy/metrics").ok();
    assert!(
        metrics.contains("kubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1"),
        "{metrics}"
    );

    // Started again, it needs nobody.
    drop(kubelet);
    let before = cluster.kubectl("get csr -o name").ok();
    let _kubelet = start();
    wait_for("the node's kubelet answers again", SOON, || {
        cluster.kubectl("get --raw /api/v1/nodes/extra/proxy/healthz").result()
    });
    assert_eq!(cluster.kubectl("get csr -o name").ok(), before);
}
