//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen it ready.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Plugin, is_core};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if is_core(request, "nodes") && old.is_none() {
            let mut taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
            if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
                object["spec"]["taints"] = taints.into();
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
