//! Bytes that no client should send: the functions of `fuzz/` over mutations of valid inputs, seeded and bounded; and the same mutations
//! over HTTP, where every one of them is answered and none by a 500. And what is too deep, too large or too long to be worked on.

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;

use crate::common::http2::{Http2, Part};
use crate::common::{Cluster, PATIENCE, wait_for};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SEED: u64 = 0x00c0_7ac1_e000_0001;
/// Mutations of each seed input.
const ROUNDS: usize = 150;

/// What mutations start from.
const INPUTS: &[&[u8]] = &[
    br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}}}]}}"#,
    b"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: &l {a: b}}\nspec:\n  nodeSelector: {<<: *l}\n  containers:\n  - {name: c, image: i}\n",
    b"k8s\0\n\x09\n\x02v1\x12\x03Pod\x12\x0e\n\x04\n\x02pb\x12\x06\n\x01a\x12\x01b",
    b"a in (b,c),d!=e,!f,g>5",
    b"metadata.name=a,spec.nodeName!=b\\,c",
    b"1.5Gi",
    br#"[{"op":"replace","path":"/spec/replicas","value":2},{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"}]"#,
    br#"{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","$patch":"delete"},{"name":"d","$retainKeys":["name"]}]}}}}"#,
    br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"]},"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A"}]}]}}}}"#,
    b"/apis/apps/v1/namespaces/a/deployments/b/scale?watch=1&labelSelector=a%3Db&limit=5",
    b"self.c.map(x, x * 2).exists(y, y > 3) && self.b.matches('^t.*$') || has(self.d.e)",
    b"self.c.all(a, self.c.all(b, self.c.all(c, self.c.all(d, a + b + c + d > 0))))",
];

/// Pieces that mean something somewhere.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"1e309",
    b"18446744073709551616",
    b"\"\"",
    b"\xff\xfe",
    b"\0",
    b"$patch",
    b"*a",
    b"&a ",
    b"<<: ",
    b"%00",
    b"%",
    b"((",
    b"~1",
    b"/-",
    b"\\",
    b"'''",
    b"!!binary ",
    b"9999999999999999999Ei",
    b"_[?_]",
    b"size(",
    b"\n- \n",
];

/// A small generator of numbers, so that a failing run can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or_default()
    }
}

fn mutated(input: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + numbers.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + numbers.below(64)).min(bytes.len());
                let copy = bytes[at..end].repeat(1 + numbers.below(8));
                bytes.splice(at..at, copy);
            }
            _ => {
                bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied());
            }
        }
    }
    bytes
}

/// Inputs that once were the end of a parser somewhere.
fn bombs() -> Vec<Vec<u8>> {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    vec![
        b"[".repeat(10_000),
        b"{\"a\":".repeat(10_000),
        b"- ".repeat(10_000),
        b"(".repeat(10_000),
        b"!".repeat(10_000),
        b"a,".repeat(10_000),
        b"self.c.map(a, ".repeat(200),
        laughs.into_bytes(),
        b"9".repeat(10_000),
        b"k8s\0".iter().copied().chain(b"\n\xff\xff\xff\xff\x0f".repeat(100)).collect(),
    ]
}

#[test]
fn mutated_inputs_are_refused_without_a_panic() {
    let mut numbers = Numbers(SEED);
    let mutations = INPUTS.iter().flat_map(|input| std::iter::repeat_n(*input, ROUNDS));
    let mut inputs: Vec<Vec<u8>> = mutations.map(|input| mutated(input, &mut numbers)).collect();
    inputs.extend(INPUTS.iter().map(|input| input.to_vec()));
    inputs.extend(bombs());
    for (name, target) in targets::TARGETS {
        for input in &inputs {
            let done = catch_unwind(|| target(input));
            assert!(done.is_ok(), "{name} panicked on {:?}", String::from_utf8_lossy(input));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_requests_are_answered_and_none_by_a_500() {
    let cluster = Cluster::new();
    let server = cluster.server(&["--disable-admission-plugins=ServiceAccount"]).await;
    let admin = cluster.client(&server, Some("admin"));
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = admin.json("POST", maps, &serde_json::json!({"metadata": {"name": "a"}})).await;
    assert_eq!(made.status, http::StatusCode::CREATED, "{made:?}");
    let mut numbers = Numbers(SEED);
    let target = format!("{maps}/a?fieldManager=x&force=true");
    let patch = format!("{maps}/a");
    let requests = [
        ("POST", "/api/v1/namespaces/default/pods?dryRun=All", "application/json"),
        ("POST", "/api/v1/namespaces/default/pods?dryRun=All", "application/yaml"),
        ("POST", "/api/v1/namespaces/default/pods?dryRun=All", "application/vnd.kubernetes.protobuf"),
        ("PATCH", patch.as_str(), "application/json-patch+json"),
        ("PATCH", patch.as_str(), "application/merge-patch+json"),
        ("PATCH", patch.as_str(), "application/strategic-merge-patch+json"),
        ("PATCH", target.as_str(), "application/apply-patch+yaml"),
        ("DELETE", "/api/v1/namespaces/default/configmaps/none", "application/json"),
    ];
    for (method, path, content_type) in requests {
        let mutations = INPUTS.iter().flat_map(|input| std::iter::repeat_n(*input, 3));
        let bodies: Vec<Vec<u8>> =
            mutations.map(|input| mutated(input, &mut numbers)).chain(bombs()).collect();
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let answer = admin.request(method, path, content_type, body).await;
            let answer =
                answer.unwrap_or_else(|error| panic!("{method} {path} {content_type}: {error}: {shown}"));
            let is_fault = answer.status.is_server_error() || answer.status.as_u16() < 200;
            assert!(!is_fault, "{method} {path} {content_type}: {answer:?}: {shown}");
        }
    }
    for _ in 0..150 {
        let query = mutated(
            b"labelSelector=a%3Db&fieldSelector=metadata.name%3Da&limit=5&resourceVersion=0&continue=x",
            &mut numbers,
        );
        let query: String = query
            .iter()
            .filter(|byte| byte.is_ascii_graphic() && **byte != b'#')
            .map(|byte| char::from(*byte))
            .collect();
        // What is no URL at all does not get as far as a request.
        let Ok(answer) = admin.get(&format!("{maps}?{query}")).await else { continue };
        // A version that is not there yet is waited for, and answered by a 504.
        let status = answer.status.as_u16();
        assert!(status < 500 || status == 504, "{query}: {answer:?}");
    }
    assert_eq!(admin.get("/readyz").await.expect("an answer").status, http::StatusCode::OK);
    server.finish().await;
}

/// `levels` objects and as many lists within one another, with what belongs behind them.
fn deep(levels: usize) -> [String; 2] {
    [
        format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels)),
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn json_ten_thousand_levels_deep_is_refused_at_once() {
    const LEVELS: usize = 10_000;
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let maps = "/api/v1/namespaces/default/configmaps";
    wait_for("the namespace", || async {
        admin.json("POST", maps, &json!({"metadata": {"name": "a"}})).await.status == StatusCode::CREATED
    })
    .await;
    let object = format!("{maps}/a");
    let applied = format!("{maps}/a?fieldManager=x");
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(admin.json("POST", definitions, &definition).await.status, StatusCode::CREATED);
    let things = "/apis/example.com/v1/namespaces/default/things";
    wait_for("serving", || async {
        admin.get(things).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    let requests = [
        ("POST", maps, "application/json"),
        ("POST", maps, "application/yaml"),
        ("PUT", &object, "application/json"),
        ("PATCH", &object, "application/json-patch+json"),
        ("PATCH", &object, "application/merge-patch+json"),
        ("PATCH", &object, "application/strategic-merge-patch+json"),
        ("PATCH", &applied, "application/apply-patch+yaml"),
        ("DELETE", &object, "application/json"),
        ("POST", things, "application/json"),
        ("POST", things, "application/yaml"),
        ("POST", definitions, "application/json"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json"),
    ];
    for deep in deep(LEVELS) {
        for within in [
            "DEEP",
            r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":DEEP}"#,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","annotations":DEEP}}"#,
            r#"[{"op":"add","path":"/data","value":DEEP}]"#,
        ] {
            let body = within.replace("DEEP", &deep);
            for (method, path, content_type) in requests {
                let asked = format!("{method} {path} {content_type} {}", &body[..60]);
                let answer = admin.request(method, path, content_type, body.clone()).await;
                let answer = answer.unwrap_or_else(|error| panic!("{asked}: {error}"));
                assert!(answer.status.is_client_error(), "{asked}: {answer:?}");
            }
        }
    }
    assert_eq!(admin.get(&object).await.expect("an answer").status, StatusCode::OK);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused_and_others_are_served() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let url = |bytes: usize| format!("/version?x={}", "y".repeat(bytes));
    assert_eq!(admin.get(&url(60_000)).await.expect("an answer").status, StatusCode::OK);
    // The client's own library makes no such URL.
    let mut stream = cluster.connect(server.port, "admin", "http/1.1").await;
    let head = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", url(100_000));
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut line = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("in time").expect("an answer");
    assert_eq!(&line, b"HTTP/1.1 414");
    // One that does not fit, and many that do.
    let large = admin.clone().with_header("x-large", "y".repeat(2_000_000));
    let mut many = admin.clone();
    for _ in 0..500 {
        many = many.with_header("x-many", "y");
    }
    for client in [large, many] {
        // The rest of a head that is not read may be cut off.
        if let Ok(answer) = client.get("/version").await {
            assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
    }
    assert_eq!(admin.get("/version").await.expect("an answer").status, StatusCode::OK);

    let client = Http2::new(cluster.connect(server.port, "admin", "h2").await, 65_535);
    let is_taken = async |url: &str, bytes: usize| {
        let mut answer = client.send("GET", url, &[("x-large", &"y".repeat(bytes))], true);
        tokio::time::timeout(PATIENCE, answer.next()).await.expect("in time")
    };
    assert_eq!(is_taken(&url(60_000), 50_000).await, Some(Part::Head(true)));
    assert_eq!(is_taken(&url(1), 140_000).await, Some(Part::Head(false)));
    assert_eq!(is_taken(&url(1), 1).await, Some(Part::Head(true)), "the connection goes on");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_that_would_run_for_ever_are_stopped() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let definition = |name: &str, list: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{name}s.example.com")},
            "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": format!("{name}s"), "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"list": list}}}}]}})
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let message =
        |answer: &crate::common::Answer| answer.body["message"].as_str().unwrap_or_default().to_owned();

    // One that can be known to.
    let rule = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d > 0))))";
    let list =
        json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": rule}]});
    let answer = admin.json("POST", definitions, &definition("endles", list)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    assert!(message(&answer).contains("estimated rule cost exceeds budget by factor of"), "{answer:?}");

    // One that is cheap enough for what it is allowed to see, but not for what it sees.
    let rule = "self.all(a, self.all(b, a + b > -1))";
    let list = json!({"type": "array", "maxItems": 1000, "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": rule}]});
    let answer = admin.json("POST", definitions, &definition("long", list)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let path = "/apis/example.com/v1/longs";
    wait_for("serving", || async {
        admin.get(path).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    let thing = |length: usize| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": format!("t{length}")}, "list": vec![1; length]});
    assert_eq!(admin.json("POST", path, &thing(10)).await.status, StatusCode::CREATED);
    let answer = admin.json("POST", path, &thing(1000)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    assert!(message(&answer).contains("call cost exceeds limit"), "{answer:?}");

    // A policy, of whose objects nothing is known.
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let expression = "!has(object.data) || object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != 'x'))))";
    let policy = json!({"metadata": {"name": "endless"}, "spec": {"failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": expression}]}});
    assert_eq!(admin.json("POST", policies, &policy).await.status, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": "endless"}, "spec": {"policyName": "endless", "validationActions": ["Deny"]}});
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    assert_eq!(admin.json("POST", bindings, &binding).await.status, StatusCode::CREATED);
    let data: serde_json::Map<String, Value> =
        (0..300).map(|number| (format!("key-{number}"), json!("v"))).collect();
    let map = json!({"metadata": {"generateName": "a-"}, "data": data});
    let maps = "/api/v1/namespaces/default/configmaps";
    wait_for("the policy to stop it", || async {
        let start = tokio::time::Instant::now();
        let answer = admin.json("POST", maps, &map).await;
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        // Until the policy and the namespace are known.
        if matches!(answer.status, StatusCode::CREATED | StatusCode::NOT_FOUND) {
            return false;
        }
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert!(message(&answer).contains("cost limit exceeded"), "{answer:?}");
        true
    })
    .await;
    let small = json!({"metadata": {"name": "small"}, "data": {"a": "b"}});
    assert_eq!(admin.json("POST", maps, &small).await.status, StatusCode::CREATED);
    server.finish().await;
}
