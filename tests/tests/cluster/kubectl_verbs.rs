//! kubectl 1.35 verb by verb on hollow nodes: every command that speaks to the API server, each with what it has to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::tools::run;
use coracle_tests::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, set: one}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: web, image: 'web:1'}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {set: one}}
data: {color: red}
";

/// A child that ends with the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs commands in turn; each has to succeed and to print its text.
fn all(cluster: &Cluster, commands: &[(&str, &str)]) {
    for (command, expected) in commands {
        let ran = cluster.kubectl(command);
        let printed = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            ran.success && printed.contains(expected),
            "{command}\nexpected: {expected}\nprinted: {printed}"
        );
    }
}

/// Writes a file beside the cluster; its path.
fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.data().join(name);
    std::fs::write(&path, text).expect("write");
    path.display().to_string()
}

#[test]
fn every_verb_of_kubectl_does_what_it_says() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "2"]);
    wait_for("nodes without taints", SOON, || {
        let taints = cluster.kubectl("get nodes -o jsonpath={.items[*].spec.taints}").result()?;
        if taints.is_empty() { Ok(()) } else { Err(taints) }
    });
    apply_diff_prune(&cluster);
    edit_and_patch(&cluster);
    explain_and_discovery(&cluster);
    output_formats(&cluster);
    auth_and_tokens(&cluster);
    change_in_place(&cluster);
    rollouts(&cluster);
    generators(&cluster);
    nodes_and_certificates(&cluster);
    pods_and_debugging(&cluster);
    proxy_and_watch(&cluster);
    replace_wait_and_delete(&cluster);
}

fn apply_diff_prune(cluster: &Cluster) {
    let red = file(cluster, "red.yaml", WEB);
    let blue = file(cluster, "blue.yaml", &WEB.replace("red", "blue"));
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, labels: {set: one}}\n";
    let other = file(cluster, "other.yaml", other);
    let run = |line: String| cluster.kubectl(&line);
    assert!(run(format!("apply -f {red}")).ok().contains("deployment.apps/web created"));
    assert!(run(format!("apply -f {red}")).ok().contains("configmap/settings unchanged"));
    assert_eq!(run(format!("diff -f {red}")).ok(), "");
    let differs = run(format!("diff -f {blue}"));
    assert!(!differs.success && differs.stdout.contains("+  color: blue"), "{differs:?}");
    assert!(run(format!("apply --dry-run=server -f {blue}")).ok().contains("configured (server dry run)"));
    let conflict = run(format!("apply --server-side --field-manager=other -f {blue}")).err();
    assert!(
        conflict.contains(
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.color"
        ),
        "{conflict}"
    );
    assert!(
        run(format!("apply --server-side -f {blue}")).ok().contains("configmap/settings serverside-applied")
    );
    run(format!("apply --server-side --force-conflicts --field-manager=other -f {blue}")).ok();
    assert!(run("apply view-last-applied configmap/settings".into()).ok().contains("color: blue"));
    assert!(
        run(format!("apply set-last-applied --create-annotation=true -f {blue}"))
            .ok()
            .contains("configmap/settings")
    );
    let pruned = run(format!("apply --prune -l set=one --prune-allowlist=core/v1/ConfigMap -f {other}")).ok();
    assert!(
        pruned.contains("configmap/other created") && pruned.contains("configmap/settings pruned"),
        "{pruned}"
    );
    assert!(run(format!("delete -f {other}")).ok().contains("configmap \"other\" deleted"));
}

fn edit_and_patch(cluster: &Cluster) {
    let editor = file(cluster, "editor", "#!/bin/sh\nsed -i 's/replicas: 2/replicas: 3/' \"$1\"\n");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let mut edit = cluster.kubectl_command();
    let edited = run(edit.args(["edit", "deployment", "web"]).env("KUBE_EDITOR", &editor)).ok();
    assert!(edited.contains("deployment.apps/web edited"), "{edited}");
    all(
        cluster,
        &[
            ("get deployment web -o jsonpath={.spec.replicas}", "3"),
            ("patch deployment web -p '{\"spec\":{\"replicas\":1}}'", "patched"),
            // Of an object that no controller writes: another write between kubectl's read and its patch is a change.
            ("patch namespace default -p '{\"metadata\":{\"labels\":{\"a\":\"b\"}}}'", "patched"),
            ("patch namespace default -p '{\"metadata\":{\"labels\":{\"a\":\"b\"}}}'", "patched (no change)"),
            (
                "patch deployment web --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]'",
                "patched",
            ),
            (
                "patch deployment web --type=merge -p '{\"metadata\":{\"annotations\":{\"a\":\"b\"}}}'",
                "patched",
            ),
            (
                "patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":1}}'",
                "scale.autoscaling/web patched",
            ),
            ("get deployment web --subresource=status -o name", "deployment.apps/web"),
            ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
        ],
    );
}

fn explain_and_discovery(cluster: &Cluster) {
    let crd = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bt"]}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties":
            {"masts": {"type": "integer", "description": "How many masts."}}}}}}}]}});
    cluster.kubectl_stdin("create -f -", &crd.to_string()).ok();
    cluster.kubectl("wait --for=condition=Established crd/boats.example.com --timeout=30s").ok();
    wait_for("the definition's schema", SOON, || cluster.kubectl("explain boat.spec.masts").result());
    all(
        cluster,
        &[
            ("explain deployment.spec.strategy", "FIELD: strategy <DeploymentStrategy>"),
            ("explain pod --recursive", "containers\t<[]Container> -required-"),
            ("explain crd.spec.names", "FIELD: names <CustomResourceDefinitionNames>"),
            ("explain boat.spec.masts", "How many masts."),
            ("explain hpa --api-version=autoscaling/v1", "VERSION:    v1"),
            ("api-resources --api-group=apps -o name", "statefulsets.apps"),
            ("api-resources --categories=all -o name", "cronjobs.batch"),
            ("api-resources --namespaced=false --verbs=list -o wide", "customresourcedefinitions"),
            ("api-resources --api-group=example.com", "bt"),
            ("api-versions", "resource.k8s.io/v1"),
            ("version", "Server Version: v1.35"),
            ("cluster-info", "Kubernetes control plane"),
            ("config view", "certificate-authority-data: DATA+OMITTED"),
            ("config get-contexts -o name", "coracle"),
            ("get --raw /openapi/v3", "apis/apps/v1"),
            ("get --raw /livez?verbose", "livez check passed"),
        ],
    );
}

fn output_formats(cluster: &Cluster) {
    all(
        cluster,
        &[
            ("get deployment web", "web    1/1     1            1"),
            ("get deployment web -o wide", "CONTAINERS"),
            ("get deployment web -o custom-columns=N:.metadata.name,R:.spec.replicas", "web   1"),
            ("get deployment web -o go-template='{{.metadata.name}} has {{.spec.replicas}}'", "web has 1"),
            ("get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'", "web:1"),
            ("get deployment web -o jsonpath-as-json={.spec.replicas}", "[\n    1\n]"),
            ("get deployment web -o name", "deployment.apps/web"),
            ("get deployment web -o json", "\"kind\": \"Deployment\""),
            ("get deployment web -o yaml --show-managed-fields", "manager: kubectl"),
            ("get deployment,rs -o kyaml", "kind: \"List\""),
            ("get deployment web -L app --show-labels", "app=web"),
            ("get pods --sort-by=.metadata.name -o name", "pod/web-"),
            ("get pods -A -l app=web --field-selector=status.phase=Running --no-headers", "Running"),
            ("get pods --chunk-size=1", "web-"),
            ("get all", "replicaset.apps/web-"),
            ("get deployments.v1.apps", "web"),
        ],
    );
    let missing = cluster.kubectl("get nonsense").err();
    assert!(missing.contains("the server doesn't have a resource type \"nonsense\""), "{missing}");
    assert_eq!(cluster.kubectl("get deployment none --ignore-not-found").ok(), "");
}

fn auth_and_tokens(cluster: &Cluster) {
    let role = file(
        cluster,
        "role.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: default}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n",
    );
    let reconciled = cluster.kubectl(&format!("auth reconcile -f {role}")).ok();
    assert!(reconciled.contains("role.rbac.authorization.k8s.io/reader reconciled"), "{reconciled}");
    all(
        cluster,
        &[
            ("auth can-i --list", "*.*"),
            ("auth can-i create pods", "yes"),
            ("auth whoami", "kubernetes-admin"),
            ("auth whoami --as=someone --as-group=some", "someone"),
            ("create rolebinding reads --role=reader --serviceaccount=default:default", "created"),
            ("auth can-i get pods --as=system:serviceaccount:default:default", "yes"),
        ],
    );
    let refused = cluster.kubectl("auth can-i delete pods --as=system:serviceaccount:default:default");
    assert!(!refused.success && refused.stdout.starts_with("no"), "{refused:?}");
    assert_eq!(
        cluster.kubectl("create token default --duration=10m --audience=a").ok().split('.').count(),
        3
    );
}

fn change_in_place(cluster: &Cluster) {
    all(
        cluster,
        &[
            ("label deployment web x=y", "labeled"),
            ("label pods -l app=web x=y", "labeled"),
            ("label deployment web x-", "unlabeled"),
            ("annotate deployment web a=c --overwrite", "annotated"),
            ("set image deployment/web web=web:2", "image updated"),
            ("set env deployment/web A=b", "env updated"),
            ("set env deployment/web --list", "A=b"),
            ("set resources deployment/web --limits=cpu=100m", "resource requirements updated"),
            ("set serviceaccount deployment/web default", "serviceaccount updated"),
            ("set subject rolebinding reads --user=u", "subjects updated"),
            ("expose deployment web --port=80 --target-port=8080", "exposed"),
            ("set selector service web app=web", "selector updated"),
            ("scale deployment web --replicas=2 --current-replicas=1", "scaled"),
            ("autoscale deployment web --min=1 --max=3 --cpu=50%", "autoscaled"),
        ],
    );
    let wrong = cluster.kubectl("scale deployment web --replicas=5 --current-replicas=9").err();
    assert!(wrong.contains("Expected replicas to be 9, was 2"), "{wrong}");
    let taken = cluster.kubectl("label deployment web app=other").err();
    assert!(taken.contains("already has a value (web), and --overwrite is false"), "{taken}");
}

fn rollouts(cluster: &Cluster) {
    all(
        cluster,
        &[
            ("rollout status deployment/web --timeout=90s", "successfully rolled out"),
            ("rollout history deployment/web", "REVISION"),
            ("rollout history deployment/web --revision=1", "web:1"),
            ("rollout undo deployment/web --to-revision=1", "rolled back"),
            ("rollout pause deployment/web", "paused"),
            ("rollout resume deployment/web", "resumed"),
            ("rollout restart deployment/web", "restarted"),
            ("rollout status deployment/web --timeout=90s", "successfully rolled out"),
            ("get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'", "web:1"),
        ],
    );
}

fn generators(cluster: &Cluster) {
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["example.com".into()]).expect("params");
    let cert = file(cluster, "tls.crt", &params.self_signed(&key).expect("signed").pem());
    let key = file(cluster, "tls.key", &key.serialize_pem());
    cluster.kubectl(&format!("create secret tls st --cert={cert} --key={key}")).ok();
    all(
        cluster,
        &[
            ("create clusterrole cr --verb=get --resource=pods", "created"),
            ("create clusterrolebinding crb --clusterrole=cr --user=u", "created"),
            ("create configmap cm --from-literal=a=b", "created"),
            ("create cronjob cj --image=i --schedule='0 0 1 1 *'", "created"),
            ("create deployment dep --image=i --replicas=1", "created"),
            ("create ingress ing --rule=h/p=s:80", "created"),
            ("create job jb --image=i", "created"),
            ("create job fromcj --from=cronjob/cj", "created"),
            ("create namespace nsx", "created"),
            ("create poddisruptionbudget pdb --selector=a=b --min-available=1", "created"),
            ("create priorityclass pc --value=10", "created"),
            ("create quota q --hard=pods=100", "created"),
            ("create role ro --verb=get --resource=pods", "created"),
            ("create rolebinding rb --role=ro --user=u", "created"),
            ("create secret generic sg --from-literal=a=b", "created"),
            ("create secret docker-registry sd --docker-username=u --docker-password=p", "created"),
            ("create service clusterip s1 --tcp=80", "created"),
            ("create service nodeport s2 --tcp=80", "created"),
            ("create service loadbalancer s3 --tcp=80", "created"),
            ("create service externalname s4 --external-name=a.b", "created"),
            ("create serviceaccount sa", "created"),
            ("create token sa", "."),
            ("get svc,ing,hpa,pdb,cj,job,quota", "cronjob.batch/cj"),
            ("describe svc,ing,hpa,pdb,cj,job,quota,sa", "Name:"),
            ("delete cj,jobs,ing,pdb,quota,hpa --all --wait=false", "deleted"),
            ("delete namespace nsx --timeout=60s", "deleted"),
        ],
    );
}

fn nodes_and_certificates(cluster: &Cluster) {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "sailor");
    let pem = params.serialize_request(&key).expect("request").pem().expect("PEM");
    let request = serde_json::json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "sailor"}, "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        "request": k8s_openapi::ByteString(pem.into_bytes())}});
    cluster.kubectl_stdin("create -f -", &request.to_string()).ok();
    all(
        cluster,
        &[
            ("certificate approve sailor", "approved"),
            ("wait --for=jsonpath={.status.certificate} csr/sailor --timeout=30s", "condition met"),
            ("get csr sailor", "Approved,Issued"),
            ("cordon node-a", "cordoned"),
            ("taint node node-a k=v:NoSchedule", "tainted"),
            ("taint node node-a k-", "untainted"),
            ("drain node-a --ignore-daemonsets --force --timeout=60s", "drained"),
            ("uncordon node-a", "uncordoned"),
            ("describe node node-a", "Allocated resources"),
        ],
    );
}

fn pods_and_debugging(cluster: &Cluster) {
    all(
        cluster,
        &[
            ("run one --image=one:1 --labels=a=b", "pod/one created"),
            ("wait --for=condition=Ready pod/one --timeout=60s", "condition met"),
            ("debug one --image=dbg:1 -c dbg --attach=false --profile=general", ""),
            ("get pod one -o jsonpath={.spec.ephemeralContainers[*].name}", "dbg"),
            ("debug one --image=dbg:1 --copy-to=copy --attach=false --profile=general", ""),
            ("get pod copy -o jsonpath={.spec.containers[*].name}", "one"),
            ("debug node/node-a --image=dbg:1 --attach=false --profile=general", "Creating debugging pod"),
            ("logs one -c one", "hollow"),
            ("describe pod one", "Ephemeral Containers:"),
        ],
    );
    wait_for("the pod's events", SOON, || {
        let events = cluster.kubectl("events --for pod/one").result()?;
        if events.contains("Container started") { Ok(()) } else { Err(events) }
    });
    all(cluster, &[("get events --sort-by=.metadata.creationTimestamp", "LAST SEEN")]);
}

fn proxy_and_watch(cluster: &Cluster) {
    let mut proxy = cluster.kubectl_command();
    proxy.args(["proxy", "--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut proxy = Background(proxy.spawn().expect("kubectl"));
    let mut line = String::new();
    BufReader::new(proxy.0.stdout.take().expect("stdout")).read_line(&mut line).expect("its address");
    let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap_or_else(|error| panic!("{line}: {error}"));
    stream.write_all(b"GET /api/v1/namespaces/default HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("\"kind\":\"Namespace\""), "{answer}");

    let mut watch = cluster.kubectl_command();
    watch.args(["get", "configmaps", "-l", "watched=yes", "--watch-only", "--output-watch-events"]);
    watch.args(["-o", "custom-columns=T:.type,N:.object.metadata.name", "--no-headers"]);
    let mut watch = Background(watch.stdout(Stdio::piped()).spawn().expect("kubectl"));
    let mut seen = BufReader::new(watch.0.stdout.take().expect("stdout")).lines();
    // Which of these the watch sees depends on when it begins; it goes on until it has seen one.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let made = |number: u32| format!("create configmap seen-{number}");
            for number in (0..200).take_while(|_| !stop.load(std::sync::atomic::Ordering::Relaxed)) {
                cluster.kubectl(&made(number)).ok();
                cluster.kubectl(&format!("label configmap seen-{number} watched=yes")).ok();
            }
        });
        let first = seen.next().expect("the watch goes on").expect("a line");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let words: Vec<&str> = first.split_whitespace().collect();
        assert!(matches!(words[..], ["ADDED", name] if name.starts_with("seen-")), "{first}");
    });
}

fn replace_wait_and_delete(cluster: &Cluster) {
    let web = file(cluster, "again.yaml", WEB);
    let replaced = cluster.kubectl(&format!("replace --force -f {web}")).ok();
    assert!(replaced.contains("deployment.apps/web replaced"), "{replaced}");
    all(
        cluster,
        &[
            ("wait --for=condition=Available deployment/web --timeout=60s", "condition met"),
            ("wait --for=jsonpath={.status.replicas}=2 deployment/web --timeout=60s", "condition met"),
            ("wait --for=create configmap/settings --timeout=10s", "condition met"),
            ("delete deployment dep --cascade=foreground --timeout=60s", "deleted"),
            ("delete deployment web --cascade=orphan", "deleted"),
            ("get rs -l app=web -o name", "replicaset.apps/web-"),
            ("delete rs -l app=web", "deleted"),
            ("delete pod one --grace-period=0 --force", "force deleted"),
            ("wait --for=delete pod/one --timeout=60s", ""),
            ("delete crd boats.example.com --timeout=60s", "deleted"),
        ],
    );
    let gone = cluster.kubectl("get boats").err();
    // kubectl still has the discovery of before.
    assert!(gone.contains("the server could not find the requested resource"), "{gone}");
}
