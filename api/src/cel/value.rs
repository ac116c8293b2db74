//! Values of expressions. Data stays where it is: objects, lists and maps from JSON are read through references, and only what an
//! expression makes is owned.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde_json::{Map as JsonMap, Value as Json};

use super::library::authorizer::Authorization;
use super::library::format::Format;
use super::library::time;
use super::library::url::Url;
use super::types::{ObjectType, Type};
use super::{EvalError, no_such_overload};
use crate::meta;
use crate::quantity::Quantity;

/// A text, borrowed from data or made by an expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// From data.
    Borrowed(&'a str),
    /// Made.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// A key of a map. Whole numbers that are equal are the same key, whatever their type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is too large for the other.
    Uint(u64),
    /// A text.
    String(Text<'a>),
}

impl<'a> Key<'a> {
    /// What a value is as a key.
    ///
    /// # Errors
    /// Values of other types are no keys.
    pub(super) fn of(value: &Value<'a>) -> Result<Key<'a>, EvalError> {
        match value {
            Value::Bool(value) => Ok(Key::Bool(*value)),
            Value::Int(value) => Ok(Key::Int(*value)),
            Value::Uint(value) => Ok(i64::try_from(*value).map_or(Key::Uint(*value), Key::Int)),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Ok(Key::Int(*value as i64)),
            Value::String(text) => Ok(Key::String(text.clone())),
            _ => Err(no_such_overload()),
        }
    }

    /// The key as a value.
    pub(super) fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address as written.
    pub address: IpAddr,
    /// How many bits are the network's.
    pub prefix: u8,
}

/// An object that an expression made: `TYPE{field: value}`.
#[derive(Clone, Debug)]
pub struct Made<'a> {
    /// The name of its type.
    pub ty: Arc<str>,
    /// What was put into its fields.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number without sign.
    Uint(u64),
    /// A number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time.
    Duration(SignedDuration),
    /// Items.
    List(Arc<Vec<Value<'a>>>),
    /// Items of data, and their type.
    JsonList(&'a [Json], Arc<Type>),
    /// Entries.
    Map(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// Entries of data, and the type of their values.
    JsonMap(&'a JsonMap<String, Json>, Arc<Type>),
    /// An object with declared fields.
    Object(&'a JsonMap<String, Json>, Arc<ObjectType>),
    /// An object that an expression made.
    Made(Arc<Made<'a>>),
    /// A value or none.
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by name.
    Type(Arc<str>),
    /// A quantity of a resource.
    Quantity(Quantity),
    /// A semantic version.
    Semver(Arc<semver::Version>),
    /// A URL.
    Url(Arc<Url>),
    /// An address.
    Ip(IpAddr),
    /// An address range.
    Cidr(Cidr),
    /// A named format of text.
    Format(&'static Format),
    /// A regular expression that was compiled with the expression.
    Pattern(Arc<Regex>),
    /// What asks for permissions.
    Authorization(Arc<Authorization<'a>>),
}

impl<'a> From<bool> for Value<'a> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl<'a> From<String> for Value<'a> {
    fn from(text: String) -> Self {
        Value::String(Text::Shared(text.into()))
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Value::List(Arc::new(items))
    }
}

impl<'a> Value<'a> {
    /// Data of a declared type.
    pub fn of(json: &'a Json, ty: &Type) -> Value<'a> {
        match (json, ty) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(value), _) => Value::Bool(*value),
            (Json::Number(number), Type::Double) => number.as_f64().map_or(Value::Null, Value::Double),
            (Json::Number(number), Type::Int) => {
                let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
                whole.map_or(Value::Null, Value::Int)
            }
            (Json::Number(number), _) => number
                .as_i64()
                .map(Value::Int)
                .or_else(|| number.as_f64().map(Value::Double))
                .unwrap_or(Value::Null),
            (Json::String(text), ty) => match ty {
                Type::Bytes => base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map_or(Value::String(Text::Borrowed(text)), |bytes| Value::Bytes(bytes.into())),
                Type::Timestamp => time::parse_timestamp(text)
                    .or_else(|| meta::parse_time(&format!("{text}T00:00:00Z")))
                    .map_or(Value::String(Text::Borrowed(text)), Value::Timestamp),
                Type::Duration => {
                    time::parse_duration(text).map_or(Value::String(Text::Borrowed(text)), Value::Duration)
                }
                _ => Value::String(Text::Borrowed(text)),
            },
            (Json::Array(items), Type::List(item)) => Value::JsonList(items, Arc::clone(item)),
            (Json::Array(items), _) => Value::JsonList(items, Arc::new(Type::Dyn)),
            (Json::Object(fields), Type::Object(object)) => Value::Object(fields, Arc::clone(object)),
            (Json::Object(fields), Type::Map(_, value)) => Value::JsonMap(fields, Arc::clone(value)),
            (Json::Object(fields), _) => Value::JsonMap(fields, Arc::new(Type::Dyn)),
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) | Value::Pattern(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::List(_) | Value::JsonList(..) => "list",
            Value::Map(_) | Value::JsonMap(..) => "map",
            Value::Object(_, object) => &object.name,
            Value::Made(made) => &made.ty,
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Url(_) => "kubernetes.URL",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Authorization(authorization) => authorization.type_name(),
        }
    }

    /// Whether it may stand where a signature says `ty`; parts of containers are not looked at.
    pub(super) fn is(&self, ty: &Type) -> bool {
        match (ty, self) {
            (Type::Dyn | Type::Parameter(_), _)
            | (Type::Null, Value::Null)
            | (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Uint, Value::Uint(_))
            | (Type::Double, Value::Double(_))
            | (Type::String, Value::String(_) | Value::Pattern(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Timestamp, Value::Timestamp(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::List(_), Value::List(_) | Value::JsonList(..))
            | (Type::Map(..), Value::Map(_) | Value::JsonMap(..) | Value::Object(..))
            | (Type::Optional(_), Value::Optional(_))
            | (Type::Object(_), Value::Object(..))
            | (Type::Type, Value::Type(_)) => true,
            (Type::Made(name), Value::Made(made)) => made.ty == *name,
            (Type::Opaque(name), value) => value.type_name() == *name,
            _ => false,
        }
    }

    /// How many characters, bytes, items or entries it has; `None` for what has no size.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(text) => text.chars().count(),
            Value::Pattern(pattern) => pattern.as_str().chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.len(),
            Value::JsonList(items, _) => items.len(),
            Value::Map(entries) => entries.len(),
            Value::JsonMap(entries, _) => entries.len(),
            Value::Object(fields, object) => {
                object.fields.values().filter(|field| fields.contains_key(&field.json)).count()
            }
            Value::Made(made) => made.fields.len(),
            _ => return None,
        })
    }

    /// The items of a list, in order.
    pub fn items(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::List(items) => Some(items.to_vec()),
            Value::JsonList(items, ty) => Some(items.iter().map(|item| Value::of(item, ty)).collect()),
            _ => None,
        }
    }

    /// The keys of a map or the names of an object's fields.
    pub(super) fn keys(&self) -> Option<Vec<Key<'a>>> {
        match self {
            Value::Map(entries) => Some(entries.keys().cloned().collect()),
            Value::JsonMap(entries, _) => {
                Some(entries.keys().map(|key| Key::String(Text::Borrowed(key))).collect())
            }
            Value::Object(fields, object) => Some(
                object
                    .fields
                    .iter()
                    .filter(|(_, field)| fields.contains_key(&field.json))
                    .map(|(name, _)| Key::String(Text::Shared(name.as_str().into())))
                    .collect(),
            ),
            Value::Made(made) => {
                Some(made.fields.keys().map(|name| Key::String(Text::Shared(Arc::clone(name)))).collect())
            }
            _ => None,
        }
    }

    /// The entry of a map, or the field of an object; `None` also for what has neither.
    pub(super) fn entry(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Value::Map(entries), key) => entries.get(key).cloned(),
            (_, Key::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The same for a name.
    pub(super) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Value::Map(entries) => entries.get(&Key::String(Text::Shared(name.into()))).cloned(),
            Value::JsonMap(entries, ty) => entries.get(name).map(|value| Value::of(value, ty)),
            Value::Object(fields, object) => {
                let field = object.fields.get(name)?;
                fields.get(&field.json).map(|value| Value::of(value, &field.shape.ty))
            }
            Value::Made(made) => made.fields.get(name).cloned(),
            _ => None,
        }
    }

    /// The item of a list at a position.
    pub(super) fn item(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Value::List(items) => items.get(index).cloned(),
            Value::JsonList(items, ty) => items.get(index).map(|item| Value::of(item, ty)),
            _ => None,
        }
    }

    /// Whether it is a map or an object.
    pub(super) fn has_entries(&self) -> bool {
        matches!(self, Value::Map(_) | Value::JsonMap(..) | Value::Object(..) | Value::Made(_))
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            Value::Pattern(pattern) => Some(pattern.as_str()),
            _ => None,
        }
    }

    /// Equality as the language has it: numbers by what they say, containers item by item, different types never.
    pub(super) fn equals(&self, other: &Value<'a>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::Bytes(one), Value::Bytes(other)) => one == other,
            (Value::Duration(one), Value::Duration(other)) => one == other,
            (Value::Timestamp(one), Value::Timestamp(other)) => one == other,
            (Value::Type(one), Value::Type(other)) => one == other,
            (Value::Quantity(one), Value::Quantity(other)) => one == other,
            (Value::Semver(one), Value::Semver(other)) => one.cmp_precedence(other).is_eq(),
            (Value::Url(one), Value::Url(other)) => one == other,
            (Value::Ip(one), Value::Ip(other)) => one == other,
            (Value::Cidr(one), Value::Cidr(other)) => one == other,
            (Value::Format(one), Value::Format(other)) => std::ptr::eq(*one, *other),
            (Value::Authorization(one), Value::Authorization(other)) => Arc::ptr_eq(one, other),
            (Value::Optional(one), Value::Optional(other)) => match (one, other) {
                (Some(one), Some(other)) => one.equals(other),
                (None, None) => true,
                _ => false,
            },
            (Value::Made(one), Value::Made(other)) if one.ty != other.ty => false,
            (Value::JsonList(one, _), Value::JsonList(other, _)) if std::ptr::eq(*one, *other) => true,
            (Value::List(_) | Value::JsonList(..), Value::List(_) | Value::JsonList(..)) => {
                let count = self.size();
                count == other.size()
                    && (0..count.unwrap_or_default()).all(|index| {
                        match (self.item(index), other.item(index)) {
                            (Some(one), Some(other)) => one.equals(&other),
                            _ => false,
                        }
                    })
            }
            (one, other) if one.has_entries() && other.has_entries() => {
                let keys = one.keys().unwrap_or_default();
                one.size() == other.size()
                    && keys.iter().all(|key| match (one.entry(key), other.entry(key)) {
                        (Some(one), Some(other)) => one.equals(&other),
                        _ => false,
                    })
            }
            _ => match (self.as_str(), other.as_str()) {
                (Some(one), Some(other)) => one == other,
                _ => self.numeric_order(other) == Some(Ordering::Equal),
            },
        }
    }

    fn numeric_order(&self, other: &Value<'a>) -> Option<Ordering> {
        let wide = |value: &Value<'a>| match value {
            Value::Int(value) => Some(i128::from(*value)),
            Value::Uint(value) => Some(i128::from(*value)),
            _ => None,
        };
        if let (Some(one), Some(other)) = (wide(self), wide(other)) {
            return Some(one.cmp(&other));
        }
        let float = |value: &Value<'a>| match value {
            Value::Double(value) => Some(*value),
            value => wide(value).map(|value| value as f64),
        };
        float(self)?.partial_cmp(&float(other)?)
    }

    /// Which of two values is smaller.
    ///
    /// # Errors
    /// Values of these types have no order.
    pub(super) fn compare(&self, other: &Value<'a>) -> Result<Option<Ordering>, EvalError> {
        let number = |value: &Value<'a>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
        match (self, other) {
            (Value::Bool(one), Value::Bool(other)) => Ok(Some(one.cmp(other))),
            (Value::Bytes(one), Value::Bytes(other)) => Ok(Some(one.cmp(other))),
            (Value::Duration(one), Value::Duration(other)) => Ok(Some(one.cmp(other))),
            (Value::Timestamp(one), Value::Timestamp(other)) => Ok(Some(one.cmp(other))),
            (Value::Quantity(one), Value::Quantity(other)) => Ok(Some(one.cmp(other))),
            (one, other) if number(one) && number(other) => Ok(one.numeric_order(other)),
            _ => match (self.as_str(), other.as_str()) {
                (Some(one), Some(other)) => Ok(Some(one.cmp(other))),
                _ => Err(no_such_overload()),
            },
        }
    }
}
