//! The options of writes that the query carries: `dryRun`, `fieldValidation`, `fieldManager`. Reads them and refuses what upstream
//! refuses; what they lead to is the registry's matter.

use coracle_api::field::{self, FieldError};
use coracle_api::status::{ApiError, GroupKind};
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::json;

use super::request_info::{FieldValidation, Query, Verb};

/// How long the name of a manager may be, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

/// What the options come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WriteOptions {
    /// Nothing is to be stored.
    pub dry_run: bool,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Who owns the fields set.
    pub field_manager: String,
}

impl WriteOptions {
    /// Of a request with this verb.
    ///
    /// # Errors
    /// 422 in the name of the verb's options (`CreateOptions.meta.k8s.io "" is invalid: …`).
    pub fn of(verb: Verb, query: &Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let named = query.get("fieldManager").unwrap_or_default();
        check_manager(named, &mut errors);
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        if dry_run.iter().any(|value| *value != "All") {
            errors.push(field::not_supported("dryRun", json!(dry_run), &["All"]));
        }
        let field_validation = match query.get("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"];
                errors.push(field::not_supported("fieldValidation", other, &known));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            let kind = match verb {
                Verb::Create => "CreateOptions",
                Verb::Patch => "PatchOptions",
                Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
                _ => "UpdateOptions",
            };
            return Err(ApiError::invalid(GroupKind { group: "meta.k8s.io", kind }, "", errors));
        }
        let field_manager = if named.is_empty() { program(headers) } else { named.to_owned() };
        Ok(Self { dry_run: !dry_run.is_empty(), field_validation, field_manager })
    }

    /// Of a request that writes nothing.
    pub fn of_reads() -> Self {
        Self { dry_run: false, field_validation: FieldValidation::Ignore, field_manager: String::new() }
    }
}

fn check_manager(name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > MANAGER_BYTES_MAX {
        errors.push(field::too_long("fieldManager", MANAGER_BYTES_MAX));
    }
    for (index, character) in name.char_indices().filter(|(_, character)| character.is_control()) {
        let problem = format!("invalid character U+{:04X} (at position {index})", character as u32);
        errors.push(field::invalid("fieldManager", name, problem));
    }
}

/// The program's name out of the user agent.
fn program(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(MANAGER_BYTES_MAX).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<WriteOptions, String> {
        WriteOptions::of(Verb::Create, &Query::parse(Some(query)), &HeaderMap::new())
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn options_are_read_or_refused_in_the_name_of_the_verb() {
        let read = options("dryRun=All&fieldValidation=Strict&fieldManager=me").expect("options");
        assert!(read.dry_run && read.field_validation == FieldValidation::Strict);
        assert_eq!(read.field_manager, "me");
        assert_eq!(
            options("dryRun=x"),
            Err("CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"x\"]: supported values: \"All\"".into())
        );
        assert_eq!(
            options("fieldManager=a%07"),
            Err("CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\a\": invalid character U+0007 (at position 1)".into())
        );
    }
}
