//! Whether a write is what a webhook or an admission policy is about: rules, object selectors, namespace selectors, match conditions. Decides only; what is then called or
//! evaluated is not known here.

pub mod conditions;
mod rules;
pub mod view;

use std::sync::Arc;

use coracle_api::kinds::access::{items, text};
use coracle_api::meta;
use coracle_api::resource::{self, Resource, Served};
use coracle_api::selector::LabelSelector;
use coracle_api::status::ApiError;
use serde_json::Value;

use crate::cache::Cache;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;
use rules::Rule;

/// What happens to an object, as rules name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A stream to it is opened.
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    /// What a request that reaches admission does.
    pub fn of(request: &RequestInfo, object: Option<&Value>, old: Option<&Value>) -> Self {
        match request.subresource() {
            Some("exec" | "attach" | "portforward" | "proxy") => Self::Connect,
            _ if object.is_none() => Self::Delete,
            _ if old.is_some() => Self::Update,
            _ => Self::Create,
        }
    }
}

/// A write as admission sees it.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// The request it came with.
    pub request: &'a RequestInfo,
    /// What happens.
    pub operation: Operation,
    /// The object as it is to be; absent for deletions.
    pub object: Option<&'a Value>,
    /// The object as it is stored; absent for what is new.
    pub old: Option<&'a Value>,
}

impl<'a> Attributes<'a> {
    /// Of what admission is given.
    pub fn new(request: &'a RequestInfo, object: Option<&'a Value>, old: Option<&'a Value>) -> Self {
        Self { request, operation: Operation::of(request, object, old), object, old }
    }

    /// The object's name; empty while it is still to be generated.
    pub fn name(&self) -> &'a str {
        match (self.request.name(), self.object) {
            ("", _) if self.request.generated_name => "",
            ("", Some(object)) => meta::name(object),
            (name, _) => name,
        }
    }

    /// The object's namespace; that of a namespace is itself.
    pub fn namespace(&self) -> &'a str {
        if self.is_namespace() { self.name() } else { self.request.namespace() }
    }

    fn is_namespace(&self) -> bool {
        (self.request.resource.group, self.request.resource.plural) == ("", "namespaces")
    }

    /// Whether it is about what configures admission itself, which nothing configured may keep from being repaired.
    pub fn is_exempt(&self) -> bool {
        self.request.resource.group == "admissionregistration.k8s.io"
    }

    /// Waits until the cache has what decides on the write.
    ///
    /// # Errors
    /// 403 when it does not have it in time.
    pub async fn wait_until_ready(&self, cache: &Cache) -> Result<(), ApiError> {
        if cache.is_started() || cache.wait_for(0).await.is_ok() {
            return Ok(());
        }
        let resource = self.request.resource.group_resource();
        Err(ApiError::forbidden(resource, self.name(), "not yet ready to handle request"))
    }

    /// The resource itself and those that show the same objects under another group or version, where they have the subresource too.
    pub fn equivalents(&self, served: &Served) -> Vec<&'static Resource> {
        let row = self.request.resource;
        let same_store = |other: &&'static Resource| {
            row.is_stored()
                && other.storage_prefix == row.storage_prefix
                && !std::ptr::eq(*other, row)
                && self.request.subresource().is_none_or(|name| other.subresource(name).is_some())
        };
        served.rows().filter(same_store).collect()
    }
}

/// Whether admission sees the resource's own kind, which has versions, and not what a subresource takes.
pub fn has_versions(request: &RequestInfo) -> bool {
    request.subresource.is_none_or(|part| part.kind == request.resource.kind)
}

/// An object of the request as `to`, one of its equivalents, shows it.
///
/// # Errors
/// What a conversion webhook did wrong.
pub async fn in_version(
    registry: &Registry,
    object: Value,
    request: &RequestInfo,
    to: &'static Resource,
) -> Result<Value, ApiError> {
    if has_versions(request) { registry.in_version(object, request.resource, to).await } else { Ok(object) }
}

/// What a webhook, a policy or a binding selects.
#[derive(Debug)]
pub struct Criteria {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Criteria {
    /// Of an object with `namespaceSelector`, `objectSelector` and `matchPolicy`, whose rules are in the field `rules` and, if there are any that do
    /// not count, in `excluded`.
    ///
    /// # Errors
    /// A selector makes no sense.
    pub fn of(object: &Value, rules: &str, excluded: &str) -> Result<Self, String> {
        let selector = |field: &str| match object.get(field) {
            None | Some(Value::Null) => Ok(LabelSelector::everything()),
            Some(selector) => LabelSelector::from_object(selector).map_err(|error| error.to_string()),
        };
        let list = |field: &str| items(object, field).iter().map(Rule::of).collect();
        Ok(Self {
            rules: list(rules),
            excluded: list(excluded),
            equivalent: text(object, "matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// The resource in whose version the write is meant, by the rules and the object selector alone; `None`: it is not meant. Pure.
    pub fn resource(&self, attributes: &Attributes<'_>, served: &Served) -> Option<&'static Resource> {
        if self.leaves_out(attributes, served) { None } else { self.find(&self.rules, attributes, served) }
    }

    /// Whether the object selector does not select the write, or an excluding rule means it.
    fn leaves_out(&self, attributes: &Attributes<'_>, served: &Served) -> bool {
        let selects =
            |object: Option<&Value>| object.is_some_and(|object| self.objects.matches_object(object));
        let selected = self.objects.is_everything() || selects(attributes.object) || selects(attributes.old);
        !selected || self.find(&self.excluded, attributes, served).is_some()
    }

    /// Whether what has passed the rules of a policy is selected by a binding too: without rules of its own it takes them all.
    ///
    /// # Errors
    /// The namespace is not there, or the store's errors.
    pub async fn selects(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
        let served = registry.cache.served();
        let meant = self.rules.is_empty() || self.find(&self.rules, attributes, &served).is_some();
        let left_out = self.leaves_out(attributes, &served);
        Ok(meant && !left_out && self.selects_namespace(registry, attributes).await?)
    }

    fn find(
        &self,
        rules: &[Rule],
        attributes: &Attributes<'_>,
        served: &Served,
    ) -> Option<&'static Resource> {
        let own = attributes.request.resource;
        if rules.iter().any(|rule| rule.matches(attributes, own)) {
            return Some(own);
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let equivalents = attributes.equivalents(served);
        let first = |rule: &Rule| equivalents.iter().copied().find(|row| rule.matches(attributes, row));
        rules.iter().find_map(first)
    }

    /// The same, with the namespace selector.
    ///
    /// # Errors
    /// The namespace is not there, or the store's errors.
    pub async fn matches(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<Option<&'static Resource>, ApiError> {
        let Some(found) = self.resource(attributes, &registry.cache.served()) else { return Ok(None) };
        Ok(self.selects_namespace(registry, attributes).await?.then_some(found))
    }

    /// Whether the namespace selector, which says nothing about what lives in no namespace, selects the write's namespace.
    ///
    /// # Errors
    /// The namespace is not there, or the store's errors.
    pub async fn selects_namespace(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<bool, ApiError> {
        let in_none = attributes.namespace().is_empty() && !attributes.is_namespace();
        if in_none || self.namespaces.is_everything() {
            return Ok(true);
        }
        let is_itself = attributes.is_namespace() && attributes.request.subresource.is_none();
        if let Some(namespace) = attributes.object.filter(|_| is_itself) {
            return Ok(self.namespaces.matches_object(namespace));
        }
        let namespace = namespace(registry, attributes.namespace()).await?;
        Ok(self.namespaces.matches_object(&namespace))
    }
}

/// A namespace as the cache has it, or as the store has it if that has not heard of it yet.
///
/// # Errors
/// 404 and the store's errors.
pub async fn namespace(registry: &Registry, name: &str) -> Result<Arc<Value>, ApiError> {
    let namespaces =
        resource::lookup("", "v1", "namespaces").ok_or_else(|| ApiError::internal("no namespaces"))?;
    registry.known(namespaces, "", name).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::request_info::Verb;
    use serde_json::json;

    fn request(group: &str, version: &str, plural: &str) -> RequestInfo {
        let row = resource::lookup(group, version, plural).expect("in the table");
        RequestInfo::internal(Verb::Create, row, Some("a"), Some("x"))
    }

    fn found(object: &Value, request: &RequestInfo, new: &Value) -> Option<String> {
        let criteria = Criteria::of(object, "rules", "excluded").expect("makes sense");
        let row = criteria.resource(&Attributes::new(request, Some(new), None), &Served::default())?;
        Some(format!("{}/{}", row.group, row.version))
    }

    #[test]
    fn a_rule_for_one_version_is_one_for_all_unless_it_is_to_be_exact() {
        let mut hook = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
            "resources": ["horizontalpodautoscalers"]}]});
        let of_v2 = request("autoscaling", "v2", "horizontalpodautoscalers");
        assert_eq!(found(&hook, &of_v2, &json!({})).as_deref(), Some("autoscaling/v1"));
        hook["matchPolicy"] = "Exact".into();
        assert_eq!(found(&hook, &of_v2, &json!({})), None);
        let events = json!({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["events"]}]});
        let event = request("events.k8s.io", "v1", "events");
        assert_eq!(found(&events, &event, &json!({})).as_deref(), Some("/v1"));
    }

    #[test]
    fn objects_are_selected_and_rules_excluded() {
        let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let mut hook = json!({"rules": [rule], "objectSelector": {"matchLabels": {"app": "web"}}});
        let pods = request("", "v1", "pods");
        let web = json!({"metadata": {"labels": {"app": "web"}}});
        assert!(found(&hook, &pods, &web).is_some());
        assert!(found(&hook, &pods, &json!({"metadata": {}})).is_none());
        let criteria = Criteria::of(&hook, "rules", "excluded").expect("makes sense");
        let was = Attributes::new(&pods, None, Some(&web));
        assert_eq!(was.operation, Operation::Delete);
        assert!(criteria.resource(&was, &Served::default()).is_some());
        hook["excluded"] = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
        assert!(found(&hook, &pods, &web).is_none());
    }

    #[test]
    fn a_namespace_is_in_itself() {
        let mut new = request("", "v1", "namespaces");
        (new.name, new.namespace) = (None, None);
        let object = json!({"metadata": {"name": "n"}});
        let attributes = Attributes::new(&new, Some(&object), None);
        assert_eq!((attributes.name(), attributes.namespace()), ("n", "n"));
        new.generated_name = true;
        assert_eq!(Attributes::new(&new, Some(&object), None).name(), "");
    }
}
