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
