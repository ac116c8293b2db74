//! Claims of volumes and requests for certificates on hollow nodes: what their controllers make of them.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

fn shows(cluster: &Cluster, what: &str, path: &str, expected: &str) {
    wait_for(&format!("{what} shows {expected} at {path}"), PATIENCE, || {
        let found = cluster.kubectl(&format!("get {what} -o jsonpath={path}")).result()?;
        if found == expected { Ok(()) } else { Err(found) }
    });
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: small}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/small}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: large}
spec: {capacity: {storage: 5Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp/large}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 2Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  nodeName: nowhere
  containers: [{name: c, image: "anything:v1"}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - name: scratch
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: "", resources: {requests: {storage: 1Gi}}}}}
"#;

#[test]
fn claims_are_bound_protected_and_released() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    cluster.kubectl_stdin("apply -f -", VOLUMES).ok();
    shows(&cluster, "pvc/data", "{.status.phase}/{.spec.volumeName}", "Bound/large");
    shows(&cluster, "pvc/user-scratch", "{.status.phase}/{.spec.volumeName}", "Bound/small");
    shows(&cluster, "pv/large", "{.status.phase}/{.spec.claimRef.name}", "Bound/data");
    // As long as a pod uses it the claim stays, and as long as a claim uses it the volume.
    cluster.kubectl("delete pvc/data pv/small --wait=false").ok();
    shows(&cluster, "pvc/data", "{.metadata.finalizers}", "[\"kubernetes.io/pvc-protection\"]");
    cluster.kubectl("delete pod/user --force --grace-period=0").ok();
    for what in ["pvc/data", "pvc/user-scratch", "pv/small"] {
        cluster.kubectl(&format!("wait --for=delete {what} --timeout=60s")).ok();
    }
    shows(&cluster, "pv/large", "{.status.phase}", "Released");
}

/// A request of this name, as a manifest.
fn request(name: &str, common_name: &str, organization: &str, signer: &str, usage: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    let object = serde_json::json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "signerName": signer,
            "usages": ["digital signature", usage],
            "expirationSeconds": 3600,
            "request": k8s_openapi::ByteString(pem.into_bytes()),
        },
    });
    object.to_string()
}

#[test]
fn certificates_are_signed_for_those_who_are_approved() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    let client = "kubernetes.io/kube-apiserver-client";
    cluster.kubectl_stdin("create -f -", &request("jane", "jane", "developers", client, "client auth")).ok();
    cluster.kubectl("certificate approve jane").ok();
    wait_for("jane has a certificate", PATIENCE, || {
        let found = cluster.kubectl("get csr jane -o jsonpath={.status.certificate}").result()?;
        // `-----BEGIN CERTI` in base64.
        if found.starts_with("LS0tLS1CRUdJTiBDRVJUS") { Ok(()) } else { Err(found) }
    });
    cluster.kubectl_stdin("create -f -", &request("bad", "jane", "developers", client, "server auth")).ok();
    cluster.kubectl("certificate approve bad").ok();
    shows(
        &cluster,
        "csr/bad",
        "{.status.conditions[?(@.type==\"Failed\")].reason}",
        "SignerValidationFailure",
    );
    let administrator = request("root", "jane", "system:masters", client, "client auth");
    let refused = cluster.kubectl_stdin("create -f -", &administrator).err();
    assert!(refused.contains("system:masters group is not allowed"), "{refused}");
    // Who may create requests for kubelets' certificates gets them without being asked: administrators may.
    let kubelet = request(
        "node",
        "system:node:x",
        "system:nodes",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
    );
    cluster.kubectl_stdin("create -f -", &kubelet).ok();
    shows(&cluster, "csr/node", "{.status.conditions[0].reason}", "AutoApproved");
}

/// Waits for an event of this reason and text about the object.
fn tells(cluster: &Cluster, kind: &str, name: &str, reason: &str, text: &str) {
    let events = format!(
        "get events --field-selector involvedObject.kind={kind},involvedObject.name={name},reason={reason} -o jsonpath={{.items[*].message}}"
    );
    wait_for(&format!("{kind} {name} has an event {reason} with {text:?}"), PATIENCE, || {
        let found = cluster.kubectl(&events).result()?;
        if found.contains(text) { Ok(()) } else { Err(found) }
    });
}

const CLASSES: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: disks.example.com
allowVolumeExpansion: true
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: disks.example.com
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: nobody}
provisioner: kubernetes.io/no-provisioner
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: former}
provisioner: kubernetes.io/aws-ebs
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: now}
spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: later}
spec: {accessModes: [ReadWriteOnce], storageClassName: late, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: unserved}
spec: {accessModes: [ReadWriteOnce], storageClassName: nobody, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: migrated}
spec: {accessModes: [ReadWriteOnce], storageClassName: former, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: classless}
spec: {accessModes: [ReadWriteOnce], storageClassName: none-such, resources: {requests: {storage: 1Gi}}}
"#;

/// What a provisioner makes of the claim `NAME` with the uid `UID`.
const PROVISIONED: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata:
  name: pvc-UID
  annotations: {pv.kubernetes.io/provisioned-by: disks.example.com}
  finalizers: [external-provisioner.volume.kubernetes.io/finalizer]
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: CLASS
  persistentVolumeReclaimPolicy: Delete
  csi: {driver: disks.example.com, volumeHandle: disk-NAME}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: default, name: NAME, uid: UID}
"#;

/// Plays the provisioner for a claim; the volume's name.
fn provision(cluster: &Cluster, claim: &str, class: &str) -> String {
    shows(
        cluster,
        &format!("pvc/{claim}"),
        "{.metadata.annotations.volume\\.kubernetes\\.io/storage-provisioner}",
        "disks.example.com",
    );
    let uid = cluster.kubectl(&format!("get pvc/{claim} -o jsonpath={{.metadata.uid}}")).ok();
    let text = PROVISIONED.replace("UID", &uid).replace("NAME", claim).replace("CLASS", class);
    cluster.kubectl_stdin("create -f -", &text).ok();
    format!("pvc-{uid}")
}

#[test]
fn claims_are_handed_to_their_provisioners_and_resizers() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    cluster.kubectl_stdin("apply -f -", CLASSES).ok();
    let waiting = |driver: &str| {
        format!(
            "Waiting for a volume to be created either by the external provisioner '{driver}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        )
    };
    let claim = "PersistentVolumeClaim";
    tells(&cluster, claim, "now", "ExternalProvisioning", &waiting("disks.example.com"));
    tells(&cluster, claim, "migrated", "ExternalProvisioning", &waiting("ebs.csi.aws.com"));
    tells(
        &cluster,
        claim,
        "later",
        "WaitForFirstConsumer",
        "waiting for first consumer to be created before binding",
    );
    let no_plugin = "no volume plugin matched name: kubernetes.io/no-provisioner";
    tells(&cluster, claim, "unserved", "ProvisioningFailed", no_plugin);
    tells(
        &cluster,
        claim,
        "classless",
        "ProvisioningFailed",
        "storageclass.storage.k8s.io \"none-such\" not found",
    );

    let volume = provision(&cluster, "now", "fast");
    shows(&cluster, "pvc/now", "{.status.phase}/{.status.capacity.storage}", "Bound/1Gi");

    // Its resizer is told when the claim asks for more.
    cluster.kubectl("patch pvc/now -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"2Gi\"}}}}").ok();
    tells(
        &cluster,
        claim,
        "now",
        "ExternalExpanding",
        "waiting for an external controller to expand this PVC",
    );

    // A claim of the other class goes to the provisioner when its pod has got a node.
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "first"}, "spec": {
        "containers": [{"name": "c", "image": "anything:v1"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "later"}}]}}"#;
    cluster.kubectl_stdin("create -f -", pod).ok();
    let node = cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok();
    shows(&cluster, "pvc/later", "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}", &node);
    provision(&cluster, "later", "late");
    shows(&cluster, "pod/first", "{.spec.nodeName}", &node);

    // The claim goes, and its volume waits for whoever made it.
    cluster.kubectl("delete pvc/now").ok();
    shows(&cluster, &format!("pv/{volume}"), "{.status.phase}", "Released");
    cluster.kubectl(&format!("delete pv/{volume} --wait=false")).ok();
    let finalizer = "[\"external-provisioner.volume.kubernetes.io/finalizer\"]";
    shows(&cluster, &format!("pv/{volume}"), "{.metadata.finalizers}", finalizer);
    cluster
        .kubectl(&format!("patch pv/{volume} --type=merge -p {{\"metadata\":{{\"finalizers\":null}}}}"))
        .ok();
    cluster.kubectl(&format!("wait --for=delete pv/{volume} --timeout=60s")).ok();
}

const DISKS: &str = r#"
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: plain.example.com}
spec: {attachRequired: false}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], csi: {driver: disks.example.com, volumeHandle: disk-1}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: disk, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: plain}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], csi: {driver: plain.example.com, volumeHandle: plain-1}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: plain}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: plain, resources: {requests: {storage: 1Gi}}}
"#;

/// A pod on a node that uses both disks.
fn disk_user(name: &str, node: &str) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
    "nodeName": node,
    "containers": [{"name": "c", "image": "anything:v1"}],
    "volumes": [
        {"name": "plain", "persistentVolumeClaim": {"claimName": "plain"}},
        {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}},
    ]}})
    .to_string()
}

/// Waits until there is one attachment, to this node; its name.
fn attached_to(cluster: &Cluster, node: &str) -> String {
    let path = "{range.items[*]}{.spec.attacher},{.spec.nodeName},{.spec.source.persistentVolumeName}{end}";
    shows(cluster, "volumeattachments", path, &format!("disks.example.com,{node},disk"));
    cluster.kubectl("get volumeattachments -o jsonpath={.items[*].metadata.name}").ok()
}

/// Plays the attacher that has attached.
fn attach(cluster: &Cluster, attachment: &str) {
    let finalizer = "{\"metadata\":{\"finalizers\":[\"external-attacher/disks-example-com\"]}}";
    cluster.kubectl(&format!("patch volumeattachment {attachment} --type=merge -p {finalizer}")).ok();
    let done = "{\"status\":{\"attached\":true}}";
    cluster
        .kubectl(&format!("patch volumeattachment {attachment} --subresource=status --type=merge -p {done}"))
        .ok();
}

/// Plays the attacher that has detached.
fn detach(cluster: &Cluster, attachment: &str) {
    wait_for(&format!("the end of {attachment} is asked for"), PATIENCE, || {
        let path = "-o jsonpath={.metadata.deletionTimestamp}";
        let found = cluster.kubectl(&format!("get volumeattachment {attachment} {path}")).result()?;
        if found.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    let gone = "{\"metadata\":{\"finalizers\":null}}";
    cluster.kubectl(&format!("patch volumeattachment {attachment} --type=merge -p {gone}")).ok();
}

/// Plays the kubelet that mounts these volumes.
fn mounts(cluster: &Cluster, node: &str, volumes: &str) {
    let patch = format!("{{\"status\":{{\"volumesInUse\":[{volumes}]}}}}");
    cluster.kubectl(&format!("patch node {node} --subresource=status --type=merge -p {patch}")).ok();
}

#[test]
fn volumes_of_drivers_follow_their_pods_from_node_to_node() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "2"]);
    cluster.kubectl_stdin("apply -f -", DISKS).ok();
    let nodes = cluster.kubectl("get nodes -o jsonpath={.items[*].metadata.name}").ok();
    let [one, two] = nodes.split(' ').collect::<Vec<_>>()[..] else { panic!("two nodes: {nodes}") };
    let (of_one, of_two) = (format!("node/{one}"), format!("node/{two}"));
    let reported = "{.status.volumesAttached[*].name}";
    let disk = "kubernetes.io/csi/disks.example.com^disk-1";
    let success = "AttachVolume.Attach succeeded for volume \"disk\"";

    // One of the two disks is of a driver that attaches nothing.
    cluster.kubectl_stdin("create -f -", &disk_user("first", one)).ok();
    let to_one = attached_to(&cluster, one);
    attach(&cluster, &to_one);
    shows(&cluster, &of_one, reported, disk);
    tells(&cluster, "Pod", "first", "SuccessfulAttachVolume", success);
    mounts(&cluster, one, &format!("\"{disk}\""));

    // Another node gets it when the first pod is gone and its kubelet has let go, and not before.
    cluster.kubectl_stdin("create -f -", &disk_user("second", two)).ok();
    let taken = "Multi-Attach error for volume \"disk\" Volume is already used by pod(s) first";
    tells(&cluster, "Pod", "second", "FailedAttachVolume", taken);
    cluster.kubectl("delete pod/first --force --grace-period=0").ok();
    cluster.kubectl("wait --for=delete pod/first --timeout=60s").ok();
    assert_eq!(attached_to(&cluster, one), to_one);
    shows(&cluster, &format!("volumeattachment/{to_one}"), "{.metadata.deletionTimestamp}", "");
    shows(&cluster, &of_one, reported, disk);
    mounts(&cluster, one, "");
    shows(&cluster, &of_one, reported, "");
    assert_eq!(
        attached_to(&cluster, one),
        to_one,
        "still the only one: the first node has it until its attacher is done"
    );
    detach(&cluster, &to_one);
    let to_two = attached_to(&cluster, two);
    attach(&cluster, &to_two);
    shows(&cluster, &of_two, reported, disk);
    tells(&cluster, "Pod", "second", "SuccessfulAttachVolume", success);

    // From a node that is off and stays so it is taken however much is mounted there.
    mounts(&cluster, two, &format!("\"{disk}\""));
    cluster
        .kubectl(&format!("taint nodes {two} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"))
        .ok();
    cluster.kubectl("wait --for=delete pod/second --timeout=60s").ok();
    shows(&cluster, &of_two, reported, "");
    detach(&cluster, &to_two);
    cluster.kubectl(&format!("wait --for=delete volumeattachment/{to_two} --timeout=60s")).ok();
}

const TOKENS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
secrets: [{name: unused}, {name: mounted}]
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  nodeName: nowhere
  containers: [{name: c, image: "anything:v1"}]
  volumes: [{name: token, secret: {secretName: mounted}}]
"#;

/// Runs the cleaner, which looks when it starts, until `done`.
fn clean(cluster: &Cluster, done: impl FnOnce()) {
    let mut cleaner = std::process::Command::new(coracle_tests::tools::binaries().join("controller-manager"))
        .arg(format!("--kubeconfig={}", cluster.data().join("kubeconfig").display()))
        .args(["--controllers=legacy-serviceaccount-token-cleaner-controller", "--leader-elect=false"])
        .args(["--legacy-service-account-token-clean-up-period=1ms", "--secure-port=0"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a controller-manager");
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(done));
    cleaner.kill().expect("ends");
    cleaner.wait().expect("ends");
    if let Err(cause) = end {
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn token_secrets_that_nobody_uses_are_marked_and_deleted() {
    let cluster = Cluster::up(&["--runtime", "hollow", "--nodes", "1"]);
    cluster.kubectl_stdin("apply -f -", TOKENS).ok();
    let names = ["unused", "mounted", "own"];
    for name in names {
        let secret = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "robot"}}});
        cluster.kubectl_stdin("create -f -", &secret.to_string()).ok();
    }
    // Uses have been noted since today: nothing can be said of those before.
    let tracking = "configmap/kube-apiserver-legacy-service-account-token-tracking -n kube-system";
    let long_ago = "{\"data\":{\"since\":\"2020-01-01\"}}";
    cluster.kubectl(&format!("patch {tracking} --type=merge -p {long_ago}")).ok();
    for name in names {
        wait_for(&format!("{name} has its token"), PATIENCE, || {
            let found =
                cluster.kubectl(&format!("get secret/{name} -o jsonpath={{.data.token}}")).result()?;
            if found.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        });
    }
    let marks =
        "{range.items[?(@.metadata.labels.kubernetes\\.io/legacy-token-invalid-since)]}{.metadata.name}{end}";
    clean(&cluster, || shows(&cluster, "secrets", marks, "unused"));
    cluster
        .kubectl("label secret/unused kubernetes.io/legacy-token-invalid-since=2020-01-01 --overwrite")
        .ok();
    clean(&cluster, || {
        cluster.kubectl("wait --for=delete secret/unused --timeout=60s").ok();
    });
    // That a pod names one, and that no cluster made the other, keeps them.
    shows(&cluster, "secrets", "{.items[*].metadata.name}", "mounted own");
    shows(&cluster, "secrets", marks, "");
}
