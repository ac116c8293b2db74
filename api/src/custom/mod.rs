//! Custom resources: what their definitions say, and what follows for objects: pruning, defaults, validation, merging, columns. Pure over
//! [`serde_json::Value`].

mod default;
mod definition;
mod embedded;
mod field_path;
mod formats;
mod json_path;
mod merge;
pub mod naming;
mod prune;
mod rule_checks;
mod rules;
pub mod schema_rules;
mod shapes;
mod structural;
mod validate;

use std::cmp::Ordering;

use serde_json::Value;

use crate::kinds::access::{items, text};
use crate::schema;
pub use default::default;
pub use definition::{Column, Conversion, Definition, Rows, Scale, established};
pub use json_path::JsonPath;
pub use prune::prune;
pub use rules::{Rules, Verdict, blocked, judge};
pub use shapes::shape_of;
pub use structural::{Items, Kind, Structural, compile};
pub use validate::validate;

/// Whether a condition of a CustomResourceDefinition is true.
pub fn condition(definition: &Value, kind: &str) -> bool {
    definition
        .get("status")
        .map(|status| items(status, "conditions"))
        .unwrap_or_default()
        .iter()
        .any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

/// Checks the types of what every object has, drops what the schema does not list, and names it.
///
/// # Errors
/// A sentence about a value whose type is not its field's.
pub fn decode(object: &mut Value, definition: &Definition) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    let metadata = schema::of_kind("", "v1", "ConfigMap").and_then(|built_in| built_in.child("metadata"));
    if let (Some(shape), Some(metadata)) = (&metadata, object.get_mut("metadata")) {
        schema::check_types(metadata, shape)?;
        let found = schema::prune(metadata, shape);
        unknown.extend(found.into_iter().map(|field| format!("metadata.{}", field.path)));
    }
    unknown.extend(prune(object, &definition.schema));
    if let Some(shape) = &metadata {
        unknown.extend(embedded::decode(object, &definition.schema, shape)?);
    }
    Ok(unknown)
}

/// The order of versions in discovery: stable ones before beta, beta before alpha, newer before older, everything else behind by name.
pub fn version_order(one: &str, other: &str) -> Ordering {
    match (priority(one), priority(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Stability, major and minor number of `v1`, `v2beta1` and the like.
fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok().filter(|major| *major > 0)?;
    let rest = &rest[digits..];
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match rest.strip_prefix("beta") {
        Some(minor) => (1, minor),
        None => (0, rest.strip_prefix("alpha")?),
    };
    Some((stability, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_from_the_most_stable_to_the_least() {
        let mut versions =
            ["foo1", "v1alpha1", "v12alpha1", "v10", "v2", "v3beta1", "v11beta2", "v1", "foo10"];
        versions.sort_by(|one, other| version_order(one, other));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v1alpha1", "foo1", "foo10"]
        );
    }
}
