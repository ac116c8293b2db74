//! Every stored kind over HTTP: made, read, listed, shown as a table, changed, deleted; what is special about some of them.

use crate::common::{Cluster, PATIENCE};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

/// One valid object of each kind of these groups: path of its list, object.
fn samples() -> Vec<(&'static str, Value)> {
    let rules = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let webhook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "failurePolicy": "Ignore",
        "rules": rules, "objectSelector": {"matchLabels": {"never": "ever"}}});
    let request =
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
    let claim = json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}});
    vec![
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "64"}}]}}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/data"}}}),
        ),
        (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"spec": {"hard": {"pods": "100", "requests.cpu": "1"}}}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({"webhooks": [webhook]}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            json!({"webhooks": [webhook]}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            json!({"spec": {
            "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}]}}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            json!({"spec": {
            "policyName": "p", "validationActions": ["Audit"]}}),
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({"spec": {
            "request": request, "signerName": "example.com/s", "usages": ["client auth"]}}),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"spec": {
            "priorityLevelConfiguration": {"name": "p"}, "rules": []}}),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({"spec": {
            "type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}),
        ),
        ("/apis/networking.k8s.io/v1/ingressclasses", json!({"spec": {"controller": "example.com/c"}})),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
            json!({"spec": {
            "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({"spec": {"podSelector": {}}}),
        ),
        ("/apis/networking.k8s.io/v1/servicecidrs", json!({"spec": {"cidrs": ["10.200.0.0/24"]}})),
        ("/apis/node.k8s.io/v1/runtimeclasses", json!({"handler": "runc"})),
        ("/apis/resource.k8s.io/v1/deviceclasses", json!({"spec": {}})),
        ("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims", json!({"spec": claim})),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
            json!({"spec": {"spec": claim}}),
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            json!({"spec": {"driver": "d.example.com", "nodeName": "n",
            "pool": {"name": "n", "resourceSliceCount": 1, "generation": 1}}}),
        ),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {}})),
        ("/apis/storage.k8s.io/v1/csinodes", json!({"spec": {"drivers": []}})),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({"storageClassName": "fast"}),
        ),
        ("/apis/storage.k8s.io/v1/storageclasses", json!({"provisioner": "example.com/p"})),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "d.example.com", "nodeName": "n",
            "source": {"persistentVolumeName": "v"}}}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"driverName": "d.example.com", "parameters": {"a": "b"}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_made_read_listed_shown_changed_and_deleted() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    for (path, mut object) in samples() {
        object["metadata"] = json!({"name": "sample"});
        let made = admin.json("POST", path, &object).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {}", made.body);
        assert_eq!(made.headers.get("warning"), None, "{path}");
        let one = format!("{path}/sample");
        let labels = json!({"metadata": {"labels": {"a": "b"}}});
        let changed = admin.patch(&one, "application/merge-patch+json", &labels).await;
        assert_eq!(changed.status, StatusCode::OK, "{path}: {}", changed.body);
        // What is defaulted stays so: writing what was read changes nothing.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = admin.get(&one).await.expect("an answer");
            assert_eq!(read.body["metadata"]["labels"]["a"], "b", "{path}");
            let again = admin.json("PUT", &one, &read.body).await;
            // The server's own controllers write statuses beside this test.
            if again.status == StatusCode::CONFLICT && Instant::now() < deadline {
                continue;
            }
            assert_eq!(again.status, StatusCode::OK, "{path}: {}", again.body);
            assert_eq!(
                again.body["metadata"]["resourceVersion"], read.body["metadata"]["resourceVersion"],
                "{path}"
            );
            break;
        }
        let table = admin.clone().with_header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let shown = table.get(path).await.expect("an answer");
        let rows = shown.body["rows"].as_array().expect("rows");
        assert!(
            rows.iter().any(|row| row["object"]["metadata"]["name"] == "sample"),
            "{path}: {}",
            shown.body
        );
        let gone = admin.delete(&one).await;
        assert_eq!(gone.status, StatusCode::OK, "{path}: {}", gone.body);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_request_knows_who_asked_and_is_approved_apart() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let (_, mut object) = samples().into_iter().find(|(at, _)| *at == path).expect("a sample");
    object["metadata"] = json!({"name": "c"});
    object["spec"]["username"] = "somebody-else".into();
    object["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let made = admin.json("POST", path, &object).await.body;
    assert_eq!(made["spec"]["username"], "admin");
    assert!(
        made["spec"]["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:masters")))
    );
    assert_eq!(made["status"], json!({}));
    let condition = json!({"type": "Approved", "status": "True", "reason": "Test"});
    let with = |conditions: Value| {
        let mut changed = made.clone();
        changed["status"] = json!({"conditions": conditions, "certificate": null});
        changed["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        changed
    };
    // The main resource and the status do not approve.
    let plain = admin.json("PUT", &format!("{path}/c"), &with(json!([condition]))).await;
    assert_eq!(plain.body["status"], json!({}));
    let status = admin.json("PUT", &format!("{path}/c/status"), &with(json!([condition]))).await;
    assert_eq!(status.body["status"].get("conditions"), None, "{}", status.body);
    let approved = admin.json("PUT", &format!("{path}/c/approval"), &with(json!([condition]))).await;
    assert_eq!(approved.body["status"]["conditions"][0]["type"], "Approved", "{}", approved.body);
    assert!(approved.body["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let denied = admin
        .json("PUT", &format!("{path}/c/approval"), &with(json!([{"type": "Denied", "status": "True"}])))
        .await;
    assert_eq!(denied.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", denied.body);
    server.finish().await;
}
