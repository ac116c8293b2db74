//! A write as expressions see it: its objects in the version that was asked for, its request, its namespace, and who answers about permissions.

use std::sync::Arc;

use coracle_api::cel::admission::Data;
use coracle_api::cel::{self, Question};
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::{Attributes, namespace};
use crate::admission::seen::shown;
use crate::admission::webhook::admission_request;
use crate::authz::{self, Authorizer, ResourceAttributes};
use crate::registry::Registry;
use crate::server::request_info::UserInfo;

/// What expressions about one write see.
pub struct View {
    object: Value,
    old: Value,
    request: Value,
    namespace: Arc<Value>,
    asker: Asker,
}

impl View {
    /// A write as one of `known_as`.
    ///
    /// # Errors
    /// Its namespace is not there, or the store's errors.
    pub async fn of(
        registry: &Registry,
        authorizer: &Arc<Authorizer>,
        attributes: &Attributes<'_>,
        known_as: &'static Resource,
    ) -> Result<Self, ApiError> {
        let request = attributes.request;
        let typed = |object: Option<Value>| {
            let mut object = object.unwrap_or_default();
            // Everything that is stored has a kind; what is on its way may have left it out.
            if let Some(fields) = object.as_object_mut().filter(|_| request.subresource.is_none()) {
                fields.entry("apiVersion").or_insert_with(|| known_as.api_version().into());
                fields.entry("kind").or_insert_with(|| known_as.kind.into());
            }
            object
        };
        let within = match attributes.namespace() {
            name if name.is_empty() || attributes.is_namespace() => Arc::default(),
            name => namespace(registry, name).await?,
        };
        let [object, old] = shown(registry, attributes, known_as).await?;
        Ok(Self {
            object: typed(object),
            old: typed(old),
            request: admission_request(attributes, known_as),
            namespace: within,
            asker: Asker { authorizer: Arc::clone(authorizer), user: request.user.clone() },
        })
    }

    /// The values behind the variables; `params` is absent where none are declared.
    pub fn data<'a>(&'a self, params: Option<&'a Value>) -> Data<'a> {
        Data {
            object: &self.object,
            old: &self.old,
            request: &self.request,
            namespace: &self.namespace,
            params,
            authorizer: &self.asker,
        }
    }
}

/// Asks the server's authorizer for the user of the request, or for a ServiceAccount.
struct Asker {
    authorizer: Arc<Authorizer>,
    user: UserInfo,
}

impl cel::Authorizer for Asker {
    fn decide(&self, question: &Question) -> (bool, String) {
        let account = question.service_account.as_ref().map(|(namespace, name)| UserInfo {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            ..UserInfo::default()
        });
        let asked = match &question.path {
            Some(path) => authz::Attributes::Path { verb: &question.verb, path },
            None => authz::Attributes::Resource(ResourceAttributes {
                verb: &question.verb,
                group: &question.group,
                resource: &question.resource,
                subresource: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
                ..ResourceAttributes::default()
            }),
        };
        let decision = self.authorizer.decide_here(account.as_ref().unwrap_or(&self.user), &asked);
        (decision.allowed, decision.reason)
    }
}
