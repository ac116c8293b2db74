//! Whether all has come to rest: every workload has what it asks for.

use serde_json::Value;

use crate::server::Server;

fn number(object: &Value, path: [&str; 2]) -> i64 {
    object[path[0]][path[1]].as_i64().unwrap_or(0)
}

fn observed(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// What is not as it should be; nothing if all is. A quota may keep pods from being made, then numbers are not judged.
pub fn unsettled(server: &Server) -> Vec<String> {
    let mut found = Vec::new();
    let limited = !server.list("resourcequotas", "").0.is_empty();
    let mut want = |object: &Value, what: &str, is: i64, wanted: i64| {
        if is != wanted {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            found.push(format!(
                "{} {name}: {what} is {is} and not {wanted}; status {}",
                object["kind"], object["status"]
            ));
        }
    };
    for (resource, fields) in [
        ("deployments", &["replicas", "updatedReplicas", "availableReplicas"][..]),
        ("replicasets", &["replicas", "availableReplicas"]),
        ("statefulsets", &["replicas", "readyReplicas", "updatedReplicas"]),
    ] {
        for object in server.list(resource, "").0 {
            let wanted = number(&object, ["spec", "replicas"]);
            want(&object, "observed generation", i64::from(observed(&object)), 1);
            if limited {
                continue;
            }
            for field in fields {
                want(&object, field, number(&object, ["status", field]), wanted);
            }
            let uid = &object["metadata"]["uid"];
            let pods = server.list("pods", "").0;
            let own = |pod: &&Value| {
                pod["metadata"]["ownerReferences"][0]["uid"] == *uid
                    && !pod["metadata"]["deletionTimestamp"].is_string()
            };
            if resource != "deployments" {
                want(
                    &object,
                    "number of pods",
                    i64::try_from(pods.iter().filter(own).count()).unwrap_or(0),
                    wanted,
                );
            }
        }
    }
    for set in server.list("daemonsets", "").0.iter().filter(|_| !limited) {
        want(set, "numberAvailable", number(set, ["status", "numberAvailable"]), 3);
    }
    for job in server.list("jobs", "").0.iter().filter(|_| !limited) {
        let conditions = job["status"]["conditions"].as_array();
        let complete =
            conditions.into_iter().flatten().any(|one| one["type"] == "Complete" && one["status"] == "True");
        want(job, "completion", i64::from(complete), 1);
        want(job, "succeeded", number(job, ["status", "succeeded"]), number(job, ["spec", "completions"]));
    }
    found
}
