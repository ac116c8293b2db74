//! The audit webhook over HTTPS: events arrive in lists, are posted again while they do not, hold requests up only where they are told to, and are counted
//! when they are lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::extension::Extension;
use crate::common::{Client, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Request, users: [admin], resources: [{group: '', resources: [configmaps]}]}
- {level: None}
";

/// The flags that post events to a port of this machine.
fn flags(cluster: &Cluster, port: u16, extra: &[&str]) -> Vec<String> {
    let at = |file: &str| -> PathBuf { cluster.dir.path().join(file) };
    std::fs::write(at("policy.yaml"), POLICY).expect("write");
    let kubeconfig = format!(
        "{{current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
         clusters: [{{name: a, cluster: {{server: 'https://localhost:{port}/audit', certificate-authority: ca.crt}}}}], \
         users: [{{name: a, user: {{token: secret}}}}]}}"
    );
    std::fs::write(at("audit.kubeconfig"), kubeconfig).expect("write");
    let mut flags = vec![
        format!("--audit-policy-file={}", at("policy.yaml").display()),
        format!("--audit-webhook-config-file={}", at("audit.kubeconfig").display()),
        "--audit-webhook-initial-backoff=10ms".to_owned(),
    ];
    flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
    flags
}

async fn make(admin: &Client, name: &str) -> StatusCode {
    let object = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(2000)}});
    admin.json("POST", MAPS, &object).await.status
}

/// All events that arrived.
fn events(extension: &Extension) -> Vec<Value> {
    let lists = extension.seen();
    lists.iter().flat_map(|seen| seen.body["items"].as_array().expect("a list").clone()).collect()
}

fn names(extension: &Extension, stage: &str) -> Vec<String> {
    let of_stage = |event: &&Value| event["stage"] == stage;
    let name =
        |event: &Value| event["requestObject"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    events(extension).iter().filter(of_stage).map(name).collect()
}

/// The value of a line of `/metrics`.
async fn metric(admin: &Client, name: &str) -> u64 {
    let bytes = admin.get("/metrics").await.expect("an answer").bytes;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_in_lists_and_are_posted_again_while_they_do_not() {
    let cluster = Cluster::new();
    let failures = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&failures);
    let extension = Extension::start(&cluster, move |_| {
        let failed =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if failed { (503, json!({})) } else { (200, json!({})) }
    })
    .await;
    let batches = ["--audit-webhook-batch-max-size=4", "--audit-webhook-batch-max-wait=1h"];
    let flags = flags(&cluster, extension.port, &batches);
    let server = cluster.server(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let admin = cluster.client(&server, Some("admin"));
    for name in ["a", "b"] {
        assert_eq!(make(&admin, name).await, StatusCode::CREATED);
    }
    // Two requests with two stages each fill a batch; it arrives with the third attempt.
    wait_for("the first batch", || async { extension.seen().len() == 3 }).await;
    let seen = extension.seen();
    assert_eq!((seen[2].method.as_str(), seen[2].path()), ("POST", "/audit"));
    assert_eq!(seen[2].headers["authorization"], "Bearer secret");
    assert_eq!(
        (&seen[2].body["kind"], &seen[2].body["apiVersion"]),
        (&json!("EventList"), &json!("audit.k8s.io/v1"))
    );
    let stages: Vec<&Value> =
        seen[2].body["items"].as_array().expect("a list").iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]);
    assert_eq!(seen[2].body["items"][1]["objectRef"]["name"], "a");
    assert_eq!(seen[0].body, seen[2].body);
    assert_eq!(metric(&admin, "apiserver_audit_event_total").await, 4);
    assert_eq!(metric(&admin, "apiserver_audit_error_total{plugin=\"webhook\"}").await, 0);
    // What is left when the server ends arrives too.
    assert_eq!(make(&admin, "c").await, StatusCode::CREATED);
    server.finish().await;
    assert_eq!(names(&extension, "ResponseComplete").last().map(String::as_str), Some("c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_or_does_not_arrive_is_counted() {
    let cluster = Cluster::new();
    let extension = Extension::start(&cluster, |_| (500, json!({}))).await;
    let small = [
        "--audit-webhook-batch-max-size=1",
        "--audit-webhook-truncate-enabled",
        "--audit-webhook-truncate-max-event-size=1500",
    ];
    let flags = flags(&cluster, extension.port, &small);
    let server = cluster.server(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let admin = cluster.client(&server, Some("admin"));
    assert_eq!(make(&admin, "a").await, StatusCode::CREATED);
    wait_for("both events to be given up", || async {
        metric(&admin, "apiserver_audit_error_total{plugin=\"webhook\"}").await == 2
    })
    .await;
    // Five attempts each, and what is too large has no objects.
    assert_eq!(extension.seen().len(), 10);
    let cut =
        events(&extension).into_iter().find(|event| event["stage"] == "ResponseComplete").expect("an event");
    assert_eq!(
        (cut.get("requestObject"), &cut["annotations"]["audit.k8s.io/truncated"]),
        (None, &json!("true"))
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_their_events_where_they_are_to() {
    let cluster = Cluster::new();
    let works = Arc::new(AtomicUsize::new(1));
    let answer = Arc::clone(&works);
    let extension = Extension::start(&cluster, move |_| {
        (if answer.load(Ordering::SeqCst) == 1 { 200 } else { 500 }, json!({}))
    })
    .await;
    for (mode, code) in
        [("blocking", StatusCode::CREATED), ("blocking-strict", StatusCode::INTERNAL_SERVER_ERROR)]
    {
        works.store(1, Ordering::SeqCst);
        let mode_flag = format!("--audit-webhook-mode={mode}");
        let flags = flags(&cluster, extension.port, &[&mode_flag]);
        let server = cluster.server(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let admin = cluster.client(&server, Some("admin"));
        let name = format!("{mode}-a");
        assert_eq!(make(&admin, &name).await, StatusCode::CREATED);
        // The events were there before the answer was.
        assert_eq!(names(&extension, "ResponseComplete").last(), Some(&name));
        works.store(0, Ordering::SeqCst);
        assert_eq!(make(&admin, &format!("{mode}-b")).await, code, "{mode}");
        let rejected = metric(&admin, "apiserver_audit_requests_rejected_total").await;
        assert_eq!(rejected, u64::from(mode == "blocking-strict"));
        server.finish().await;
    }
}
