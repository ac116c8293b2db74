//! Field selectors: `metadata.name=a,spec.nodeName!=b`, with `\` escaping commas, equals signs and itself.
//!
//! Which fields a kind offers is the server's matter; here a missing field counts as an empty string.

use std::fmt;

use super::SelectorError;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, for example `spec.nodeName`.
    pub field: String,
    /// Whether the field has to equal the value, or to differ from it.
    pub equals: bool,
    /// The value, unescaped.
    pub value: String,
}

/// All of its terms have to hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads the text of a `fieldSelector` query parameter.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let refused = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, equals, value) = split_operator(term).ok_or_else(refused)?;
            let value = unescape(value)
                .ok_or_else(|| SelectorError(format!("invalid field selector: invalid value: '{value}'")))?;
            requirements.push(FieldRequirement { field: field.to_owned(), equals, value });
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all terms hold for an object whose fields `field` looks up.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = field(&requirement.field).unwrap_or_default();
            (value == requirement.value) == requirement.equals
        })
    }

    /// The value that `field` is required to have, when a term says so.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|requirement| requirement.equals && requirement.field == field)
            .map(|requirement| requirement.value.as_str())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Splits at the first `!=`, `==` or `=`.
fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    for (index, _) in term.char_indices() {
        let rest = &term[index..];
        for (operator, equals) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..index], equals, value));
            }
        }
    }
    None
}

/// Undoes the escapes; `None` for an unknown escape or a bare separator.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next()? {
                escaped @ ('\\' | ',' | '=') => plain.push(escaped),
                _ => return None,
            },
            ',' | '=' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            write!(formatter, "{}{}", requirement.field, if requirement.equals { "=" } else { "!=" })?;
            for character in requirement.value.chars() {
                if matches!(character, '\\' | ',' | '=') {
                    formatter.write_str("\\")?;
                }
                write!(formatter, "{character}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_match_and_missing_fields_are_empty() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Running,spec.nodeName==")
            .expect("a selector");
        assert_eq!(selector.requirements.len(), 3);
        assert!(selector.matches(|field| (field == "metadata.name").then_some("a")));
        assert!(!selector.matches(|_| Some("a")));
        assert_eq!(selector.required_value("metadata.name"), Some("a"));
        assert!(FieldSelector::parse("").expect("everything").is_empty());
    }

    #[test]
    fn what_it_cannot_read_it_names() {
        assert_eq!(
            FieldSelector::parse("a=b,foo").map_err(|error| error.to_string()),
            Err("invalid selector: 'a=b,foo'; can't understand 'foo'".to_owned())
        );
        assert!(FieldSelector::parse("a=b=c").is_err());
        assert!(FieldSelector::parse("a=\\x").is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(values in prop::collection::vec(("[a-z.]{1,8}", any::<bool>(), "[a-z,=\\\\ é]{0,8}"), 0..4)) {
            let selector = FieldSelector {
                requirements: values
                    .into_iter()
                    .map(|(field, equals, value)| FieldRequirement { field, equals, value })
                    .collect(),
            };
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
