//! Named formats of texts: `format.dns1123Label().validate(name)` gives what is wrong with it, if anything is.

use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, no_such_overload};
use super::text;
use super::{time, url};
use crate::names;

/// A format of text.
pub struct Format {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

static FORMATS: [Format; 12] = [
    Format { name: "dns1123Label", check: names::dns1123_label },
    Format { name: "dns1123Subdomain", check: names::dns1123_subdomain },
    Format { name: "dns1035Label", check: names::dns1035_label },
    Format {
        name: "dns1123LabelPrefix",
        check: |name| names::dns1123_label(&names::mask_trailing_dash(name)),
    },
    Format {
        name: "dns1123SubdomainPrefix",
        check: |name| names::dns1123_subdomain(&names::mask_trailing_dash(name)),
    },
    Format {
        name: "dns1035LabelPrefix",
        check: |name| names::dns1035_label(&names::mask_trailing_dash(name)),
    },
    Format { name: "qualifiedName", check: names::qualified_name },
    Format { name: "labelValue", check: names::label_value },
    Format { name: "uri", check: |given| when(url::is_url(given), "invalid URI for request") },
    Format { name: "byte", check: |given| when(is_base64(given), "invalid base64") },
    Format {
        name: "date",
        check: |given| when(time::parse_timestamp(&format!("{given}T00:00:00Z")).is_some(), "invalid date"),
    },
    Format {
        name: "datetime",
        check: |given| when(time::parse_timestamp(given).is_some(), "invalid datetime"),
    },
];

fn when(right: bool, problem: &str) -> Vec<String> {
    if right { Vec::new() } else { vec![problem.to_owned()] }
}

fn is_base64(given: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(given).is_ok()
}

pub(super) const ROWS: &[Row] = &[
    ("format.named(string): optional(kubernetes.NamedFormat)", |values| {
        let found = find(text(values, 0)?);
        Ok(Value::Optional(found.map(|format| Arc::new(Value::Format(format)))))
    }),
    ("format.dns1123Label(): kubernetes.NamedFormat", |_| named("dns1123Label")),
    ("format.dns1123Subdomain(): kubernetes.NamedFormat", |_| named("dns1123Subdomain")),
    ("format.dns1035Label(): kubernetes.NamedFormat", |_| named("dns1035Label")),
    ("format.dns1123LabelPrefix(): kubernetes.NamedFormat", |_| named("dns1123LabelPrefix")),
    ("format.dns1123SubdomainPrefix(): kubernetes.NamedFormat", |_| named("dns1123SubdomainPrefix")),
    ("format.dns1035LabelPrefix(): kubernetes.NamedFormat", |_| named("dns1035LabelPrefix")),
    ("format.qualifiedName(): kubernetes.NamedFormat", |_| named("qualifiedName")),
    ("format.labelValue(): kubernetes.NamedFormat", |_| named("labelValue")),
    ("format.uri(): kubernetes.NamedFormat", |_| named("uri")),
    ("format.byte(): kubernetes.NamedFormat", |_| named("byte")),
    ("format.date(): kubernetes.NamedFormat", |_| named("date")),
    ("format.datetime(): kubernetes.NamedFormat", |_| named("datetime")),
    (".validate(kubernetes.NamedFormat, string): optional(list(string))", |values| {
        let Value::Format(format) = &values[0] else { return Err(no_such_overload()) };
        let problems = (format.check)(text(values, 1)?);
        let problems: Vec<Value<'_>> = problems.into_iter().map(Value::from).collect();
        Ok(Value::Optional((!problems.is_empty()).then(|| Arc::new(problems.into()))))
    }),
];

fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

fn named<'a>(name: &str) -> Result<Value<'a>, EvalError> {
    find(name).map(Value::Format).ok_or_else(no_such_overload)
}
