//! The ServiceCIDR `kubernetes`: the range of `--service-cluster-ip-range` as an object. Makes it when it is missing and says that it is ready when
//! nobody has said anything; never changes the range of one that is there.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::meta::get;
use coracle_api::status::ApiError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{ensure, of};
use crate::registry::{Registry, meta};
use crate::subresource::conditions;

/// As upstream.
const INTERVAL: Duration = Duration::from_secs(10);
const GROUP: &str = "networking.k8s.io";
const PLURAL: &str = "servicecidrs";
const NAME: &str = "kubernetes";

/// Reconciles until `stop` fires.
pub async fn run(registry: Arc<Registry>, range: String, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if let Err(error) = reconcile(&registry, &range).await {
            tracing::warn!(%error, "cannot keep the default ServiceCIDR");
        }
    }
}

/// Once.
///
/// # Errors
/// The store failed.
pub async fn reconcile(registry: &Arc<Registry>, range: &str) -> Result<(), ApiError> {
    let wanted = json!({"metadata": {"name": NAME}, "spec": {"cidrs": [range]}});
    ensure(registry, GROUP, "v1", PLURAL, None, wanted).await?;
    let resource = of(GROUP, "v1", PLURAL)?;
    let now = meta::time_after(meta::now(), 0);
    let change = |cidr: &Value| Ok(judged(cidr, range, &now));
    match registry.guaranteed_update(resource, "", NAME, &change).await {
        Err(error) if error.code() != 404 => Err(error),
        _ => Ok(()),
    }
}

/// The object with its condition. One of another range or on its way out, or one that others have judged, is left as it is. Pure.
fn judged(cidr: &Value, range: &str, now: &str) -> Value {
    let mut cidr = cidr.clone();
    let conditions = get(&cidr, &["status", "conditions"]).and_then(Value::as_array);
    let known = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let open = known.is_none_or(|condition| condition["status"] == "Unknown");
    if open && !meta::is_deleting(&cidr) && cidr["spec"]["cidrs"] == json!([range]) {
        let condition = json!({"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready"});
        conditions::put(&mut cidr, condition, now);
    }
    cidr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_range_that_nobody_judged_is_called_ready() {
        let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
        let ready = judged(&cidr, "10.96.0.0/16", "t");
        assert_eq!(ready["status"]["conditions"][0]["status"], "True");
        assert_eq!(judged(&ready, "10.96.0.0/16", "later"), ready);
        assert_eq!(judged(&cidr, "10.97.0.0/16", "t"), cidr);
        let mut refused = ready.clone();
        refused["status"]["conditions"][0]["status"] = json!("False");
        assert_eq!(judged(&refused, "10.96.0.0/16", "t"), refused);
    }
}
