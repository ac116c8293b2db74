//! Webhooks that change objects: one after the other, and once more those that want it when others changed the object after them.

use std::collections::HashSet;

use coracle_api::patch;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::{Value, json};

use super::configuration::Webhook;
use super::{Place, Refused, Webhooks, is_scale, settle, shown};
use crate::admission::matching::view::View;
use crate::admission::matching::{self, Attributes};
use crate::registry::Registry;
use crate::registry::decode::{Complaints, check_kind, check_schema, expected_kind};
use crate::server::request_info::{FieldValidation, RequestInfo};
use crate::strategy;
use crate::subresource::scale;

/// Who is to be called again, over the rounds of one write.
#[derive(Default)]
pub struct Reinvocation {
    is_second: bool,
    /// Called and willing to be called again.
    called: HashSet<String>,
    /// To be called again.
    wanted: HashSet<String>,
    changed: bool,
    output: Value,
}

impl Reinvocation {
    /// Whether a webhook changed the object, so that everything that changes objects has to see it again.
    pub fn is_needed(&self) -> bool {
        self.changed && !self.is_second
    }

    fn somebody_changed_it(&mut self) {
        self.wanted.extend(self.called.drain());
    }
}

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
    /// Lets the webhooks change the object. The second call for the same write is the second round.
    ///
    /// # Errors
    /// A webhook said no, could not be asked and may not fail, or sent a patch that does not fit.
    pub async fn mutate(
        &self,
        request: &RequestInfo,
        object: &mut Value,
        old: Option<&Value>,
        rounds: &mut Reinvocation,
    ) -> Result<(), ApiError> {
        let hooks = self.hooks(&Attributes::new(request, Some(object), old)).await?;
        if hooks.is_empty() {
            return Ok(());
        }
        rounds.is_second = rounds.changed;
        if rounds.is_second && rounds.output != *object {
            rounds.somebody_changed_it();
        }
        for (index, hook) in hooks.iter().enumerate() {
            let attributes = Attributes::new(request, Some(object), old);
            let Some(known_as) = self.means(hook, &attributes).await? else { continue };
            if rounds.is_second && !rounds.wanted.contains(&hook.key) {
                continue;
            }
            let place = Place { request, kind: "mutating", round: usize::from(rounds.is_second), index };
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
                rounds.somebody_changed_it();
                rounds.changed = true;
            }
            if hook.again {
                rounds.called.insert(hook.key.clone());
            }
        }
        rounds.output = object.clone();
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
        let patched = patch::json::apply(&seen, &operations).map_err(|error| match error.code() {
            422 => {
                let cause = error.causes().first().and_then(|cause| cause["message"].as_str());
                Refused::Denied(ApiError::internal(cause.unwrap_or(error.message())))
            }
            _ => Refused::Unanswered(format!(
                "received undecodable patch in webhook response: {}",
                error.message()
            )),
        })?;
        let accepted = accept(&self.registry, request, object, patched, known_as).await;
        accepted.map(Some).map_err(Refused::Denied)
    }
}

/// The request's object after a webhook's patch: of the right kind and types, what the schema does not know dropped, defaults filled in.
async fn accept(
    registry: &Registry,
    request: &RequestInfo,
    object: &Value,
    mut patched: Value,
    known_as: &'static Resource,
) -> Result<Value, ApiError> {
    let mut seen_as = request.clone();
    seen_as.resource = known_as;
    seen_as.field_validation = FieldValidation::Ignore;
    let (api_version, kind) = expected_kind(&seen_as);
    let internal = |error: ApiError| ApiError::internal(error.message());
    check_kind(&mut patched, &api_version, kind).map_err(internal)?;
    if is_scale(request) {
        return scale::scaled(object.clone(), &patched, request.resource);
    }
    check_schema(&seen_as, known_as, &mut patched, Complaints::default()).map_err(internal)?;
    if matching::has_versions(request) {
        strategy::for_resource(known_as).default(&mut patched);
    }
    if request.generated_name && coracle_api::meta::name(&patched).is_empty() {
        coracle_api::meta::set(&mut patched, "name", coracle_api::meta::name(object));
    }
    match matching::has_versions(request) {
        true => registry.in_version(patched, known_as, request.resource).await,
        false => Ok(patched),
    }
}
