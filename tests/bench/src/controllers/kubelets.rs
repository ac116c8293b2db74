//! What kubelets write: bound pods run at once, those of Jobs have ended at once, and deleted ones are gone.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::api::client::{Client, JSON, STRATEGIC};
use crate::api::events::Events;

/// Requests at the same time.
const AT_ONCE: usize = 32;

/// All kubelets; they end when this is dropped.
pub struct Kubelets(JoinHandle<anyhow::Result<()>>);

impl Kubelets {
    /// Starts them.
    ///
    /// # Errors
    /// When pods cannot be watched.
    pub async fn start(client: Client) -> anyhow::Result<Self> {
        let events = Events::open(&client, "/api/v1/pods?watch=true&fieldSelector=spec.nodeName!%3D").await?;
        Ok(Self(tokio::spawn(run(client, events))))
    }

    /// Whether they have ended, as they do when the watch ends.
    pub fn are_gone(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(client: Client, mut events: Events) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut number = 0;
    loop {
        for event in events.next().await? {
            number += 1;
            let Some((method, path, body)) = answer(&event, number) else { continue };
            let (client, permit) = (client.clone(), Arc::clone(&room).acquire_owned().await?);
            tokio::spawn(async move {
                let kind = if method == "PATCH" { STRATEGIC } else { JSON };
                // A pod that is gone meanwhile needs nothing; one that lacks its status is what the measurement then waits for in vain.
                let _ = client.send(method, &path, kind, body).await;
                drop(permit);
            });
        }
    }
}

/// The request that an event of a bound pod asks for.
fn answer(event: &Value, number: u64) -> Option<(&'static str, String, Bytes)> {
    let pod = &event["object"];
    if event["type"] == "DELETED" {
        return None;
    }
    let metadata = &pod["metadata"];
    let path =
        format!("/api/v1/namespaces/{}/pods/{}", metadata["namespace"].as_str()?, metadata["name"].as_str()?);
    if metadata["deletionTimestamp"].is_string() {
        let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
        return Some(("DELETE", path, body.to_string().into()));
    }
    if pod["status"]["phase"] != "Pending" {
        return None;
    }
    let ended = metadata["labels"]["batch.kubernetes.io/job-name"].is_string();
    let address = format!("10.{}.{}.{}", 64 + (number >> 16 & 63), number >> 8 & 255, number & 255);
    let ready = json!({ "type": "Ready", "status": if ended { "False" } else { "True" } });
    let status = json!({ "status": {
        "phase": if ended { "Succeeded" } else { "Running" },
        "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [ready],
    } });
    Some(("PATCH", format!("{path}/status"), status.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_run_once_and_go_when_they_are_deleted() {
        let mut event = json!({ "type": "ADDED", "object": {
            "metadata": { "namespace": "n", "name": "p" }, "status": { "phase": "Pending" } } });
        let (method, path, body) = answer(&event, 1).expect("a status");
        assert_eq!((method, path.as_str()), ("PATCH", "/api/v1/namespaces/n/pods/p/status"));
        assert!(String::from_utf8_lossy(&body).contains("Running"));
        event["object"]["status"]["phase"] = "Running".into();
        assert_eq!(answer(&event, 1), None);
        event["object"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(answer(&event, 1).expect("an end").0, "DELETE");
    }
}
