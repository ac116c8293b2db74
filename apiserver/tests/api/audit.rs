//! The audit log over HTTP: what is recorded of requests, at which stages, and what happens when it cannot be written.

use std::path::Path;

use crate::common::{Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ["/readyz*"]}
- {level: None, userGroups: ["system:masters"], verbs: [get], resources: [{group: "", resources: [namespaces]}]}
- {level: RequestResponse, omitStages: [RequestReceived], resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata}
"#;

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The events of requests for a path, of users.
fn of<'a>(events: &'a [Value], uri: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["requestURI"].as_str().is_some_and(|one| one.starts_with(uri)))
        .collect()
}

fn stages(events: &[&Value]) -> Vec<String> {
    events.iter().map(|event| event["stage"].as_str().unwrap_or_default().to_owned()).collect()
}

struct Audited {
    cluster: Cluster,
    log: std::path::PathBuf,
    flags: Vec<String>,
}

fn audited(extra: &[&str]) -> Audited {
    let cluster = Cluster::new();
    let (policy, log) = (cluster.dir.path().join("policy.yaml"), cluster.dir.path().join("logs/audit.log"));
    std::fs::write(&policy, POLICY).expect("write");
    let mut flags = vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ];
    flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
    Audited { cluster, log, flags }
}

#[tokio::test]
async fn requests_are_recorded_with_their_objects_and_why_they_were_allowed() {
    let Audited { cluster, log, flags } = audited(&[]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = cluster.server(&flags).await;
    let admin = cluster.client(&server, Some("admin")).with_header("audit-id", "my-own-id");
    let created = admin.json("POST", MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    assert_eq!(created.headers["audit-id"], "my-own-id");
    assert_eq!(admin.get(&format!("{MAPS}/none")).await.expect("an answer").status, StatusCode::NOT_FOUND);
    let nobody = cluster.client(&server, Some("nobody")).with_header("impersonate-user", "other");
    assert_eq!(nobody.get("/api/v1/pods").await.expect("an answer").status, StatusCode::FORBIDDEN);
    let nobody = cluster.client(&server, Some("nobody"));
    assert_eq!(nobody.get("/api/v1/secrets").await.expect("an answer").status, StatusCode::FORBIDDEN);
    let stranger = cluster.client(&server, None).with_header("authorization", "Bearer nonsense");
    assert_eq!(stranger.get("/api/v1/nodes").await.expect("an answer").status, StatusCode::UNAUTHORIZED);
    let robot = cluster.client(&server, Some("admin")).with_header("impersonate-user", "robot");
    assert_eq!(robot.get("/api/v1/services").await.expect("an answer").status, StatusCode::FORBIDDEN);

    let all = events(&log);
    let maps: Vec<&Value> = of(&all, MAPS);
    assert_eq!(stages(&maps), ["ResponseComplete", "ResponseComplete"]);
    let event = maps[0];
    assert_eq!(event["auditID"], "my-own-id");
    assert_eq!(event["verb"], "create");
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(
        event["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(event["requestObject"]["data"]["k"], "v");
    assert_eq!(event["responseObject"]["metadata"]["name"], "a");
    assert_eq!(event["responseObject"]["metadata"].get("managedFields"), None);
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(maps[1]["responseStatus"]["reason"], "NotFound");
    assert_eq!(maps[1]["responseStatus"]["details"]["name"], "none");

    let pods = of(&all, "/api/v1/pods");
    assert_eq!(stages(&pods), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(pods[1]["responseStatus"]["code"], 403);
    assert_eq!(pods[1]["user"]["username"], "nobody");
    assert_eq!(pods[1].get("impersonatedUser"), None);
    let secrets = of(&all, "/api/v1/secrets");
    assert_eq!(secrets[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    let services = of(&all, "/api/v1/services");
    assert_eq!(services[1]["impersonatedUser"]["username"], "robot");
    let nodes = of(&all, "/api/v1/nodes");
    assert_eq!(stages(&nodes), ["ResponseStarted"]);
    assert_eq!(nodes[0]["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(nodes[0]["responseStatus"]["code"], 401);
    assert!(of(&all, "/readyz").is_empty());
    server.finish().await;
}

#[tokio::test]
async fn watches_are_recorded_when_they_start_and_when_they_end() {
    let Audited { cluster, log, flags } = audited(&["--audit-log-mode=batch"]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = cluster.server(&flags).await;
    let admin = cluster.client(&server, Some("admin"));
    let mut watch = admin.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1")).await;
    while watch.next().await.is_some() {}
    wait_for("the end of the watch in the log", || async {
        stages(&of(&events(&log), MAPS)) == ["ResponseStarted", "ResponseComplete"]
    })
    .await;
    let violating =
        json!({"metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/audit": "restricted"}}});
    assert_eq!(admin.json("POST", "/api/v1/namespaces", &violating).await.status, StatusCode::CREATED);
    admin.with_account("strict").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/strict/pods";
    let created = admin.json("POST", pods, &pod).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    wait_for("the pod in the log", || async { of(&events(&log), pods).len() == 2 }).await;
    let all = events(&log);
    let annotations = &of(&all, pods)[1]["annotations"];
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let violations = annotations["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": "), "{violations}");
    server.finish().await;
}

#[tokio::test]
async fn a_full_disk_stops_only_servers_that_are_told_to_be_strict() {
    for (mode, code) in [("blocking", StatusCode::OK), ("blocking-strict", StatusCode::INTERNAL_SERVER_ERROR)]
    {
        let cluster = Cluster::new();
        let policy = cluster.dir.path().join("policy.yaml");
        std::fs::write(&policy, POLICY).expect("write");
        let flags = [
            format!("--audit-policy-file={}", policy.display()),
            "--audit-log-path=/dev/full".to_owned(),
            format!("--audit-log-mode={mode}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = cluster.server(&flags).await;
        let admin = cluster.client(&server, Some("admin"));
        let answer = admin.get("/api/v1/pods").await.expect("an answer");
        assert_eq!(answer.status, code, "{mode}: {}", answer.body);
        if code == StatusCode::OK {
            let metrics = admin.get("/metrics").await.expect("an answer").body;
            let text = metrics.as_str().unwrap_or_default().to_owned();
            let line =
                text.lines().find(|line| line.starts_with("apiserver_audit_error_total{plugin=\"log\"}"));
            assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
        } else {
            assert!(
                answer.body["message"].as_str().unwrap_or_default().contains("failed to store audit event")
            );
        }
        server.finish().await;
    }
}
