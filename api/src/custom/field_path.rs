//! The paths by which rules name the field they are about: `.a.b['c']`.

use super::structural::Structural;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To a field.
    Field(String),
    /// To an entry, or to a field whose name is no identifier.
    Key(String),
}

/// Reads a path; an empty text is the path of no steps.
///
/// # Errors
/// It is none.
pub(super) fn parse(text: &str) -> Result<Vec<Step>, &'static str> {
    let (mut steps, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let mut key = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next() {
                    Some((index, '\'')) => break index,
                    Some((_, '\\')) => match characters.next() {
                        Some((_, c @ ('\'' | '\\'))) => key.push(c),
                        Some((_, 'n')) => key.push('\n'),
                        Some((_, 't')) => key.push('\t'),
                        _ => return Err("invalid string literal"),
                    },
                    Some((_, c)) => key.push(c),
                    None => return Err("unexpected end of JSON path"),
                }
            };
            rest = after[end + 1..].strip_prefix(']').ok_or("expected ]")?;
            steps.push(Step::Key(key));
        } else {
            let after = rest.strip_prefix('.').ok_or("expected [ or .")?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path");
            }
            steps.push(Step::Field(after[..end].to_owned()));
            rest = &after[end..];
        }
    }
    Ok(steps)
}

/// Whether a path leads to a field of a schema.
pub(super) fn is_in(steps: &[Step], schema: &Structural) -> bool {
    let mut schema = schema;
    for step in steps {
        let (Step::Field(name) | Step::Key(name)) = step;
        let found = if schema.properties.is_empty() {
            schema.additional.as_deref()
        } else {
            schema.properties.get(name)
        };
        match found {
            Some(found) => schema = found,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_fields_and_quoted_keys() {
        let field = |name: &str| Step::Field(name.to_owned());
        assert_eq!(parse(".a.b"), Ok(vec![field("a"), field("b")]));
        assert_eq!(parse(".a['b.c']"), Ok(vec![field("a"), Step::Key("b.c".to_owned())]));
        for wrong in ["a", ".a.", ".a[0]", ".a['b'", "['a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
