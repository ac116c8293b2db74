//! The functions there are, by name: each line of a library's table is a signature and what it runs.
//!
//! A signature reads `name(types): result`; one that starts with a dot is called on its first argument. Single capitals stand for any type.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::EvalError;
use super::library;
use super::types::Type;
use super::value::Value;

/// What a function does. It gets values of the types that its signature names.
pub(super) type Run = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A row of a library's table.
pub(super) type Row = (&'static str, Run);

/// One signature of a function.
pub(super) struct Overload {
    /// Whether it is called on its first argument.
    pub(super) member: bool,
    /// The types it takes.
    pub(super) parameters: Vec<Type>,
    /// The type it gives.
    pub(super) result: Type,
    /// What it does.
    pub(super) run: Run,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Overload").field("parameters", &self.parameters).finish_non_exhaustive()
    }
}

impl Overload {
    /// Whether these values may be handed to it.
    pub(super) fn fits(&self, values: &[Value<'_>]) -> bool {
        self.parameters.len() == values.len()
            && self.parameters.iter().zip(values).all(|(parameter, value)| value.is(parameter))
    }
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for (signature, run) in library::rows() {
        let (name, overload) = parse(signature, run);
        table.entry(name).or_default().push(overload);
    }
    table
});

/// All signatures of a function.
pub(super) fn named(name: &str) -> &'static [Overload] {
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

fn parse(signature: &'static str, run: Run) -> (&'static str, Overload) {
    let (head, result) = signature.rsplit_once("): ").unwrap_or((signature, "dyn"));
    let (name, parameters) = head.split_once('(').unwrap_or((head, ""));
    let member = name.starts_with('.');
    let parameters = split(parameters).into_iter().map(ty).collect();
    (name.trim_start_matches('.'), Overload { member, parameters, result: ty(result), run })
}

/// Splits at the commas that are in no parentheses.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn ty(text: &'static str) -> Type {
    if let Some((outer, inner)) = text.split_once('(') {
        let inner = split(inner.strip_suffix(')').unwrap_or(inner));
        let part = |index: usize| Arc::new(inner.get(index).copied().map_or(Type::Dyn, ty));
        return match outer {
            "list" => Type::List(part(0)),
            "map" => Type::Map(part(0), part(1)),
            _ => Type::Optional(part(0)),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        _ => match text.chars().next() {
            Some(name) if text.len() == 1 && name.is_ascii_uppercase() => Type::Parameter(name),
            _ => Type::Opaque(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_read_as_they_are_written() {
        let overloads = named("replace");
        assert!(overloads.iter().all(|one| one.member && one.result == Type::String));
        assert_eq!(overloads.iter().map(|one| one.parameters.len()).collect::<Vec<_>>(), [3, 4]);
        let keys = named("optional.of");
        assert_eq!(keys[0].parameters, [Type::Parameter('A')]);
        assert_eq!(keys[0].result, Type::Optional(Arc::new(Type::Parameter('A'))));
    }
}
