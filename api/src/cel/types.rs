//! The types that expressions are checked with, and the shapes of declared data: a type with the sizes that estimates of cost start from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type of the language.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything; checked when evaluated.
    Dyn,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `uint`.
    Uint,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// Items of one type.
    List(Arc<Type>),
    /// Keys of one type to values of one type.
    Map(Arc<Type>, Arc<Type>),
    /// A value or none.
    Optional(Arc<Type>),
    /// A type as a value.
    Type,
    /// Named fields.
    Object(Arc<ObjectType>),
    /// An object that an expression makes, by the name of its type; its fields may hold anything.
    Made(Arc<str>),
    /// A type of a library, by name.
    Opaque(&'static str),
    /// Stands for a type in a signature.
    Parameter(char),
}

/// A type with named fields.
#[derive(Debug)]
pub struct ObjectType {
    /// Its name in messages.
    pub name: String,
    /// The fields by the name that expressions use.
    pub fields: BTreeMap<String, Field>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.name == other.name
    }
}

/// A field of an [`ObjectType`].
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub json: String,
    /// What it holds.
    pub shape: Shape,
}

/// What a declared value looks like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its type.
    pub ty: Type,
    /// The most items, entries, characters or bytes it can have; 0 for what has no size.
    pub size_max: u64,
    /// The fewest bytes it takes as JSON.
    pub json_bytes_min: u64,
    /// The shape of items, or of a map's values.
    pub element: Option<Arc<Shape>>,
}

impl Shape {
    /// A value without parts.
    pub fn plain(ty: Type, size_max: u64, json_bytes_min: u64) -> Shape {
        Shape { ty, size_max, json_bytes_min, element: None }
    }

    /// Anything at all, of unknown size.
    pub fn dynamic() -> Shape {
        Shape::plain(Type::Dyn, u64::MAX, 1)
    }

    /// A text of unknown length.
    pub fn text() -> Shape {
        Shape::plain(Type::String, u64::MAX, 2)
    }

    /// A list of at most `size_max` items.
    pub fn list(element: Shape, size_max: u64) -> Shape {
        Shape {
            ty: Type::List(Arc::new(element.ty.clone())),
            size_max,
            json_bytes_min: 2,
            element: Some(Arc::new(element)),
        }
    }

    /// A map from text to at most `size_max` values.
    pub fn map(value: Shape, size_max: u64) -> Shape {
        Shape {
            ty: Type::Map(Arc::new(Type::String), Arc::new(value.ty.clone())),
            size_max,
            json_bytes_min: 2,
            element: Some(Arc::new(value)),
        }
    }

    /// An object with these fields, whose JSON names are their names.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Shape)>) -> Shape {
        let fields = fields
            .into_iter()
            .map(|(field, shape)| (field.to_owned(), Field { json: field.to_owned(), shape }))
            .collect();
        let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields }));
        Shape::plain(ty, 0, 2)
    }

    /// The shape of the field that expressions call `name`.
    pub fn field(&self, name: &str) -> Option<Shape> {
        match &self.ty {
            Type::Object(object) => object.fields.get(name).map(|field| field.shape.clone()),
            Type::Map(..) => self.element.as_deref().cloned(),
            _ => None,
        }
    }
}

/// What the parameters of a signature stand for in one call.
#[derive(Default)]
pub(super) struct Bindings(Vec<(char, Type)>);

impl Bindings {
    /// Whether an argument of type `given` may stand where `wanted` is declared.
    pub(super) fn accepts(&mut self, wanted: &Type, given: &Type) -> bool {
        match (wanted, given) {
            (Type::Parameter(name), given) => {
                let Some(index) = self.0.iter().position(|(known, _)| known == name) else {
                    self.0.push((*name, given.clone()));
                    return true;
                };
                let bound = self.0[index].1.clone();
                if bound.takes(given) {
                    return true;
                }
                // The wider of two types is what the parameter stands for: null and an object, for instance.
                let wider = given.takes(&bound);
                if wider {
                    self.0[index].1 = given.clone();
                }
                wider
            }
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(wanted), Type::List(given)) | (Type::Optional(wanted), Type::Optional(given)) => {
                self.accepts(wanted, given)
            }
            (Type::Map(wanted, value), Type::Map(given, other)) => {
                self.accepts(wanted, given) && self.accepts(value, other)
            }
            (wanted, given) => wanted.takes(given),
        }
    }

    /// A result type with the parameters filled in.
    pub(super) fn fill(&self, ty: &Type) -> Type {
        match ty {
            Type::Parameter(name) => {
                self.0.iter().find(|(known, _)| known == name).map_or(Type::Dyn, |(_, ty)| ty.clone())
            }
            Type::List(item) => Type::List(Arc::new(self.fill(item))),
            Type::Optional(value) => Type::Optional(Arc::new(self.fill(value))),
            Type::Map(key, value) => Type::Map(Arc::new(self.fill(key)), Arc::new(self.fill(value))),
            other => other.clone(),
        }
    }
}

impl Type {
    /// Whether a value of type `other` is one of this type.
    pub(super) fn takes(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
                one.takes(other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                key.takes(other_key) && value.takes(other_value)
            }
            (
                Type::Object(_) | Type::Made(_) | Type::Opaque(_) | Type::Timestamp | Type::Duration,
                Type::Null,
            ) => true,
            (one, other) => one == other,
        }
    }

    /// The narrowest type of both, [`Type::Dyn`] where they differ.
    pub(super) fn join(&self, other: &Type) -> Type {
        if self == other { self.clone() } else { Type::Dyn }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => formatter.write_str("dyn"),
            Type::Null => formatter.write_str("null"),
            Type::Bool => formatter.write_str("bool"),
            Type::Int => formatter.write_str("int"),
            Type::Uint => formatter.write_str("uint"),
            Type::Double => formatter.write_str("double"),
            Type::String => formatter.write_str("string"),
            Type::Bytes => formatter.write_str("bytes"),
            Type::Timestamp => formatter.write_str("timestamp"),
            Type::Duration => formatter.write_str("duration"),
            Type::List(item) => write!(formatter, "list({item})"),
            Type::Map(key, value) => write!(formatter, "map({key}, {value})"),
            Type::Optional(value) => write!(formatter, "optional_type({value})"),
            Type::Type => formatter.write_str("type"),
            Type::Object(object) => formatter.write_str(&object.name),
            Type::Made(name) => formatter.write_str(name),
            Type::Opaque(name) => formatter.write_str(name),
            Type::Parameter(name) => write!(formatter, "<{name}>"),
        }
    }
}
