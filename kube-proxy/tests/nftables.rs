//! The planned rules in a real kernel: a node, two pods and an outside host as network namespaces, connections between them. Needs root
//! and nft; without them it says so and passes nothing off as tested.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_proxy_core::base::{ProxyConfig, cleanup};
use kube_proxy_core::model::{ProxyModel, ServiceKey};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

const NODE_IP: &str = "192.0.2.1";
const OUTSIDE_IP: &str = "192.0.2.2";
const PODS: [&str; 2] = ["10.244.0.2", "10.244.0.3"];
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Namespaces that are gone when this is, whatever happens.
struct Network {
    prefix: String,
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

fn run(program: &str, args: &[&str], input: Option<&str>) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(input.unwrap_or_default().as_bytes()).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("wait");
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        input.unwrap_or_default()
    );
}

impl Network {
    fn new(test: &str) -> Option<Self> {
        let usable = nix::unistd::geteuid().is_root()
            && Command::new("nft")
                .arg("--version")
                .stdout(Stdio::null())
                .status()
                .is_ok_and(|it| it.success());
        if !usable {
            eprintln!("not tested: this test needs root and the nft program");
            return None;
        }
        let prefix = format!("cp{}{test}", std::process::id());
        let network = Self { prefix, stop: Arc::default(), servers: Vec::new() };
        for name in ["node", "pod0", "pod1", "out"] {
            run("ip", &["netns", "add", &network.namespace(name)], None);
            network.ip(name, "link set lo up");
        }
        network.ip("node", "link add br0 type bridge");
        network.ip("node", "addr add 10.244.0.1/24 dev br0");
        network.ip("node", "link set br0 up");
        for (index, address) in PODS.iter().enumerate() {
            let pod = format!("pod{index}");
            let namespace = network.namespace(&pod);
            network.ip("node", &format!("link add v{index} type veth peer name eth0 netns {namespace}"));
            network.ip("node", &format!("link set v{index} master br0 up"));
            network.ip("node", &format!("link set v{index} type bridge_slave hairpin on"));
            network.ip(&pod, &format!("addr add {address}/24 dev eth0"));
            network.ip(&pod, "link set eth0 up");
            network.ip(&pod, "route add default via 10.244.0.1");
        }
        let outside = network.namespace("out");
        network.ip("node", &format!("link add up0 type veth peer name eth0 netns {outside}"));
        network.ip("node", &format!("addr add {NODE_IP}/24 dev up0"));
        network.ip("node", "link set up0 up");
        network.ip("node", &format!("route add default via {OUTSIDE_IP}"));
        network.ip("out", &format!("addr add {OUTSIDE_IP}/24 dev eth0"));
        network.ip("out", "link set eth0 up");
        for (switch, needed) in [("net/ipv4/ip_forward", true), ("net/bridge/bridge-nf-call-iptables", false)]
        {
            let set = network.inside("node", move || std::fs::write(format!("/proc/sys/{switch}"), "1"));
            assert!(set.is_ok() || !needed, "{switch}: {set:?}");
        }
        Some(network)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn ip(&self, namespace: &str, arguments: &str) {
        let namespace = self.namespace(namespace);
        let args: Vec<_> = ["-n", &namespace].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &args, None);
    }

    /// Runs something on a thread inside a namespace.
    fn spawn_inside<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.namespace(name));
        std::thread::spawn(move || {
            let file = std::fs::File::open(path).expect("namespace");
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
    }

    fn inside<T: Send + 'static>(&self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn_inside(name, work).join().expect("thread")
    }

    fn nft(&self, text: &str) {
        let path = format!("--net=/run/netns/{}", self.namespace("node"));
        run("nsenter", &[&path, "nft", "-f", "-"], Some(text));
    }

    /// Serves "INDEX CLIENT" on port 8080 of a pod.
    fn serve(&mut self, index: usize) {
        let stop = Arc::clone(&self.stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        self.servers.push(self.spawn_inside(&format!("pod{index}"), move || {
            let listener = TcpListener::bind("0.0.0.0:8080").expect("bind");
            listener.set_nonblocking(true).expect("nonblocking");
            ready.send(()).expect("ready");
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, client)) => {
                        let _ = write!(stream, "{index} {}", client.ip());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }));
        is_ready.recv().expect("server");
    }

    /// Connects from a namespace and returns (pod that answered, client address it saw).
    fn ask(&self, from: &str, address: &str) -> Result<(usize, IpAddr), std::io::ErrorKind> {
        let address: SocketAddr = address.parse().expect("address");
        self.inside(from, move || {
            let mut stream =
                TcpStream::connect_timeout(&address, CONNECT_DEADLINE).map_err(|error| error.kind())?;
            stream.set_read_timeout(Some(CONNECT_DEADLINE)).expect("timeout");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|error| error.kind())?;
            let (index, client) = answer.split_once(' ').expect("answer");
            Ok((index.parse().expect("index"), client.parse().expect("address")))
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
        for name in ["node", "pod0", "pod1", "out"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.namespace(name)])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn key() -> ServiceKey {
    (Arc::from("default"), Arc::from("web"))
}

fn service(extra: Value) -> Option<Arc<Service>> {
    let mut value = json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
    });
    for (key, field) in extra.as_object().expect("object") {
        value["spec"][key] = field.clone();
    }
    Some(Arc::new(serde_json::from_value(value).expect("service")))
}

fn slice(pods: &[usize]) -> Option<Arc<EndpointSlice>> {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| json!({"addresses": [PODS[*pod]], "nodeName": format!("node-{pod}")}))
        .collect();
    let value = json!({
        "addressType": "IPv4", "metadata": {"name": "web-1"}, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    Some(Arc::new(serde_json::from_value(value).expect("slice")))
}

fn model(network: &Network, node_name: &str) -> ProxyModel {
    let mut model = ProxyModel::new(ProxyConfig::new(node_name, Some("10.244.0.0/16")));
    model.set_service(key(), service(json!({})));
    model.set_slice(key(), "web-1", slice(&[0, 1]));
    model.set_node_port_addresses(BTreeSet::from([NODE_IP.to_owned()]));
    network.nft(&model.plan_full().text);
    model
}

fn update(network: &Network, model: &mut ProxyModel) {
    network.nft(&model.plan().expect("there is a change").text);
}

const CLUSTER: &str = "10.96.0.5:80";
const NODE_PORT: &str = "192.0.2.1:30080";

#[test]
fn services_are_reached_from_pods_the_node_and_outside_and_follow_their_endpoints() {
    let Some(mut network) = Network::new("a") else { return };
    network.serve(0);
    network.serve(1);
    let mut model = model(&network, "node-0");

    // ClusterIP from a pod: both pods answer and see the client's own address, or the node's when a pod meets itself (hairpin).
    let mut answered = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(20);
    while answered.len() < 2 && Instant::now() < until {
        let (pod, client) = network.ask("pod0", CLUSTER).expect("ClusterIP from a pod");
        let expected = if pod == 0 { "10.244.0.1" } else { PODS[0] };
        assert_eq!(client.to_string(), expected, "answered by pod {pod}");
        answered.insert(pod);
    }
    assert_eq!(answered.len(), 2, "both endpoints get connections");
    assert!(network.ask("node", CLUSTER).is_ok(), "ClusterIP from the node");
    let (_, client) = network.ask("out", NODE_PORT).expect("NodePort from outside");
    assert_eq!(
        client.to_string(),
        "10.244.0.1",
        "masqueraded, so that the answer comes back through the node"
    );
    assert!(network.ask("node", NODE_PORT).is_ok(), "NodePort from the node");
    assert!(network.ask("pod0", NODE_PORT).is_ok(), "NodePort from a pod");
    assert_eq!(
        network.ask("pod0", "10.96.0.5:81"),
        Err(std::io::ErrorKind::ConnectionRefused),
        "no such port"
    );

    // One endpoint less, by an incremental transaction.
    model.set_slice(key(), "web-1", slice(&[1]));
    update(&network, &mut model);
    for _ in 0..10 {
        assert_eq!(network.ask("pod0", CLUSTER).expect("ClusterIP").0, 1);
    }
    // None left: the client is told at once.
    model.set_slice(key(), "web-1", None);
    update(&network, &mut model);
    for (from, address) in [("pod0", CLUSTER), ("node", CLUSTER), ("out", NODE_PORT)] {
        assert_eq!(
            network.ask(from, address),
            Err(std::io::ErrorKind::ConnectionRefused),
            "{from} to {address}"
        );
    }
    // And back again.
    model.set_slice(key(), "web-1", slice(&[0]));
    update(&network, &mut model);
    assert_eq!(network.ask("pod1", CLUSTER).expect("ClusterIP").0, 0);
    // The Service goes and takes its rules along; a full rewrite and the clean-up work on what is there.
    model.set_service(key(), None);
    update(&network, &mut model);
    assert!(network.ask("node", CLUSTER).is_err());
    network.nft(&model.plan_full().text);
    network.nft(&cleanup());
}

#[test]
fn affinity_keeps_a_client_on_its_endpoint_and_can_be_switched_on_and_off() {
    let Some(mut network) = Network::new("b") else { return };
    network.serve(0);
    network.serve(1);
    let mut model = model(&network, "node-0");
    let affinity = |seconds: i32| {
        service(json!({"sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
    };
    for seconds in [100, 200] {
        model.set_service(key(), affinity(seconds));
        update(&network, &mut model);
        let first = network.ask("node", CLUSTER).expect("ClusterIP").0;
        for _ in 0..12 {
            assert_eq!(network.ask("node", CLUSTER).expect("ClusterIP").0, first);
        }
    }
    model.set_service(key(), service(json!({})));
    update(&network, &mut model);
    let mut answered = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(20);
    while answered.len() < 2 && Instant::now() < until {
        answered.insert(network.ask("node", CLUSTER).expect("ClusterIP").0);
    }
    assert_eq!(answered.len(), 2);
}

#[test]
fn the_local_policy_keeps_the_clients_address_and_stays_on_the_node() {
    let Some(mut network) = Network::new("c") else { return };
    network.serve(0);
    network.serve(1);
    // The node is where pod 1 runs.
    let mut model = model(&network, "node-1");
    network.ip("out", "route add 10.244.0.0/24 via 192.0.2.1");
    model.set_service(key(), service(json!({"type": "NodePort", "externalTrafficPolicy": "Local"})));
    update(&network, &mut model);
    for _ in 0..8 {
        let (pod, client) = network.ask("out", NODE_PORT).expect("NodePort");
        assert_eq!((pod, client.to_string().as_str()), (1, OUTSIDE_IP));
    }
    model.set_slice(key(), "web-1", slice(&[0]));
    update(&network, &mut model);
    assert_eq!(
        network.ask("out", NODE_PORT),
        Err(std::io::ErrorKind::TimedOut),
        "dropped, for another node to answer"
    );
    assert_eq!(network.ask("node", NODE_PORT).expect("the node itself gets through").0, 0);
}
