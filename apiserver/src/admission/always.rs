//! AlwaysAdmit and AlwaysDeny: for tests of clusters.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, refusal};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
}

pub(super) struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Err(refusal(
            request,
            object,
            "admission control is denying all modifications",
        ))))
    }
}
