//! Other API servers behind this one: requests passed on, discovery and schemas merged, availability kept; and the APIServices of what is here.

use crate::common::extension::{Extension, Seen, ca_bundle};
use crate::common::{Client, Cluster, Server, wait_for};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FISH: &str = "/apis/fish.example.com/v1/namespaces/default/fish";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn answer(seen: &Seen) -> (u16, Value) {
    let resource = json!({"name": "fish", "singularName": "fish", "namespaced": true, "kind": "Fish", "verbs": ["get", "list", "watch"]});
    match seen.path() {
        "/apis/fish.example.com/v1" => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "fish.example.com/v1", "resources": [resource]}),
        ),
        "/openapi/v3" => {
            let url = "/openapi/v3/apis/fish.example.com/v1?hash=1";
            (200, json!({"paths": {"apis/fish.example.com/v1": {"serverRelativeURL": url}}}))
        }
        "/openapi/v3/apis/fish.example.com/v1" => (200, json!({"openapi": "3.0.0"})),
        FISH => (200, json!({"kind": "FishList", "items": [], "method": seen.method, "sent": seen.body})),
        _ => (404, json!({"kind": "Status", "code": 404})),
    }
}

async fn start(cluster: &Cluster) -> Server {
    let (cert, key) = cluster.pki.issue("front-proxy", "front-proxy-client", &[]);
    let [cert, key] = [("cert", cert), ("key", key)]
        .map(|(name, path)| format!("--proxy-client-{name}-file={}", path.display()));
    cluster.server(&[&cert, &key]).await
}

async fn available(client: &Client, name: &str, reason: &str) -> Value {
    wait_for(reason, || async {
        let read = client.get(&format!("{SERVICES}/{name}")).await.expect("an answer");
        read.body["status"]["conditions"][0]["reason"] == reason
    })
    .await;
    client.get(&format!("{SERVICES}/{name}")).await.expect("an answer").body["status"]["conditions"][0]
        .clone()
}

fn service(cluster: &Cluster, port: u16) -> Value {
    json!({"metadata": {"name": "v1.fish.example.com"}, "spec": {"group": "fish.example.com", "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 10, "caBundle": ca_bundle(cluster),
        "service": {"namespace": "default", "name": "hooks", "port": port}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_passed_on_as_the_user_who_sent_them() {
    let cluster = Cluster::new();
    let server = start(&cluster).await;
    let admin = cluster.client(&server, Some("admin"));
    let fish = Extension::start(&cluster, answer).await;
    let made = admin.json("POST", SERVICES, &service(&cluster, fish.port)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert!(made.headers.get("warning").is_none(), "{:?}", made.headers);
    let condition = available(&admin, "v1.fish.example.com", "ServiceNotFound").await;
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("False"), &json!("service/hooks in \"default\" is not present"))
    );
    let refused = admin.get(FISH).await.expect("an answer");
    assert_eq!(
        (refused.status, &refused.body),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("service unavailable\n"))
    );

    let backend =
        json!({"metadata": {"name": "hooks"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.json("POST", "/api/v1/namespaces/default/services", &backend).await;
    let condition = available(&admin, "v1.fish.example.com", "Passed").await;
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!("all checks passed")));
    wait_for("requests are passed on", || async {
        admin.get(FISH).await.expect("an answer").status == StatusCode::OK
    })
    .await;
    let with_token =
        admin.clone().with_header("x-remote-user", "root").with_header("impersonate-user", "jane");
    let posted = with_token.json("POST", &format!("{FISH}?dryRun=All"), &json!({"a": 1})).await;
    // A reader that was not made one may not.
    assert_eq!(posted.status, StatusCode::FORBIDDEN, "{}", posted.body);
    let posted = admin.json("POST", &format!("{FISH}?dryRun=All"), &json!({"a": 1})).await;
    assert_eq!((&posted.body["method"], &posted.body["sent"]), (&json!("POST"), &json!({"a": 1})));
    let seen = fish.seen();
    let last = seen.last().expect("was asked");
    assert_eq!(last.uri, format!("{FISH}?dryRun=All"));
    let value = |name: &str| last.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!((value("x-remote-user"), value("x-remote-group")), (Some("admin"), Some("system:masters")));
    let refused = cluster.client(&server, Some("nobody")).get(FISH).await.expect("an answer");
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);

    let mut stream = admin.upgrade(&format!("{FISH}/one/connect"), "echo").await;
    stream.write_all(b"hello").await.expect("sends");
    let mut back = [0_u8; 5];
    tokio::time::timeout(crate::common::PATIENCE, stream.read_exact(&mut back))
        .await
        .expect("in time")
        .expect("reads");
    assert_eq!(&back, b"hello");
    drop(stream);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_schemas_of_all_servers_are_one() {
    let cluster = Cluster::new();
    let server = start(&cluster).await;
    let admin = cluster.client(&server, Some("admin"));
    let fish = Extension::start(&cluster, answer).await;
    let backend =
        json!({"metadata": {"name": "hooks"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    admin.json("POST", "/api/v1/namespaces/default/services", &backend).await;
    admin.json("POST", SERVICES, &service(&cluster, fish.port)).await;
    available(&admin, "v1.fish.example.com", "Passed").await;
    wait_for("requests are passed on", || async {
        admin.get("/apis/fish.example.com/v1").await.expect("an answer").status == StatusCode::OK
    })
    .await;
    let listed = |paths: &Value| {
        let paths = paths["paths"].as_array().cloned().unwrap_or_default();
        ["/apis/fish.example.com", "/apis/fish.example.com/v1"].map(|path| paths.contains(&json!(path)))
    };
    assert_eq!(listed(&admin.get("/").await.expect("an answer").body), [true, true]);
    let list = admin.get("/apis/fish.example.com/v1").await.expect("an answer").body;
    assert_eq!(list["resources"][0]["name"], "fish");
    let group = admin.get("/apis/fish.example.com").await.expect("an answer").body;
    assert_eq!(group["preferredVersion"]["groupVersion"], "fish.example.com/v1");
    let groups = admin.get("/apis").await.expect("an answer").body;
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
    assert_eq!(names.last(), Some(&"fish.example.com"));
    let all = admin.clone().with_header("accept", AGGREGATED).get("/apis").await.expect("an answer").body;
    let entry = all["items"].as_array().and_then(|items| items.last()).cloned().expect("an entry");
    assert_eq!(entry["metadata"]["name"], "fish.example.com");
    let version = &entry["versions"][0];
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["responseKind"]["kind"]),
        (&json!("Current"), &json!("Fish"))
    );
    let index = admin.get("/openapi/v3").await.expect("an answer").body;
    let url =
        index["paths"]["apis/fish.example.com/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    assert_eq!(admin.get(&url).await.expect("an answer").body["openapi"], "3.0.0");
    assert_eq!(admin.delete(&format!("{SERVICES}/v1.fish.example.com")).await.status, StatusCode::OK);
    wait_for("the group is gone", || async {
        admin.get(FISH).await.expect("an answer").status == StatusCode::NOT_FOUND
    })
    .await;
    assert_eq!(listed(&admin.get("/").await.expect("an answer").body), [false, false]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_registered() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let condition = available(&admin, "v2.autoscaling", "Local").await;
    assert_eq!(condition["status"], "True");
    let read = admin.get(&format!("{SERVICES}/v2.autoscaling")).await.expect("an answer").body;
    assert_eq!(
        (&read["spec"]["groupPriorityMinimum"], &read["spec"]["versionPriority"]),
        (&json!(17500), &json!(30))
    );
    assert_eq!(read["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(admin.get(&format!("{SERVICES}/v1.")).await.expect("an answer").status, StatusCode::OK);
    let definition = json!({"metadata": {"name": "cats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "cats", "kind": "Cat"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(admin.json("POST", definitions, &definition).await.status, StatusCode::CREATED);
    available(&admin, "v1.example.com", "Local").await;
    assert_eq!(admin.delete(&format!("{definitions}/cats.example.com")).await.status, StatusCode::OK);
    wait_for("the APIService is gone", || async {
        admin.get(&format!("{SERVICES}/v1.example.com")).await.expect("an answer").status
            == StatusCode::NOT_FOUND
    })
    .await;
    server.finish().await;
}
