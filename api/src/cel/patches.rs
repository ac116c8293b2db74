//! The types of the objects that expressions make to change others: `Object` with a type for the path of each field (`Object.spec.template`), whose
//! fields may hold anything, and `JSONPatch`, one operation.

use super::types::Type;
use super::value::Value;

/// The type of an apply configuration. The types of what is in it are named by the paths of fields.
pub const OBJECT: &str = "Object";
/// The type of an operation of a JSON patch.
pub const JSON_PATCH: &str = "JSONPatch";
/// What the names of the library's functions begin with.
pub(super) const LIBRARY: &str = "jsonpatch.";

/// Whether there is such a type.
pub(super) fn is_type(name: &str) -> bool {
    name == JSON_PATCH
        || name == OBJECT
        || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// The type of a field of one of these types; `None`: it has no such field.
pub(super) fn field_type(name: &str, field: &str) -> Option<Type> {
    match (name == JSON_PATCH, field) {
        (true, "op" | "path" | "from") => Some(Type::String),
        (true, "value") | (false, _) => Some(Type::Dyn),
        (true, _) => None,
    }
}

impl Value<'_> {
    /// What is wrong with the types of the objects within an object that was made: each is to be named by the path of its field. Empty: nothing.
    pub fn misplaced_types(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Value::Made(made) = self {
            misplaced(self, &made.ty, &mut problems);
        }
        problems
    }
}

fn misplaced(value: &Value<'_>, path: &str, problems: &mut Vec<String>) {
    match value {
        Value::Made(made) => {
            if *made.ty != *path {
                problems.push(format!(
                    "unexpected type name \"{}\", expected \"{path}\", which matches field name path from root Object type",
                    made.ty
                ));
            }
            for (name, field) in &made.fields {
                misplaced(field, &format!("{path}.{name}"), problems);
            }
        }
        Value::List(items) => items.iter().for_each(|item| misplaced(item, path, problems)),
        Value::Map(entries) => entries.values().for_each(|value| misplaced(value, path, problems)),
        _ => {}
    }
}
