//! Runs the recorded behaviours of `tests/corpus/`: requests with the answers that Kubernetes' API documents for them. Every
//! case has a namespace of its own; all that fail are reported together, each with what differs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Answer, Client, Cluster};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

/// One case: a script of steps, or a table whose rows vary one request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Steps that must all be answered as said.
    #[serde(default)]
    steps: Vec<Step>,
    /// The request that the rows vary. `set` and `expect` of a row are added to it.
    table: Option<Step>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// What is put into the body: JSON pointers and values; null takes away.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    #[serde(flatten)]
    expect: Expect,
}

/// One request and what is expected of its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method and path. A path without a leading slash is of this namespace: `pods/a`, `apps/v1/deployments`. WATCH reads a
    /// watch to its end; AWAIT waits until the path can be read.
    r#do: String,
    /// `json` (usual), `merge`, `strategic`, `jsonpatch`, `apply`, `yaml`, or a media type.
    r#type: Option<String>,
    accept: Option<String>,
    body: Option<Value>,
    /// Sent as it is, in place of `body`.
    text: Option<String>,
    /// Names under which parts of the answer (JSON pointers) are kept, to be used as `${name}`.
    #[serde(default)]
    keep: BTreeMap<String, String>,
    #[serde(flatten)]
    expect: Expect,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Expect {
    /// The HTTP status; 200 or 201 when left out, 422 with `invalid`.
    code: Option<u16>,
    reason: Option<String>,
    message: Option<String>,
    /// Causes as in upstream's text, `FIELD: TYPE: DETAIL`; message, reason and details follow from them.
    invalid: Option<Vec<String>>,
    /// A part of the answer: `*` is anything, null is nothing.
    part: Option<Value>,
    /// Texts of `Warning` headers.
    warnings: Option<Vec<String>>,
    /// Events as `TYPE name`.
    events: Option<Vec<String>>,
    /// Names of the items of a list, in order.
    items: Option<Vec<String>>,
}

/// What upstream calls the types of causes, in texts and in details.
const CAUSES: [(&str, &str); 8] = [
    ("Required value", "FieldValueRequired"),
    ("Invalid value", "FieldValueInvalid"),
    ("Unsupported value", "FieldValueNotSupported"),
    ("Forbidden", "FieldValueForbidden"),
    ("Too long", "FieldValueTooLong"),
    ("Too many", "FieldValueTooMany"),
    ("Duplicate value", "FieldValueDuplicate"),
    ("Not found", "FieldValueNotFound"),
];

fn cause(text: &str) -> Value {
    let found = CAUSES.iter().find_map(|(name, reason)| {
        let (field, _) = text.split_once(&format!(": {name}"))?;
        Some(json!({"reason": reason, "message": &text[field.len() + 2..], "field": field}))
    });
    found.unwrap_or_else(|| panic!("no cause as upstream writes them: {text}"))
}

/// What differs of a part that is expected, as `pointer: expected …, was …`.
fn differences(expected: &Value, was: &Value, at: &str, found: &mut Vec<String>) {
    match (expected, was) {
        (Value::String(any), was) if any == "*" => {
            if was.is_null() {
                found.push(format!("{at}: missing"));
            }
        }
        (Value::Object(expected), Value::Object(was)) => {
            for (key, value) in expected {
                differences(value, was.get(key).unwrap_or(&Value::Null), &format!("{at}/{key}"), found);
            }
        }
        (Value::Array(expected), Value::Array(was)) if expected.len() == was.len() => {
            for (index, (expected, was)) in expected.iter().zip(was).enumerate() {
                differences(expected, was, &format!("{at}/{index}"), found);
            }
        }
        (expected, was) if expected == was => {}
        (expected, was) => found.push(format!("{at}: expected {expected}\n        was      {was}")),
    }
}

/// Puts a value where a JSON pointer points, making objects on the way; `-` appends to a list. Null takes away.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("a JSON pointer");
    let mut at = object;
    for key in parent.split('/').skip(1).map(unescaped) {
        at = match at {
            Value::Array(items) => &mut items[key.parse::<usize>().expect("an index")],
            Value::Object(map) => map.entry(key).or_insert_with(|| json!({})),
            other => panic!("{pointer} leads through {other}"),
        };
    }
    match at {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        Value::Object(map) if value.is_null() => drop(map.remove(&unescaped(last))),
        Value::Object(map) => drop(map.insert(unescaped(last), value)),
        other => panic!("{pointer} leads to {other}"),
    }
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// A body with `{$repeat: N, value: V}` written out: a list of N times V, or one text of N times a text.
fn expanded(value: Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$repeat") => {
            let count = usize::try_from(map["$repeat"].as_u64().expect("a number")).expect("a size");
            match &map["value"] {
                Value::String(text) => json!(text.repeat(count)),
                other => json!(vec![other; count]),
            }
        }
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, expanded(value))).collect(),
        Value::Array(items) => items.into_iter().map(expanded).collect(),
        other => other,
    }
}

/// A case while it runs.
struct Run {
    client: Client,
    kept: BTreeMap<String, String>,
}

impl Run {
    fn filled(&self, text: &str) -> String {
        let fill =
            |text: String, (name, value): (&String, &String)| text.replace(&format!("${{{name}}}"), value);
        self.kept.iter().fold(text.to_owned(), fill)
    }

    fn path(&self, path: &str) -> String {
        let namespace = &self.kept["ns"];
        let path = self.filled(path);
        if path.starts_with('/') {
            return path;
        }
        let mut parts = path.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(version), Some(rest)) if is_version(version) => {
                format!("/apis/{group}/{version}/namespaces/{namespace}/{rest}")
            }
            _ => format!("/api/v1/namespaces/{namespace}/{path}"),
        }
    }

    /// Sends one request.
    async fn send(&self, step: &Step) -> Answer {
        let (method, path) = step.r#do.split_once(' ').expect("METHOD path");
        let mut path = self.path(path);
        if method == "WATCH" {
            path += if path.contains('?') { "&" } else { "?" };
            path += "watch=1&timeoutSeconds=1";
        }
        let method = if method == "WATCH" { "GET" } else { method };
        let content_type = match step.r#type.as_deref() {
            Some("merge") => "application/merge-patch+json",
            Some("strategic") => "application/strategic-merge-patch+json",
            Some("jsonpatch") => "application/json-patch+json",
            Some("apply") => "application/apply-patch+yaml",
            Some("yaml") => "application/yaml",
            None | Some("json") if step.body.is_some() || step.text.is_some() => "application/json",
            None | Some("json") => "",
            Some(other) => other,
        };
        let body = match (&step.body, &step.text) {
            (_, Some(text)) => self.filled(text),
            (Some(body), None) => self.filled(&expanded(body.clone()).to_string()),
            (None, None) => String::new(),
        };
        let mut client = self.client.clone();
        if let Some(accept) = &step.accept {
            client = client.with_header("accept", accept.clone());
        }
        client.request(method, &path, content_type, Bytes::from(body)).await.expect("an answer")
    }

    /// Waits until a path can be read.
    async fn await_path(&self, path: &str) {
        crate::common::wait_for(path, || async {
            self.client.get(&self.path(path)).await.is_ok_and(|answer| answer.status.is_success())
        })
        .await;
    }

    /// Does one step; what was not as expected.
    async fn step(&mut self, step: &Step) -> Vec<String> {
        if let Some(path) = step.r#do.strip_prefix("AWAIT ") {
            self.await_path(path).await;
            return Vec::new();
        }
        let answer = self.send(step).await;
        let mut wrong = self.judge(&step.expect, &answer);
        for (name, pointer) in &step.keep {
            match answer.body.pointer(pointer) {
                Some(Value::String(text)) => drop(self.kept.insert(name.clone(), text.clone())),
                Some(other) => drop(self.kept.insert(name.clone(), other.to_string())),
                None => wrong.push(format!("{pointer}: nothing there to keep")),
            }
        }
        if !wrong.is_empty() {
            wrong.insert(0, format!("{} answered {} {}", step.r#do, answer.status, brief(&answer.body)));
        }
        wrong
    }

    fn judge(&self, expect: &Expect, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        let status = answer.status.as_u16();
        match (expect.code, &expect.invalid) {
            (Some(code), _) if code != status => wrong.push(format!("code: expected {code}, was {status}")),
            (None, Some(_)) if status != 422 => wrong.push(format!("code: expected 422, was {status}")),
            (None, None) if status > 201 => wrong.push(format!("code: expected success, was {status}")),
            _ => {}
        }
        let mut part = |pointer: &str, expected: &Value| {
            let was = answer.body.pointer(pointer).unwrap_or(&Value::Null);
            differences(expected, was, pointer, &mut wrong);
        };
        if let Some(reason) = &expect.reason {
            part("/reason", &json!(reason));
        }
        if let Some(message) = &expect.message {
            part("/message", &json!(self.filled(message)));
        }
        if let Some(expected) = &expect.part {
            part("", &serde_json::from_str(&self.filled(&expected.to_string())).expect("JSON"));
        }
        if let Some(texts) = &expect.invalid {
            let texts: Vec<String> = texts.iter().map(|text| self.filled(text)).collect();
            let details = &answer.body["details"];
            let text = |field: &str| details[field].as_str().unwrap_or_default();
            let kind = match text("group") {
                "" => text("kind").to_owned(),
                group => format!("{}.{group}", text("kind")),
            };
            let all =
                if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
            part("/reason", &json!("Invalid"));
            part("/message", &json!(format!("{kind} {:?} is invalid: {all}", text("name"))));
            part("/details/causes", &texts.iter().map(|text| cause(text)).collect());
        }
        if let Some(warnings) = &expect.warnings {
            let was: Vec<String> = answer.headers.get_all("warning").iter().map(warning).collect();
            differences(&json!(warnings), &json!(was), "warnings", &mut wrong);
        }
        if let Some(events) = &expect.events {
            let text = String::from_utf8_lossy(&answer.bytes);
            let was: Vec<String> = text.lines().filter_map(event).collect();
            differences(&json!(events), &json!(was), "events", &mut wrong);
        }
        if let Some(items) = &expect.items {
            let name = |item: &Value| item["metadata"]["name"].clone();
            let was: Vec<Value> = answer.body["items"].as_array().into_iter().flatten().map(name).collect();
            let items: Vec<String> = items.iter().map(|item| self.filled(item)).collect();
            differences(&json!(items), &json!(was), "items", &mut wrong);
        }
        wrong
    }
}

fn is_version(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

/// The text of a `Warning` header.
fn warning(header: &http::HeaderValue) -> String {
    let text = String::from_utf8_lossy(header.as_bytes()).into_owned();
    serde_json::from_str(text.trim_start_matches("299 - ")).unwrap_or(text)
}

/// A line of a watch. Bookmarks that only tell the time are left out: when they come is not promised.
fn event(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| json!({"type": error.to_string()}));
    let object = &event["object"];
    let kind = event["type"].as_str().unwrap_or("?");
    let what = match kind {
        "ERROR" => &object["reason"],
        "BOOKMARK" if object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" => {
            return Some("BOOKMARK initial-events-end".to_owned());
        }
        "BOOKMARK" => return None,
        _ => &object["metadata"]["name"],
    };
    Some(format!("{kind} {}", what.as_str().unwrap_or("-")))
}

fn brief(body: &Value) -> String {
    let text = body.to_string();
    text.chars().take(if text.contains("\"Status\"") { 1_500 } else { 600 }).collect()
}

/// Runs a case; its failures, each with the name of what failed.
async fn run(client: Client, namespace: String, file: &str, case: Case) -> Vec<String> {
    let created = client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await;
    assert_eq!(created.status, http::StatusCode::CREATED, "{created:?}");
    let mut run = Run { client, kept: BTreeMap::from([("ns".to_owned(), namespace)]) };
    let mut failures = Vec::new();
    let mut fail = |name: &str, wrong: Vec<String>| {
        if !wrong.is_empty() {
            failures.push(format!("{file}: {name}\n    {}", wrong.join("\n    ")));
        }
    };
    for (number, step) in case.steps.iter().enumerate() {
        let wrong = run.step(step).await;
        let ends = !wrong.is_empty();
        fail(&format!("{} (step {})", case.name, number + 1), wrong);
        if ends {
            return failures;
        }
    }
    for row in case.rows {
        let mut step = case.table.clone().expect("rows vary a table");
        for (pointer, value) in row.set {
            put(step.body.get_or_insert_default(), &pointer, value);
        }
        step.expect = row.expect;
        fail(&format!("{}: {}", case.name, row.name), run.step(&step).await);
    }
    failures
}

/// The cases of all files, by file.
fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    let only = std::env::var("CORPUS").unwrap_or_default();
    let mut all = Vec::new();
    for file in files {
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&file).expect("readable");
        let cases: Vec<Case> =
            serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        all.extend(cases.into_iter().map(|case| (name.clone(), case)));
    }
    all.retain(|(file, case)| format!("{file}: {}", case.name).contains(&only));
    all
}

/// `CORPUS=TEXT` runs the cases whose file and name have that text.
#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_behaviour_is_met() {
    let cluster = Cluster::new();
    let server =
        cluster.server(&["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"]).await;
    let admin = cluster.client(&server, Some("admin"));
    let cases = Arc::new(cases());
    let count: usize = cases.iter().map(|(_, case)| case.rows.len().max(1)).sum();
    let runs = futures::stream::iter(0..cases.len()).map(|number| {
        let (admin, cases) = (admin.clone(), Arc::clone(&cases));
        async move {
            let (file, case) = &cases[number];
            run(admin, format!("case-{number}"), file, case.clone()).await
        }
    });
    let failures: Vec<String> = runs.buffered(8).collect::<Vec<_>>().await.concat();
    server.finish().await;
    assert!(count > 0, "no case has that name");
    assert!(failures.is_empty(), "{} of {count} failed\n\n{}\n", failures.len(), failures.join("\n\n"));
    assert!(count >= 400 || std::env::var_os("CORPUS").is_some(), "the corpus has shrunk to {count} cases");
    println!("{count} cases");
}
