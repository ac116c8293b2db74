//! DenyServiceExternalIPs: no Service takes external addresses that it does not have already.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core, refusal};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct DenyServiceExternalIPs;

impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let service = object.filter(|service| is_core(request, "services") && takes_more(service, old));
        let decided = service.map_or(Ok(()), |_| {
            Err(refusal(request, object, "Use of external IPs is denied by admission control"))
        });
        Box::pin(std::future::ready(decided))
    }
}

fn takes_more(service: &Value, old: Option<&Value>) -> bool {
    let addresses = |service: &Value| service["spec"]["externalIPs"].as_array().cloned().unwrap_or_default();
    let had = old.map(addresses).unwrap_or_default();
    addresses(service).iter().any(|address| !had.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_may_go_but_not_come() {
        let service = |addresses: Value| json!({"spec": {"externalIPs": addresses}});
        let [none, one, both] = [json!(null), json!(["1.1.1.1"]), json!(["1.1.1.1", "2.2.2.2"])].map(service);
        assert!(!takes_more(&none, None) && takes_more(&one, None));
        assert!(takes_more(&both, Some(&one)) && !takes_more(&one, Some(&both)));
    }
}
