//! Bytes that no client should send: the functions of `fuzz/` over mutations of valid inputs, seeded and bounded; and the same mutations
//! over HTTP, where every one of them is answered and none by a 500.

mod common;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::panic::catch_unwind;

use common::Cluster;

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
