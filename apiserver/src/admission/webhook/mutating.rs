//! Webhooks that change objects: one after the other, and once more those that want it when others changed the object after them.

use coracle_api::patch::json;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use super::configuration::Webhook;
use super::{Place, Refused, Webhooks, settle};
use crate::admission::matching::Attributes;
use crate::admission::matching::view::View;
use crate::admission::reinvocation::Reinvocation;
use crate::admission::seen::{Unknown, accept, shown};
use crate::server::request_info::RequestInfo;

impl Place<'_> {
    /// Tells those who audit whether the webhook changed the object.
    fn mutated(&self, hook: &Webhook, mutated: bool) {
        let Place { request, round, index, .. } = self;
        if request.audit.is_kept() {
            let configuration = hook.key.split('/').next().unwrap_or_default();
            let told = json!({"configuration": configuration, "webhook": hook.name, "mutated": mutated});
            let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
            request.audit.annotate(&key, told.to_string());
        }
    }
}

impl Webhooks {
    /// Lets the webhooks change the object, in the first or in the second round.
    ///
    /// # Errors
    /// A webhook said no, could not be asked and may not fail, or sent a patch that does not fit.
    pub async fn mutate(
        &self,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
        rounds: &mut Reinvocation,
        is_second: bool,
    ) -> Result<(), ApiError> {
        let hooks = self.hooks(&Attributes::new(request, Some(object), old)).await?;
        if hooks.is_empty() {
            return Ok(());
        }
        rounds.begin(is_second, object);
        for (index, hook) in hooks.iter().enumerate() {
            let attributes = Attributes::new(request, Some(object), old);
            let Some(known_as) = self.means(hook, &attributes).await? else { continue };
            if !rounds.is_turn_of(&hook.key) {
                continue;
            }
            let place = Place { request, kind: "mutating", round: rounds.round(), index };
            let changed = match self.change(hook, &attributes, known_as).await {
                Ok(changed) => changed.filter(|changed| changed != object),
                Err(refused) => {
                    settle(hook, refused, &place)?;
                    None
                }
            };
            place.mutated(hook, changed.is_some());
            if let Some(changed) = changed {
                *object = changed;
                rounds.object_changed();
            }
            if hook.again {
                rounds.was_called(hook.key.clone());
            }
        }
        rounds.end(object);
        Ok(())
    }

    /// Asks about a deletion, of which nothing can be changed.
    ///
    /// # Errors
    /// As for [`Webhooks::mutate`].
    pub async fn mutate_deletion(&self, request: &RequestInfo, old: Option<&Value>) -> Result<(), ApiError> {
        let attributes = Attributes::new(request, None, old);
        for (index, hook) in self.hooks(&attributes).await?.iter().enumerate() {
            let Some(known_as) = self.means(hook, &attributes).await? else { continue };
            if let Err(refused) = self.change(hook, &attributes, known_as).await {
                settle(hook, refused, &Place { request, kind: "mutating", round: 0, index })?;
            }
        }
        Ok(())
    }

    /// The resource as which the webhook is to see the write, if it is meant.
    pub(super) async fn means(
        &self,
        hook: &Webhook,
        attributes: &Attributes<'_>,
    ) -> Result<Option<&'static Resource>, ApiError> {
        let criteria = hook.criteria.as_ref().map_err(ApiError::internal)?;
        let Some(known_as) = criteria.matches(&self.registry, attributes).await? else { return Ok(None) };
        if hook.conditions.is_empty() {
            return Ok(Some(known_as));
        }
        let view = View::of(&self.registry, &self.authorizer, attributes, known_as).await?;
        match hook.conditions.hold(&view.data(None)) {
            Ok(meant) => Ok(meant.then_some(known_as)),
            Err(_) if hook.may_fail => Ok(None),
            Err(error) => {
                let resource = attributes.request.resource.group_resource();
                Err(ApiError::forbidden(resource, attributes.name(), error))
            }
        }
    }

    /// The object as the webhook changes it; `None`: it does not.
    async fn change(
        &self,
        hook: &Webhook,
        attributes: &Attributes<'_>,
        known_as: &'static Resource,
    ) -> Result<Option<Value>, Refused> {
        let request = attributes.request;
        let [new, old] = shown(&self.registry, attributes, known_as).await.map_err(Refused::Denied)?;
        let verdict = self.ask(hook, attributes, known_as, [new.as_ref(), old.as_ref()], true).await?;
        let Some(operations) =
            verdict.patch.filter(|patch| patch.as_array().is_none_or(|all| !all.is_empty()))
        else {
            return Ok(None);
        };
        let (Some(seen), Some(object)) = (new, attributes.object) else {
            return Err(Refused::Denied(ApiError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            ))));
        };
        let patched = json::attempt(&seen, &operations).map_err(|failure| match failure {
            json::Failure::TestFailed(error) | json::Failure::NotApplicable(error) => {
                Refused::Denied(ApiError::internal(error))
            }
            json::Failure::Malformed(error) => Refused::Unanswered(format!(
                "received undecodable patch in webhook response: error decoding patch: {error}"
            )),
        })?;
        let accepted = accept(&self.registry, request, object, patched, known_as, Unknown::Dropped).await;
        accepted.map(Some).map_err(Refused::Denied)
    }
}
