//! Label selectors, from query parameters (`app=web,tier in (a,b),!old`) and from `LabelSelector` objects.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::{Map, Value};

use super::SelectorError;
use crate::field::go_quote;
use crate::names;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there and has one of the values.
    In,
    /// The label is not there or has none of the values.
    NotIn,
    /// `=`: the label is there with the value.
    Equals,
    /// `!=`: the label is not there or has another value.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer above the value.
    GreaterThan,
    /// The label is an integer below the value.
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// The values, sorted and without doubles.
    pub values: Vec<String>,
}

/// All of its requirements have to hold; none of them selects everything. [`LabelSelector::nothing`] selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    selects_nothing: bool,
}

impl LabelRequirement {
    /// Checks key and values as upstream does and puts the values in order.
    pub fn new(
        key: &str,
        operator: Operator,
        mut values: Vec<String>,
    ) -> Result<LabelRequirement, SelectorError> {
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            return Err(SelectorError(format!(
                "<nil>: Invalid value: {}: {}",
                go_quote(key),
                problems.join("; ")
            )));
        }
        values.sort_unstable();
        values.dedup();
        let count_problem = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(problem) = count_problem {
            let printed: Vec<String> = values.iter().map(|value| go_quote(value)).collect();
            return Err(SelectorError(format!("values: Invalid value: [{}]: {problem}", printed.join(","))));
        }
        let compares = matches!(operator, Operator::GreaterThan | Operator::LessThan);
        if compares && values[0].parse::<i64>().is_err() {
            return Err(SelectorError(format!(
                "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                go_quote(&values[0])
            )));
        }
        for (index, value) in values.iter().enumerate() {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                return Err(SelectorError(format!(
                    "values[{index}][{key}]: Invalid value: {}: {}",
                    go_quote(value),
                    problems.join("; ")
                )));
            }
        }
        Ok(LabelRequirement { key: key.to_owned(), operator, values })
    }

    /// A requirement as selectors of labels and of nodes spell it, not checked any further; `None` for an operator that does not exist.
    pub fn spelt(key: &str, operator: &str, values: Option<&Vec<String>>) -> Option<LabelRequirement> {
        let operator = match operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        };
        Some(LabelRequirement { key: key.to_owned(), operator, values: values.cloned().unwrap_or_default() })
    }

    /// Whether it holds for a label with `value`, or for no such label.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        let compares = |value: &str, ordering: std::cmp::Ordering| {
            let bound = self.values.first().and_then(|bound| bound.parse::<i64>().ok());
            match (value.parse::<i64>(), bound) {
                (Ok(number), Some(bound)) => number.cmp(&bound) == ordering,
                _ => false,
            }
        };
        match self.operator {
            Operator::In | Operator::Equals => value.is_some_and(is_listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(is_listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.is_some_and(|value| compares(value, std::cmp::Ordering::Greater)),
            Operator::LessThan => value.is_some_and(|value| compares(value, std::cmp::Ordering::Less)),
        }
    }
}

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Selects nothing, as an absent `LabelSelector` object does.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), selects_nothing: true }
    }

    /// Selects what meets all of `requirements`.
    pub fn new(requirements: Vec<LabelRequirement>) -> LabelSelector {
        LabelSelector { requirements, selects_nothing: false }
    }

    /// Reads the text of a `labelSelector` query parameter.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        Parser { text, characters: text.char_indices().peekable() }.parse()
    }

    /// Reads a plain map of labels, as a Service's `spec.selector` is.
    pub fn from_labels(labels: &Map<String, Value>) -> LabelSelector {
        let requirements = labels
            .iter()
            .filter_map(|(key, value)| Some((key, value.as_str()?)))
            .map(|(key, value)| LabelRequirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.to_owned()],
            })
            .collect();
        LabelSelector::new(requirements)
    }

    /// Reads a `metav1.LabelSelector` object: null or absent selects nothing, an empty one everything.
    pub fn from_object(object: &Value) -> Result<LabelSelector, SelectorError> {
        let Some(object) = object.as_object() else { return Ok(LabelSelector::nothing()) };
        let mut requirements = Vec::new();
        if let Some(labels) = object.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default().to_owned();
                requirements.push(LabelRequirement::new(key, Operator::Equals, vec![value])?);
            }
        }
        for expression in
            object.get("matchExpressions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
        {
            let text = |key| expression.get(key).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        go_quote(other)
                    )));
                }
            };
            let values = expression
                .get("values")
                .and_then(Value::as_array)
                .map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            requirements.push(LabelRequirement::new(text("key"), operator, values)?);
        }
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(LabelSelector::new(requirements))
    }

    /// The requirements.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.selects_nothing
    }

    /// Whether it selects an object whose labels `label` looks up.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.selects_nothing
            && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// Whether it selects the object, by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(crate::meta::labels(object))
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let value = self.values.first().map_or("", String::as_str);
        match self.operator {
            Operator::In => write!(formatter, "{key} in ({})", self.values.join(",")),
            Operator::NotIn => write!(formatter, "{key} notin ({})", self.values.join(",")),
            Operator::Equals => write!(formatter, "{key}={value}"),
            Operator::NotEquals => write!(formatter, "{key}!={value}"),
            Operator::Exists => write!(formatter, "{key}"),
            Operator::DoesNotExist => write!(formatter, "!{key}"),
            Operator::GreaterThan => write!(formatter, "{key}>{value}"),
            Operator::LessThan => write!(formatter, "{key}<{value}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            write!(formatter, "{requirement}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    characters: Peekable<CharIndices<'a>>,
}

fn is_symbol(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '<' | '>')
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn expected(found: Token<'_>, what: &str) -> SelectorError {
    SelectorError(format!("found '{}', expected: {what}", found.text()))
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Token<'a> {
        while self.characters.next_if(|(_, character)| is_space(*character)).is_some() {}
        let Some((start, first)) = self.characters.next() else { return Token::End };
        if is_symbol(first) {
            let two = self.text.get(start..start + 2);
            if matches!(two, Some("==" | "!=")) {
                self.characters.next();
                return Token::Symbol(&self.text[start..start + 2]);
            }
            return Token::Symbol(&self.text[start..start + 1]);
        }
        let mut end = start + first.len_utf8();
        while let Some((index, character)) =
            self.characters.next_if(|(_, character)| !is_symbol(*character) && !is_space(*character))
        {
            end = index + character.len_utf8();
        }
        Token::Word(&self.text[start..end])
    }

    fn parse(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        let mut token = self.next();
        if token == Token::End {
            return Ok(LabelSelector::everything());
        }
        loop {
            if !matches!(token, Token::Word(_) | Token::Symbol("!")) {
                let what = if requirements.is_empty() {
                    "!, identifier, or 'end of string'"
                } else {
                    "identifier after ','"
                };
                return Err(expected(token, what));
            }
            let (requirement, after) = self
                .requirement(token)
                .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match after {
                Token::End => break,
                Token::Symbol(",") => token = self.next(),
                other => return Err(expected(other, "',' or 'end of string'")),
            }
        }
        requirements.sort_by(|one: &LabelRequirement, other| one.key.cmp(&other.key));
        Ok(LabelSelector::new(requirements))
    }

    /// One requirement that starts with `first`, and the token after it.
    fn requirement(&mut self, first: Token<'a>) -> Result<(LabelRequirement, Token<'a>), SelectorError> {
        let negated = first == Token::Symbol("!");
        let key = match if negated { self.next() } else { first } {
            Token::Word(key) => key,
            other => return Err(expected(other, "identifier")),
        };
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            return Err(SelectorError(format!(
                "<nil>: Invalid value: {}: {}",
                go_quote(key),
                problems.join("; ")
            )));
        }
        let token = self.next();
        if negated {
            return Ok((LabelRequirement::new(key, Operator::DoesNotExist, Vec::new())?, token));
        }
        let operator = match token {
            Token::End | Token::Symbol(",") => {
                return Ok((LabelRequirement::new(key, Operator::Exists, Vec::new())?, token));
            }
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=" | "==") => Operator::Equals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => return Err(expected(other, "in, notin, =, ==, !=, gt, lt")),
        };
        if matches!(operator, Operator::In | Operator::NotIn) {
            let values = self.value_set()?;
            return Ok((LabelRequirement::new(key, operator, values)?, self.next()));
        }
        match self.next() {
            Token::Word(value) => {
                Ok((LabelRequirement::new(key, operator, vec![value.to_owned()])?, self.next()))
            }
            end @ (Token::End | Token::Symbol(",")) => {
                Ok((LabelRequirement::new(key, operator, vec![String::new()])?, end))
            }
            other => Err(expected(other, "identifier")),
        }
    }

    /// `(a,b,)`: an empty place between commas is the empty value.
    fn value_set(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(SelectorError(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        loop {
            let mut token = self.next();
            if let Token::Word(value) = token {
                values.push(value.to_owned());
                token = self.next();
                if !matches!(token, Token::Symbol("," | ")")) {
                    return Err(expected(token, "',' or ')'"));
                }
            } else if matches!(token, Token::Symbol("," | ")")) {
                values.push(String::new());
            } else {
                return Err(expected(token, "',', ')' or identifier"));
            }
            if token == Token::Symbol(")") {
                return Ok(values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn selects(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).expect("a selector").matches(labels.as_object())
    }

    #[test]
    fn each_operator_matches() {
        let web = json!({"app": "web", "n": "5", "empty": ""});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=db", true),
            ("other!=x", true),
            ("app in (web,db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("other notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("empty=", true),
            ("empty=,app", true),
            ("app in (,web)", true),
            ("empty in ()", true),
            (" app = web , ! other ", true),
            ("in in (in)", false),
        ] {
            assert_eq!(selects(selector, web.clone()), expected, "{selector}");
        }
        assert!(!LabelSelector::nothing().matches(web.as_object()));
    }

    #[test]
    fn errors_say_what_was_found() {
        for (selector, message) in [
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(selector).map_err(|error| error.0), Err(message.to_owned()));
        }
        let error = LabelSelector::parse("-a=b").map_err(|error| error.0).expect_err("a bad key");
        assert!(error.starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist"
        ));
    }

    #[test]
    fn selector_objects() {
        assert!(!LabelSelector::from_object(&Value::Null).expect("nothing").matches(None));
        assert!(LabelSelector::from_object(&json!({})).expect("everything").matches(None));
        let selector = LabelSelector::from_object(&json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a"]}]}))
        .expect("a selector");
        assert!(selector.matches(json!({"app": "web"}).as_object()));
        assert!(!selector.matches(json!({"app": "web", "tier": "a"}).as_object()));
        assert!(
            LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]}))
                .is_err()
        );
        assert!(
            LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]}))
                .is_err()
        );
    }

    fn requirement() -> impl Strategy<Value = LabelRequirement> {
        let operator = prop::sample::select(vec![
            Operator::In,
            Operator::NotIn,
            Operator::Equals,
            Operator::NotEquals,
            Operator::Exists,
            Operator::DoesNotExist,
            Operator::GreaterThan,
        ]);
        ("[a-z]{1,4}(/[a-z]{1,4})?", operator, prop::collection::vec("([a-z0-9]{1,4})?", 1..4), 0_i64..100)
            .prop_map(|(key, operator, mut values, number)| {
                match operator {
                    Operator::Exists | Operator::DoesNotExist => values.clear(),
                    Operator::GreaterThan => values = vec![number.to_string()],
                    Operator::Equals | Operator::NotEquals => values.truncate(1),
                    _ => {}
                }
                LabelRequirement::new(&key, operator, values).expect("a valid requirement")
            })
    }

    proptest! {
        #[test]
        fn text_round_trips(mut requirements in prop::collection::vec(requirement(), 0..4)) {
            requirements.sort_by(|one, other| one.key.cmp(&other.key));
            let selector = LabelSelector::new(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_panics(text in "[a-z!=,() <>é]{0,16}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
