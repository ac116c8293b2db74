//! What a list, watch or deletecollection selects: a namespace, labels and fields.

use coracle_api::resource::Resource;
use coracle_api::selector::{FieldRequirement, FieldSelector, LabelSelector};
use coracle_api::status::ApiError;

use crate::cache::object::CachedObject;
use crate::cache::resource::WakeKey;
use crate::server::request_info::Query;
use crate::strategy::{self, Strategy};

/// A selection over one resource.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty: all namespaces.
    namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Everything in a namespace (empty: everywhere).
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// From `labelSelector` and `fieldSelector`. `name` restricts to one object (the old way of watching one).
    ///
    /// # Errors
    /// 400 for selectors that cannot be parsed or name fields that cannot be selected by.
    pub fn from_query(
        resource: &'static Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let known = strategy::for_resource(resource).selectable_field_names();
        for requirement in &fields.requirements {
            let field = requirement.field.as_str();
            let general = field == "metadata.name" || (field == "metadata.namespace" && resource.namespaced);
            if !general && !known.contains(&field) {
                let custom = resource.custom.is_some() || !known.is_empty();
                return Err(ApiError::bad_request(match custom {
                    true => format!("field label not supported: {field}"),
                    false => format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    ),
                }));
            }
        }
        if let Some(name) = name {
            fields.requirements.push(FieldRequirement {
                field: "metadata.name".into(),
                value: name.to_owned(),
                equals: true,
            });
        }
        let mut namespace = namespace.unwrap_or_default().to_owned();
        if namespace.is_empty()
            && let Some(at) = fields.required_value("metadata.namespace")
        {
            namespace = at.to_owned();
        }
        Ok(Self { namespace, labels, fields })
    }

    /// What the suffixes of all selected objects begin with.
    pub fn key_prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }

    /// Whether nothing but the namespace restricts.
    pub fn selects_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The name, when only one object can match.
    fn single_name(&self) -> Option<&str> {
        self.fields.required_value("metadata.name")
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &CachedObject, strategy: &dyn Strategy) -> bool {
        (self.namespace.is_empty() || object.namespace() == self.namespace)
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(object.name()),
                "metadata.namespace" => Some(object.namespace()),
                field => object
                    .fields(strategy)
                    .iter()
                    .find(|(name, _)| *name == field)
                    .map(|(_, value)| value.as_str()),
            })
            && (self.labels.is_everything()
                || self.labels.matches_with(|key| object.labels().get(key).map(String::as_str)))
    }

    /// Whether an object is selected that has a name and nothing else to select by.
    pub fn matches_bare(&self, name: &str) -> bool {
        self.fields.matches(|field| (field == "metadata.name").then_some(name))
            && self.labels.matches_with(|_| None)
    }

    /// Which events a watch of this selection must be woken for.
    pub fn wake_key(&self, strategy: &dyn Strategy) -> WakeKey {
        if let Some(name) = self.single_name()
            && !self.namespace.is_empty()
        {
            return WakeKey::Object(format!("{}/{name}", self.namespace).into());
        }
        for requirement in self.fields.requirements.iter().filter(|requirement| requirement.equals) {
            let known = strategy.selectable_field_names();
            if let Some(field) = known.iter().find(|field| **field == requirement.field) {
                return WakeKey::Field(field, requirement.value.as_str().into());
            }
        }
        if self.namespace.is_empty() {
            WakeKey::All
        } else {
            WakeKey::Namespace(self.namespace.as_str().into())
        }
    }
}
