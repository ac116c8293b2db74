//! The structural schema of one version of a custom resource, read once from its CustomResourceDefinition.
//!
//! Owns the tree; what it prunes, defaults and refuses is the matter of the files beside it.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// The JSON type that a schema demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// None.
    #[default]
    Any,
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl Kind {
    fn of(name: &str) -> Kind {
        match name {
            "object" => Kind::Object,
            "array" => Kind::Array,
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    /// As schemas write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
        }
    }
}

/// What identifies the items of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Items {
    /// Nothing: the list is one value.
    #[default]
    Atomic,
    /// Each item itself.
    Set,
    /// These fields of each item.
    Map(Vec<String>),
}

/// A lower or upper bound.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The bound as the schema writes it.
    pub limit: serde_json::Number,
    /// Whether the bound itself is out of bounds.
    pub exclusive: bool,
}

/// One node of a structural schema. In the branches of `allOf` and the like only what restricts values counts.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// The type demanded.
    pub kind: Kind,
    /// A number or a string.
    pub int_or_string: bool,
    /// Fields that are not listed are kept.
    pub preserves_unknown: bool,
    /// The object has a kind and metadata of its own.
    pub embedded: bool,
    /// `null` is a value.
    pub nullable: bool,
    /// The fields listed.
    pub properties: BTreeMap<String, Structural>,
    /// The shape of the entries of a map.
    pub additional: Option<Box<Structural>>,
    /// The shape of the items of a list.
    pub items: Option<Box<Structural>>,
    /// What a missing field gets.
    pub default: Option<Value>,
    /// What identifies items.
    pub list_type: Items,
    /// The map or object is one value.
    pub atomic: bool,
    /// What a string has to look like, by name.
    pub format: String,
    /// What a string has to match.
    pub pattern: Option<(String, Regex)>,
    /// The values allowed.
    pub allowed: Option<Vec<Value>>,
    /// The least number.
    pub minimum: Option<Bound>,
    /// The greatest number.
    pub maximum: Option<Bound>,
    /// A number of which the value is a multiple.
    pub multiple_of: Option<serde_json::Number>,
    /// The least and the greatest number of characters.
    pub length: Limits,
    /// The least and the greatest number of items.
    pub item_count: Limits,
    /// The least and the greatest number of fields.
    pub property_count: Limits,
    /// The fields that have to be there.
    pub required: Vec<String>,
    /// All of them have to hold.
    pub all_of: Vec<Structural>,
    /// At least one has to hold.
    pub any_of: Vec<Structural>,
    /// Exactly one has to hold.
    pub one_of: Vec<Structural>,
    /// This may not hold.
    pub not: Option<Box<Structural>>,
    /// The rules in CEL, as the definition has them.
    pub rules: Vec<Value>,
}

/// A least and a greatest number of something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// At least.
    pub min: Option<u64>,
    /// At most.
    pub max: Option<u64>,
}

impl Structural {
    /// Reads an `openAPIV3Schema`. What makes no sense is left out: validation of the definition has refused it.
    pub fn of(schema: &Value) -> Structural {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let list = |key: &str| -> Vec<Structural> {
            schema.get(key).and_then(Value::as_array).into_iter().flatten().map(Structural::of).collect()
        };
        let texts = |key: &str| -> Vec<String> {
            let list = schema.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let bound = |key: &str, exclusive: &str| match schema.get(key) {
            Some(Value::Number(limit)) => Some(Bound { limit: limit.clone(), exclusive: flag(exclusive) }),
            _ => None,
        };
        let limits = |min: &str, max: &str| Limits { min: count(min), max: count(max) };
        Structural {
            kind: Kind::of(text("type")),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            nullable: flag("nullable"),
            properties: schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), Structural::of(property)))
                .collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => {
                    Some(Box::new(Structural { nullable: true, ..Structural::default() }))
                }
                Some(values @ Value::Object(_)) => Some(Box::new(Structural::of(values))),
                _ => None,
            },
            items: schema
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(Structural::of(items))),
            default: schema.get("default").cloned(),
            list_type: match text("x-kubernetes-list-type") {
                "set" => Items::Set,
                "map" => Items::Map(texts("x-kubernetes-list-map-keys")),
                _ => Items::Atomic,
            },
            atomic: text("x-kubernetes-map-type") == "atomic",
            format: text("format").to_owned(),
            pattern: Some(text("pattern"))
                .filter(|pattern| !pattern.is_empty())
                .and_then(|pattern| Some((pattern.to_owned(), compile(pattern).ok()?))),
            allowed: schema.get("enum").and_then(Value::as_array).filter(|list| !list.is_empty()).cloned(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema.get("multipleOf").and_then(Value::as_number).cloned(),
            length: limits("minLength", "maxLength"),
            item_count: limits("minItems", "maxItems"),
            property_count: limits("minProperties", "maxProperties"),
            required: texts("required"),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            rules: schema
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Structural::of(not))),
        }
    }

    /// The shape of the field called `name`, when it is listed or a map's entry.
    pub fn field(&self, name: &str) -> Option<&Structural> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

/// A pattern as upstream understands it.
///
/// # Errors
/// It is no regular expression, or too large.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(pattern)
}
