//! The node's heartbeat: a Lease renewed every 10 seconds.
//!
//! Never here: the node's status.

use std::time::Duration;

use coracle_client::config::{api_code, within};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
const RETRY: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// Renews until shutdown.
pub async fn run(client: Client, node_name: String, seconds: i32, shutdown: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let nodes: Api<Node> = Api::all(client);
    let mut held: Option<Lease> = None;
    // As upstream: four tries before it runs out.
    let period = Duration::from_secs(u64::try_from(seconds).unwrap_or(40)) / 4;
    loop {
        let pause = match renew(&leases, &nodes, &node_name, held.take(), seconds).await {
            Ok(lease) => {
                held = Some(lease);
                period
            }
            Err(error) => {
                tracing::warn!(error, "cannot renew the node's lease");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Microseconds are all that the API keeps.
fn now() -> MicroTime {
    let now = Timestamp::now();
    MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}

async fn renew(
    leases: &Api<Lease>,
    nodes: &Api<Node>,
    name: &str,
    held: Option<Lease>,
    seconds: i32,
) -> Result<Lease, String> {
    let text = |error: kube::Error| error.to_string();
    let current = match held {
        Some(lease) => Some(lease),
        None => within(DEADLINE, leases.get_opt(name)).await.map_err(text)?,
    };
    if let Some(mut lease) = current {
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(now());
        spec.holder_identity = Some(name.to_owned());
        spec.lease_duration_seconds = Some(seconds);
        return match within(DEADLINE, leases.replace(name, &PostParams::default(), &lease)).await {
            Ok(lease) => Ok(lease),
            // Someone else wrote it or it was removed: the next try reads it again.
            Err(error) => Err(error.to_string()),
        };
    }
    let owner = within(DEADLINE, nodes.get_opt(name)).await.map_err(text)?.map(|node| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        }),
    };
    match within(DEADLINE, leases.create(&PostParams::default(), &lease)).await {
        Err(error) if api_code(&error) == Some(404) => {
            Err(format!("namespace {NAMESPACE} does not exist yet"))
        }
        other => other.map_err(text),
    }
}
