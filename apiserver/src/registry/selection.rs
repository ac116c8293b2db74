//! What a list, watch or deletecollection selects: a namespace, labels and fields.

use coracle_api::resource::Resource;
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
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    value: String,
    equal: bool,
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
        let mut fields = parse_fields(query.get("fieldSelector").unwrap_or_default())?;
        let known = strategy::for_resource(resource).selectable_field_names();
        for requirement in &fields {
            let field = requirement.field.as_str();
            let general = field == "metadata.name" || (field == "metadata.namespace" && resource.namespaced);
            if !general && !known.contains(&field) {
                return Err(ApiError::bad_request(format!(
                    "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {field}",
                    resource.api_version() + ", Resource=" + resource.plural,
                    query.get("labelSelector").unwrap_or_default(),
                    query.get("fieldSelector").unwrap_or_default(),
                )));
            }
        }
        if let Some(name) = name {
            fields.push(FieldRequirement {
                field: "metadata.name".into(),
                value: name.to_owned(),
                equal: true,
            });
        }
        let mut namespace = namespace.unwrap_or_default().to_owned();
        if namespace.is_empty()
            && let Some(at) = fields.iter().find(|r| r.field == "metadata.namespace" && r.equal)
        {
            namespace = at.value.clone();
        }
        Ok(Self { namespace, labels, fields })
    }

    /// What the suffixes of all selected objects begin with.
    pub fn key_prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }

    /// Whether nothing but the namespace restricts.
    pub fn selects_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The name, when only one object can match.
    fn single_name(&self) -> Option<&str> {
        self.fields.iter().find(|r| r.equal && r.field == "metadata.name").map(|r| r.value.as_str())
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &CachedObject, strategy: &dyn Strategy) -> bool {
        (self.namespace.is_empty() || object.namespace() == self.namespace)
            && self.fields.iter().all(|requirement| {
                let value = match requirement.field.as_str() {
                    "metadata.name" => object.name(),
                    "metadata.namespace" => object.namespace(),
                    field => object
                        .fields(strategy)
                        .iter()
                        .find(|(name, _)| *name == field)
                        .map_or("", |(_, value)| value.as_str()),
                };
                (value == requirement.value) == requirement.equal
            })
            && (self.labels.is_empty() || self.labels.matches(object.labels()))
    }

    /// Which events a watch of this selection must be woken for.
    pub fn wake_key(&self, strategy: &dyn Strategy) -> WakeKey {
        if let Some(name) = self.single_name()
            && !self.namespace.is_empty()
        {
            return WakeKey::Object(format!("{}/{name}", self.namespace).into());
        }
        for requirement in self.fields.iter().filter(|requirement| requirement.equal) {
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

/// `a=b,c!=d,e==f`, with backslashes before `,`, `=` and `\` in values.
fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, ApiError> {
    let mut requirements = Vec::new();
    for term in split_terms(text) {
        let found = ["!=", "==", "="].iter().find_map(|operator| {
            let (field, value) = term.split_once(operator)?;
            Some((field, value, *operator != "!="))
        });
        let Some((field, value, equal)) = found else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{term}'"
            )));
        };
        requirements.push(FieldRequirement { field: field.trim().to_owned(), value: unescape(value), equal });
    }
    Ok(requirements)
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms.retain(|term| !term.is_empty());
    terms
}

fn unescape(value: &str) -> String {
    let (mut plain, mut escaped) = (String::with_capacity(value.len()), false);
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(c);
            escaped = false;
        }
    }
    plain
}

/// A label selector in its text form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LabelSelector(Vec<LabelRequirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct LabelRequirement {
    key: String,
    values: Vec<String>,
    operator: LabelOperator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut depth, mut start, mut terms) = (0_i32, 0, Vec::new());
        for (at, c) in text.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    terms.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        terms.push(&text[start..]);
        let mut requirements = Vec::new();
        for term in terms.into_iter().map(str::trim).filter(|term| !term.is_empty()) {
            requirements.push(LabelRequirement::parse(term)?);
        }
        Ok(Self(requirements))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matches(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match requirement.operator {
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
                LabelOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
                LabelOperator::NotIn => !value.is_some_and(|value| requirement.values.contains(value)),
            }
        })
    }
}

impl LabelRequirement {
    fn parse(term: &str) -> Result<Self, String> {
        let make =
            |key: &str, operator, values: Vec<String>| Self { key: key.trim().to_owned(), values, operator };
        if let Some(key) = term.strip_prefix('!') {
            return Ok(make(key, LabelOperator::DoesNotExist, Vec::new()));
        }
        for (sign, operator) in
            [("!=", LabelOperator::NotIn), ("==", LabelOperator::In), ("=", LabelOperator::In)]
        {
            if let Some((key, value)) = term.split_once(sign) {
                return Ok(make(key, operator, vec![value.trim().to_owned()]));
            }
        }
        if let Some((head, list)) = term.split_once('(') {
            let values = list
                .trim()
                .strip_suffix(')')
                .ok_or_else(|| format!("unable to parse requirement: found '{term}', expected: ')'"))?;
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            let (key, word) = head.trim().rsplit_once(char::is_whitespace).unwrap_or((head, ""));
            return match word {
                "in" => Ok(make(key, LabelOperator::In, values)),
                "notin" => Ok(make(key, LabelOperator::NotIn, values)),
                _ => Err(format!("unable to parse requirement: found '{term}', expected: in, notin")),
            };
        }
        if term.contains(char::is_whitespace) {
            return Err(format!("unable to parse requirement: found '{term}'"));
        }
        Ok(make(term, LabelOperator::Exists, Vec::new()))
    }
}
