//! Encryption at rest over HTTPS on a real etcd: what etcd holds, who can read it, and how a key is brought in and out of use.

mod common;

use common::{Cluster, wait_for};
use http::StatusCode;
use serde_json::json;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const KEY: &str = "aesgcm: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";

/// What etcd has of a secret.
fn stored(cluster: &Cluster, name: &str) -> String {
    let key = format!("/registry/secrets/kube-system/{name}");
    // Sealed values are no text; their beginning is.
    cluster.etcd.etcdctl(&["get", "--write-out=fields", &key])
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_opened_and_written_anew_by_the_rules() {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().expect("a folder");
    let config = |providers: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
             resources: [{{resources: [secrets], providers: [{providers}]}}]"
        );
        let path = dir.path().join("encryption.yaml");
        std::fs::write(&path, text).expect("written");
        format!("--encryption-provider-config={}", path.display())
    };
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"word": "b3BlbiBzZXNhbWU="}});

    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    wait_for("the server has made kube-system", || async {
        admin.get("/api/v1/namespaces/kube-system").await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    assert_eq!(admin.json("POST", SECRETS, &secret("old")).await.status, StatusCode::CREATED);
    server.finish().await;
    assert!(stored(&cluster, "old").contains("b3BlbiBzZXNhbWU="), "nothing is sealed unasked");

    let server = cluster.server(&[&config(&format!("{{{KEY}}}, {{identity: {{}}}}"))]).await;
    let admin = cluster.client(&server, Some("admin"));
    let mut watch = admin.watch(&format!("{SECRETS}?watch=1&fieldSelector=metadata.name=new")).await;
    assert_eq!(admin.json("POST", SECRETS, &secret("new")).await.status, StatusCode::CREATED);
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["data"]), (&json!("ADDED"), &secret("new")["data"]));
    let raw = stored(&cluster, "new");
    assert!(raw.contains("k8s:enc:aesgcm:v1:one:") && !raw.contains("b3BlbiBzZXNhbWU="), "{raw}");
    // Writing the same again is how upstream's guide brings a key into use.
    let old = admin.get(&format!("{SECRETS}/old")).await.expect("readable").body;
    let again = admin.json("PUT", &format!("{SECRETS}/old"), &old).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_ne!(again.body["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"]);
    assert!(stored(&cluster, "old").contains("k8s:enc:aesgcm:v1:one:"));
    server.finish().await;

    let server = cluster.server(&[&config(&format!("{{identity: {{}}}}, {{{KEY}}}"))]).await;
    let admin = cluster.client(&server, Some("admin"));
    let list = admin.get(SECRETS).await.expect("a list").body;
    let names: Vec<&str> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["new", "old"]);
    assert_eq!(admin.json("POST", SECRETS, &secret("plain")).await.status, StatusCode::CREATED);
    assert!(stored(&cluster, "plain").contains("b3BlbiBzZXNhbWU="));
    server.finish().await;
}
