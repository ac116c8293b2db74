//! Webhooks that check objects: all at once.

use coracle_api::status::ApiError;
use futures::future::join_all;
use serde_json::Value;

use super::{Place, Webhooks, settle};
use crate::admission::matching::Attributes;
use crate::admission::seen::shown;
use crate::server::request_info::RequestInfo;

impl Webhooks {
    /// Asks all webhooks that are meant.
    ///
    /// # Errors
    /// One said no, or could not be asked and may not fail.
    pub async fn validate(
        &self,
        request: &RequestInfo,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let attributes = Attributes::new(request, object, old);
        let hooks = self.hooks(&attributes).await?;
        let mut meant = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if let Some(known_as) = self.means(hook, &attributes).await? {
                meant.push((index, hook, known_as));
            }
        }
        let asked = meant.into_iter().map(|(index, hook, known_as)| async move {
            let [new, old] = shown(&self.registry, &attributes, known_as).await?;
            match self.ask(hook, &attributes, known_as, [new.as_ref(), old.as_ref()], false).await {
                Ok(_) => Ok(()),
                Err(refused) => {
                    settle(hook, refused, &Place { request, kind: "validating", round: 0, index })
                }
            }
        });
        join_all(asked).await.into_iter().collect()
    }
}
