//! The scheduler and the kubelets: pods get a node, start, become ready, lose readiness now and then, end when they are asked to or, those of Jobs, by
//! themselves. Each takes as long as its uid says.

use std::collections::HashMap;
use std::time::Duration;

use history_oracle::Key;
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::objects::timestamp;
use crate::random::Random;
use crate::server::{Deletion, Server};

/// How often they look.
const LOOK: Duration = Duration::from_millis(100);

/// Names of the nodes.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(object, |value, part| &value[*part]).as_str().unwrap_or_default()
}

fn hash(text: &str, salt: u64) -> u64 {
    let mut random =
        Random::new(text.bytes().fold(salt, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)), salt);
    random.next()
}

fn conditions(ready: bool) -> Value {
    json!([{ "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": timestamp() }])
}

/// Runs until dropped.
pub async fn run(server: Server, seed: u64, faults: Faults) {
    let mut random = Random::new(seed, 3);
    let mut since: HashMap<String, Duration> = HashMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = server.elapsed();
        for pod in server.list("pods", "").0 {
            let uid = text(&pod, &["metadata", "uid"]).to_owned();
            let stage = format!("{uid} {} {}", stage(&pod), text(&pod, &["metadata", "deletionTimestamp"]));
            let begun = *since.entry(stage).or_insert(now);
            let waited = u64::try_from(now.saturating_sub(begun).as_millis()).unwrap_or(0);
            step(&server, &pod, &uid, waited, seed, &faults, &mut random);
        }
    }
}

fn stage(pod: &Value) -> &str {
    if pod["spec"]["nodeName"].is_null() { "unbound" } else { text(pod, &["status", "phase"]) }
}

fn step(
    server: &Server,
    pod: &Value,
    uid: &str,
    waited: u64,
    seed: u64,
    faults: &Faults,
    random: &mut Random,
) {
    let key = Key::new("pods", text(pod, &["metadata", "namespace"]), text(pod, &["metadata", "name"]));
    let same = |now: &Value| text(now, &["metadata", "uid"]) == uid;
    // What fails is looked at again.
    let update = |subresource: &str, change: &dyn Fn(&mut Value)| {
        let _ = server.update(&key, subresource, |now| {
            let mut new = now.clone();
            if same(now) {
                change(&mut new);
            }
            Ok(new)
        });
    };
    let draw = |salt: u64, most: u64| hash(uid, seed ^ salt) % most;
    let terminating = pod["metadata"]["deletionTimestamp"].is_string();
    match stage(pod) {
        "unbound" if !terminating && waited >= draw(1, 600) => {
            let terms = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                ["nodeSelectorTerms"];
            let named = terms[0]["matchFields"][0]["values"][0].as_str();
            let node = named.unwrap_or(NODES[usize::try_from(draw(2, 3)).unwrap_or(0)]).to_owned();
            update("", &|pod| pod["spec"]["nodeName"] = json!(node));
        }
        "Succeeded" | "Failed" if terminating => {
            let _ =
                server.delete(&key, &Deletion { uid: Some(uid.to_owned()), at_once: true, version: None });
        }
        "Pending" | "Running" if terminating && waited >= draw(3, 4_000) => {
            update("status", &|pod| {
                pod["status"] = json!({ "phase": "Failed", "conditions": conditions(false), "containerStatuses": [ended(1)] });
            });
        }
        "Pending" if !terminating && waited >= 200 + draw(4, 2_500) => {
            update("status", &|pod| {
                pod["status"] =
                    json!({ "phase": "Running", "podIP": "10.0.0.1", "conditions": conditions(true) });
            });
        }
        "Running" if !terminating => {
            let of_job = pod["metadata"]["ownerReferences"][0]["kind"] == "Job";
            if of_job && waited >= 300 + draw(5, 5_000) {
                let well = draw(6, 10) > 1;
                update("status", &|pod| {
                    let phase = if well { "Succeeded" } else { "Failed" };
                    pod["status"] = json!({
                        "phase": phase, "conditions": conditions(false), "containerStatuses": [ended(i32::from(!well))],
                    });
                });
                return;
            }
            let ready = text(&pod["status"]["conditions"][0], &["status"]) == "True";
            let flips = if ready {
                server.is_troubled() && random.below(0..1_000) < faults.flaps
            } else {
                random.percent(5)
            };
            if flips {
                update("status", &|pod| pod["status"]["conditions"] = conditions(!ready));
            }
        }
        _ => {}
    }
}

fn ended(code: i32) -> Value {
    json!({
        "name": "c", "image": "v1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "finishedAt": timestamp() } },
    })
}
