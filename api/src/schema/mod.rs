//! What fields a kind has and how they merge: one compact tree a kind, built on first use and kept.
//!
//! The trees come from the published types; how lists and maps merge is [`facts`]'s table. Descriptions are not kept:
//! [`crate::openapi`] makes them anew when asked. Types that several kinds share are held once.

mod build;
mod facts;
mod prune;
mod shape;
mod types;

use std::sync::OnceLock;

pub(crate) use build::definitions;
pub use build::{of, of_kind};
pub(crate) use facts::{field_fact, is_atomic_type};
pub use prune::{UnknownField, prune};
pub use shape::shape;
pub use types::check_types;

/// The shape of a value.
#[derive(Clone, Copy, Debug)]
pub enum Schema {
    /// Anything at all, kept as it is (`FieldsV1`, `RawExtension`).
    Any,
    /// A fixed set of fields.
    Struct(&'static Struct),
    /// String keys to values of one shape.
    Map {
        /// The shape of the values.
        values: &'static Schema,
        /// Whether it is owned and replaced as a whole.
        atomic: bool,
    },
    /// A list of items of one shape.
    List {
        /// The shape of the items.
        items: &'static Schema,
        /// What identifies an item.
        list_type: ListType,
    },
    /// A string.
    String(StringFormat),
    /// A whole number of 32 or 64 bits.
    Integer {
        /// 32 or 64.
        bits: u8,
    },
    /// A number with fraction.
    Number,
    /// A truth value.
    Boolean,
    /// A number or a string (a port, a percentage).
    IntOrString,
    /// A resource quantity.
    Quantity,
}

/// What a string holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringFormat {
    /// Text.
    Plain,
    /// Bytes in base64.
    Bytes,
    /// A time with whole seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
}

/// What identifies an item of a list, hence how two lists merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Each item is its own identity.
    Set,
    /// Items are objects, identified by these fields.
    Map(&'static [&'static str]),
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged item by item.
    pub merge: bool,
    /// Fields that the patch does not list are dropped from the items (or, of a struct, from it).
    pub retain_keys: bool,
    /// The field that identifies items; empty for lists of scalars.
    pub merge_key: &'static str,
}

/// A type with named fields.
#[derive(Debug)]
pub struct Struct {
    /// Its full name, for example `io.k8s.api.core.v1.Container`.
    pub type_name: &'static str,
    /// Whether it is owned and replaced as a whole.
    pub atomic: bool,
    /// Whether it may have other fields, of any shape.
    pub open: bool,
    fields: OnceLock<Box<[Field]>>,
}

/// A field of a [`Struct`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// The shape of its value.
    pub schema: Schema,
    /// How strategic merge patches treat it.
    pub patch: PatchStrategy,
}

impl Struct {
    /// With these fields.
    pub fn new(type_name: &'static str, atomic: bool, open: bool, mut fields: Vec<Field>) -> Struct {
        fields.sort_unstable_by_key(|field| field.name);
        Struct { type_name, atomic, open, fields: OnceLock::from(fields.into_boxed_slice()) }
    }

    /// All fields, by name.
    pub fn fields(&self) -> &[Field] {
        self.fields.get().map_or(&[], |fields| fields)
    }

    /// The field called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|index| &fields[index])
    }

    /// The type's short name, for example `Container`.
    pub fn short_name(&self) -> &'static str {
        self.type_name.rsplit('.').next().unwrap_or(self.type_name)
    }
}

impl Schema {
    /// The shape of the field or map entry called `name`, when there can be one.
    pub fn child(&self, name: &str) -> Option<Schema> {
        match self {
            Schema::Any => Some(Schema::Any),
            Schema::Struct(object) => {
                object.field(name).map(|field| field.schema).or_else(|| object.open.then_some(Schema::Any))
            }
            Schema::Map { values, .. } => Some(**values),
            _ => None,
        }
    }

    /// The shape of items; [`Schema::Any`] for what is no list.
    pub fn items(&self) -> Schema {
        match self {
            Schema::List { items, .. } => **items,
            _ => Schema::Any,
        }
    }

    /// Whether server-side apply treats the value as one.
    pub fn is_atomic(&self) -> bool {
        match self {
            Schema::Any => false,
            Schema::Struct(object) => object.atomic,
            Schema::Map { atomic, .. } => *atomic,
            Schema::List { list_type, .. } => *list_type == ListType::Atomic,
            _ => true,
        }
    }
}

/// What a missing list key counts as, where the API gives it a default.
pub fn list_key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}
