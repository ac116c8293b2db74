//! How reads choose their version: pages, resourceVersion and resourceVersionMatch, over HTTPS on a real etcd.

use crate::common::{Answer, Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

async fn create(client: &Client, name: &str) -> String {
    client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let body = json!({"metadata": {"name": name, "labels": {"mine": "1"}}, "data": {"k": "0"}});
    let created = client.json("POST", MAPS, &body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    version(&created)
}

fn version(answer: &Answer) -> String {
    answer.body["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

async fn list(client: &Client, query: &str) -> Answer {
    client.get(&format!("{MAPS}?labelSelector=mine&{query}")).await.expect("an answer")
}

/// `name=value` of each item.
fn brief(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let items = answer.body["items"].as_array().expect("items").iter();
    let items = items.map(|item| format!("{}={}", text(&item["metadata"]["name"]), text(&item["data"]["k"])));
    items.collect::<Vec<_>>().join(" ")
}

fn token(answer: &Answer) -> String {
    answer.body["metadata"]["continue"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_moment_and_go_on_inconsistently_when_it_is_forgotten() {
    let cluster = Cluster::new();
    let first = cluster.server(&[]).await;
    let admin = cluster.client(&first, Some("admin"));
    for name in ["a", "b", "c", "d"] {
        create(&admin, name).await;
    }
    let page = list(&admin, "limit=2").await;
    let (at, next) = (version(&page), token(&page));
    assert_eq!(brief(&page), "a=0 b=0");
    assert_eq!(page.body["metadata"].get("remainingItemCount"), None, "a selector hides the count");
    let counted = admin.get(&format!("{MAPS}?limit=1")).await.expect("an answer");
    let all = admin.get(MAPS).await.expect("an answer").body["items"].as_array().expect("items").len();
    assert_eq!(counted.body["metadata"]["remainingItemCount"], json!(all - 1));

    admin.patch(&format!("{MAPS}/c"), MERGE, &json!({"data": {"k": "1"}})).await;
    admin.delete(&format!("{MAPS}/d")).await;
    create(&admin, "bb").await;
    let second = list(&admin, &format!("limit=1&continue={next}")).await;
    assert_eq!((brief(&second).as_str(), &version(&second)), ("c=0", &at));
    let third = list(&admin, &format!("limit=1&continue={}", token(&second))).await;
    assert_eq!((brief(&third).as_str(), token(&third).as_str()), ("d=0", ""));
    let exact = list(&admin, &format!("resourceVersion={at}&resourceVersionMatch=Exact")).await;
    assert_eq!((brief(&exact).as_str(), &version(&exact)), ("a=0 b=0 c=0 d=0", &at));

    let both = list(&admin, &format!("limit=1&continue={next}&resourceVersion={at}")).await;
    assert_eq!(
        (both.status, &both.body["message"]),
        (StatusCode::BAD_REQUEST, &json!("specifying resource version is not allowed when using continue"))
    );
    let broken = list(&admin, "continue=%25").await;
    let message = broken.body["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("invalid continue token: continue key is not valid: "), "{message}");

    // Another server does not know what was before a round of compaction: it asks the store, until that forgets.
    let announced = version(&list(&admin, "").await);
    cluster.etcd.etcdctl(&["put", "compact_rev_key", &announced]);
    first.finish().await;
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let again = list(&admin, &format!("limit=1&continue={next}")).await;
    assert_eq!((brief(&again).as_str(), &version(&again)), ("c=0", &at));
    let now = version(&list(&admin, "").await);
    cluster.etcd.etcdctl(&["compact", &now]);
    let expired = list(&admin, &format!("limit=1&continue={next}")).await;
    assert_eq!((expired.status, &expired.body["reason"]), (StatusCode::GONE, &json!("Expired")));
    let message = expired.body["message"].as_str().unwrap_or_default();
    assert!(message.contains("or use the continue token in this response"), "{message}");
    let rest = list(&admin, &format!("continue={}", token(&expired))).await;
    assert_eq!(brief(&rest), "bb=0 c=1");
    assert_ne!(version(&rest), at);
    let old = list(&admin, &format!("resourceVersion={at}&resourceVersionMatch=Exact")).await;
    assert_eq!(
        (old.status, &old.body["message"]),
        (StatusCode::GONE, &json!("The resourceVersion for the provided list is too old."))
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_met_waited_for_or_refused() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let before = create(&admin, "a").await;
    let after = create(&admin, "b").await;

    for query in [
        "",
        "resourceVersion=0",
        "resourceVersion=0&limit=1",
        "resourceVersion=0&resourceVersionMatch=NotOlderThan",
    ] {
        assert_eq!(brief(&list(&admin, query).await), "a=0 b=0", "{query}");
    }
    let newer = list(&admin, &format!("resourceVersion={before}")).await;
    assert_eq!(brief(&newer), "a=0 b=0", "at least as new");
    for query in [
        format!("resourceVersion={before}&resourceVersionMatch=Exact"),
        format!("resourceVersion={before}&limit=5"),
    ] {
        let exact = list(&admin, &query).await;
        assert_eq!((brief(&exact).as_str(), &version(&exact)), ("a=0", &before), "{query}");
    }
    let at_least =
        list(&admin, &format!("resourceVersion={after}&resourceVersionMatch=NotOlderThan&limit=1")).await;
    assert_eq!(brief(&at_least), "a=0");
    assert!(!token(&at_least).is_empty());

    for (query, retry) in [("", json!(1)), ("&resourceVersionMatch=Exact", Value::Null)] {
        for path in [MAPS.to_owned(), format!("{MAPS}/a")] {
            if path != MAPS && !query.is_empty() {
                continue;
            }
            let future =
                admin.get(&format!("{path}?resourceVersion=1000000{query}")).await.expect("an answer");
            let status = &future.body;
            assert_eq!(
                (future.status, &status["reason"]),
                (StatusCode::GATEWAY_TIMEOUT, &json!("Timeout")),
                "{status}"
            );
            let message = status["message"].as_str().unwrap_or_default();
            assert!(
                message.starts_with("Timeout: Too large resource version: 1000000, current: "),
                "{message}"
            );
            let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
            assert_eq!(status["details"]["causes"], json!([cause]));
            assert_eq!(status["details"]["retryAfterSeconds"], retry, "{query}");
        }
    }
    let malformed = list(&admin, "resourceVersion=x").await;
    assert_eq!(
        (malformed.status, malformed.body["message"].as_str()),
        (
            StatusCode::BAD_REQUEST,
            Some(
                "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax"
            )
        )
    );
    let malformed = list(&admin, "limit=x").await;
    assert_eq!(malformed.body["message"], json!("strconv.ParseInt: parsing \"x\": invalid syntax"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_are_refused_with_upstreams_texts() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let forbidden = |field: &str, text: &str| format!("{field}: Forbidden: {text}");
    let of_match = |text: &str| forbidden("resourceVersionMatch", text);
    let cases = [
        (
            "resourceVersionMatch=Exact",
            of_match("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            of_match("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=x",
            of_match("resourceVersionMatch is forbidden when continue is provided"),
        ),
        (
            "resourceVersionMatch=Older&resourceVersion=1",
            "resourceVersionMatch: Unsupported value: \"Older\": supported values: ".to_owned(),
        ),
        (
            "sendInitialEvents=false",
            forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"),
        ),
        (
            "watch=1&sendInitialEvents=true",
            of_match("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            of_match("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
        ),
    ];
    for (query, wanted) in cases {
        let answer = admin.get(&format!("{MAPS}?{query}")).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {answer:?}");
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(&format!("ListOptions.meta.k8s.io \"\" is invalid: {wanted}")),
            "{message}"
        );
    }
    server.finish().await;
}
