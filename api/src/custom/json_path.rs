//! The paths into objects that printer columns, scales and selectable fields name. Pure.

use serde_json::Value;

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end when negative.
    Index(i64),
    Every,
    Where {
        path: Vec<Step>,
        test: Test,
        literal: Value,
    },
    Exists(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const TESTS: [(&str, Test); 6] = [
    ("==", Test::Equal),
    ("!=", Test::NotEqual),
    ("<=", Test::LessOrEqual),
    (">=", Test::GreaterOrEqual),
    ("<", Test::Less),
    (">", Test::Greater),
];

/// A path such as `.spec.replicas` or `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path without braces.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let mut reader = Reader { rest: text.trim() };
        reader.rest = reader.rest.strip_prefix('$').unwrap_or(reader.rest);
        let steps = reader.steps()?;
        if reader.rest.is_empty() {
            Ok(JsonPath(steps))
        } else {
            Err(format!("unrecognized character in action: {:?}", reader.rest))
        }
    }

    /// Everything the path leads to.
    pub fn find<'v>(&self, object: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, object)
    }

    /// The fields of a path that consists of nothing else.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None })
            .collect()
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                if rest.starts_with('.') {
                    return Err("recursive descent is not supported".to_owned());
                }
                self.rest = rest;
                if self.rest.is_empty() || self.rest.starts_with('[') {
                    continue;
                }
                steps.push(self.name());
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                steps.push(self.name());
            } else {
                return Ok(steps);
            }
        }
    }

    /// A name up to the next step; a backslash takes the next character as it is.
    fn name(&mut self) -> Step {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((_, '\\')) => name.extend(characters.next().map(|(_, escaped)| escaped)),
                Some((at, '.' | '[' | ']' | ')' | ' ' | '=' | '!' | '<' | '>')) => break at,
                Some((_, character)) => name.push(character),
                None => break self.rest.len(),
            }
        };
        self.rest = &self.rest[end..];
        if name == "*" { Step::Every } else { Step::Field(name) }
    }

    /// What follows an opening bracket.
    fn bracket(&mut self) -> Result<Step, String> {
        if let Some(rest) = self.rest.strip_prefix("?(") {
            self.rest = rest;
            return self.filter();
        }
        if self.rest.starts_with(['\'', '"']) {
            let name = self.quoted()?;
            self.close("]")?;
            return Ok(Step::Field(name));
        }
        let (inside, rest) = self.rest.split_once(']').ok_or("unterminated array")?;
        self.rest = rest;
        match inside.trim() {
            "*" | ":" => Ok(Step::Every),
            number => number.parse().map(Step::Index).map_err(|_| format!("invalid array index {number}")),
        }
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.rest = self.rest.trim_start().strip_prefix('@').ok_or("a filter begins with @")?;
        let path = self.steps()?;
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(')') {
            self.close(")]")?;
            return Ok(Step::Exists(path));
        }
        let (operator, test) = TESTS
            .iter()
            .find(|(operator, _)| self.rest.starts_with(operator))
            .ok_or("unrecognized filter")?;
        self.rest = self.rest[operator.len()..].trim_start();
        let literal = if self.rest.starts_with(['\'', '"']) {
            Value::String(self.quoted()?)
        } else {
            let end = self.rest.find(')').ok_or("unterminated filter")?;
            let text = self.rest[..end].trim();
            self.rest = &self.rest[end..];
            serde_json::from_str(text).map_err(|_| format!("unrecognized literal {text}"))?
        };
        self.rest = self.rest.trim_start();
        self.close(")]")?;
        Ok(Step::Where { path, test: *test, literal })
    }

    fn close(&mut self, what: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(what).ok_or_else(|| format!("missing {what}"))?;
        Ok(())
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut characters = self.rest.char_indices();
        let Some((_, quote)) = characters.next() else { return Err("unterminated quoted string".to_owned()) };
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                found if found == quote => {
                    self.rest = &self.rest[at + quote.len_utf8()..];
                    return Ok(text);
                }
                other => text.push(other),
            }
        }
        Err("unterminated quoted string".to_owned())
    }
}

fn follow<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| one_step(step, value)).collect();
    }
    found
}

fn one_step<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let entries = || -> Vec<&'v Value> {
        match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        }
    };
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let Some(items) = value.as_array() else { return Vec::new() };
            let at = if *index < 0 { items.len() as i64 + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        Step::Every => entries(),
        Step::Exists(path) => entries().into_iter().filter(|entry| !follow(path, entry).is_empty()).collect(),
        Step::Where { path, test, literal } => entries()
            .into_iter()
            .filter(|entry| follow(path, entry).first().is_some_and(|value| holds(value, *test, literal)))
            .collect(),
    }
}

fn holds(value: &Value, test: Test, literal: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (value, literal) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) => {
            one.as_f64().zip(other.as_f64()).and_then(|(one, other)| one.partial_cmp(&other))
        }
        (one, other) if one == other => Some(Equal),
        _ => None,
    };
    match test {
        Test::Equal => order == Some(Equal),
        Test::NotEqual => order != Some(Equal),
        Test::Less => order == Some(Less),
        Test::LessOrEqual => matches!(order, Some(Less | Equal)),
        Test::Greater => order == Some(Greater),
        Test::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_fields_items_and_what_a_filter_picks() {
        let object = json!({"spec": {"list": [1, 2, 3]}, "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        for (path, wanted) in [
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[*]", json!([1, 2, 3])),
            (".metadata.annotations.a\\.b/c", json!(["x"])),
            (".metadata.annotations['a.b/c']", json!(["x"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Other')].status", json!(["False"])),
            (".spec.missing.more", json!([])),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(json!(parsed.find(&object)), wanted, "{path}");
        }
        for wrong in [".a[", ".a[x]", ".a[?(b)]", ".a['b]"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(JsonPath::parse(".spec.replicas").map(|path| path.fields().is_some()), Ok(true));
        assert_eq!(JsonPath::parse(".a[0]").map(|path| path.fields().is_some()), Ok(false));
    }
}
