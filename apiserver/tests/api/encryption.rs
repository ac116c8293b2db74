//! Encryption at rest over HTTPS on a real etcd: what etcd holds, who can read it, and how a key is brought in and out of use.

use crate::common::{Cluster, wait_for};
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

fn configuration(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
         resources: [{{resources: [secrets], providers: [{providers}]}}]"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_counts_without_a_restart() {
    let cluster = Cluster::new();
    let path = cluster.dir.path().join("encryption.yaml");
    let replace = |text: &str| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, &path).expect("moved");
    };
    replace(&configuration("{identity: {}}"));
    let file = format!("--encryption-provider-config={}", path.display());
    let server = cluster.server(&[&file, "--encryption-provider-config-automatic-reload"]).await;
    let admin = cluster.client(&server, Some("admin"));
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"word": "b3BlbiBzZXNhbWU="}});
    wait_for("a plain secret", || async {
        admin.json("POST", SECRETS, &object("plain")).await.status == StatusCode::CREATED
    })
    .await;
    assert!(stored(&cluster, "plain").contains("b3BlbiBzZXNhbWU="));
    replace(&configuration(&format!("{{{KEY}}}, {{identity: {{}}}}")));
    let path_of = |name: &str| format!("{SECRETS}/{name}");
    let sealed = "k8s:enc:aesgcm:v1:one:";
    wait_for("the key to be used", || async {
        let plain = admin.get(&path_of("plain")).await.expect("readable").body;
        assert_eq!(admin.json("PUT", &path_of("plain"), &plain).await.status, StatusCode::OK);
        stored(&cluster, "plain").contains(sealed)
    })
    .await;
    // What makes no sense changes nothing.
    replace("kind: Nonsense");
    for number in 0..5 {
        let name = format!("later-{number}");
        assert_eq!(admin.json("POST", SECRETS, &object(&name)).await.status, StatusCode::CREATED);
        assert!(stored(&cluster, &name).contains(sealed));
    }
    assert_eq!(admin.get(&path_of("plain")).await.expect("an answer").body["data"], object("plain")["data"]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_opened_and_written_anew_by_the_rules() {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().expect("a folder");
    let config = |providers: &str| {
        let path = dir.path().join("encryption.yaml");
        std::fs::write(&path, configuration(providers)).expect("written");
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
