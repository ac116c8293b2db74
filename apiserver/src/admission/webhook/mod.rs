//! Admission webhooks: what MutatingWebhookConfigurations and ValidatingWebhookConfigurations say is asked of the servers they name. One call and what
//! becomes of its failure are here; who is called in which order is in `mutating` and `validating`.

mod configuration;
mod mutating;
mod review;
mod validating;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::matching::Attributes;
use crate::authz::Authorizer;
use crate::extension::client::Clients;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;
use configuration::{Configurations, Webhook};
use review::Verdict;
pub(in crate::admission) use review::admission_request;

/// One kind of webhook: those that change objects, or those that check them.
pub struct Webhooks {
    registry: Arc<Registry>,
    clients: Arc<Clients>,
    authorizer: Arc<Authorizer>,
    configurations: Configurations,
}

/// Why a webhook did not say yes.
enum Refused {
    /// It could not be asked, or its answer makes no sense: the failure policy says what that means.
    Unanswered(String),
    /// It said no, or the request must not be sent to it.
    Denied(ApiError),
}

impl Webhooks {
    /// Those of MutatingWebhookConfigurations.
    pub fn mutating(registry: Arc<Registry>, clients: Arc<Clients>, authorizer: Arc<Authorizer>) -> Self {
        let configurations = Configurations::of("mutatingwebhookconfigurations");
        Self { registry, clients, authorizer, configurations }
    }

    /// Those of ValidatingWebhookConfigurations.
    pub fn validating(registry: Arc<Registry>, clients: Arc<Clients>, authorizer: Arc<Authorizer>) -> Self {
        let configurations = Configurations::of("validatingwebhookconfigurations");
        Self { registry, clients, authorizer, configurations }
    }

    /// The webhooks there are, in the order of their configurations' names.
    async fn hooks(&self, attributes: &Attributes<'_>) -> Result<Arc<[Webhook]>, ApiError> {
        if attributes.is_exempt() {
            return Ok(Arc::from([]));
        }
        attributes.wait_until_ready(&self.registry.cache).await?;
        Ok(self.configurations.current(&self.registry.cache))
    }

    /// Asks one webhook about the write, whose objects are in the version that the webhook knows.
    async fn ask(
        &self,
        hook: &Webhook,
        attributes: &Attributes<'_>,
        known_as: &'static Resource,
        objects: [Option<&Value>; 2],
        mutating: bool,
    ) -> Result<Verdict, Refused> {
        if attributes.request.dry_run && !hook.dry_run {
            let text = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Refused::Denied(ApiError::bad_request(text)));
        }
        let Some(version) = hook.review_version else {
            let text = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(Refused::Unanswered(text.to_owned()));
        };
        let endpoint = hook
            .endpoint
            .as_ref()
            .map_err(|error| Refused::Unanswered(format!("could not get REST client: {error}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = review::review(version, &uid, attributes, known_as, objects);
        let body = serde_json::to_vec(&review).map_err(|error| Refused::Denied(ApiError::internal(error)))?;
        let answer = self
            .clients
            .post(endpoint, Bytes::from(body), hook.timeout)
            .await
            .map_err(|error| Refused::Unanswered(format!("failed to call webhook: {error}")))?;
        let verdict = review::verdict(version, &uid, mutating, &answer).map_err(Refused::Unanswered)?;
        for warning in &verdict.warnings {
            attributes.request.warnings.add(warning.as_str());
        }
        for (key, value) in &verdict.annotations {
            attributes.request.audit.annotate(&format!("{}/{key}", hook.name), value.as_str());
        }
        match &verdict.denied {
            Some(status) => Err(Refused::Denied(review::denial(&hook.name, status))),
            None => Ok(verdict),
        }
    }
}

/// Which call of a write a webhook is.
struct Place<'a> {
    request: &'a RequestInfo,
    /// `mutating` or `validating`.
    kind: &'static str,
    round: usize,
    index: usize,
}

/// What becomes of a webhook's failure to say yes: nothing if it may fail.
fn settle(hook: &Webhook, refused: Refused, place: &Place<'_>) -> Result<(), ApiError> {
    match refused {
        Refused::Denied(error) => Err(error),
        Refused::Unanswered(reason) => {
            let text = format!("failed calling webhook {:?}: {reason}", hook.name);
            tracing::warn!(webhook = hook.name, reason, ignored = hook.may_fail, "a webhook did not answer");
            if !hook.may_fail {
                return Err(ApiError::internal(text));
            }
            let Place { request, kind, round, index } = place;
            let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_{round}_index_{index}");
            request.audit.annotate(&key, hook.name.as_str());
            Ok(())
        }
    }
}
