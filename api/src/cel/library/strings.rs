//! What texts can do.

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed};
use super::{list, strings_format, text, whole};

pub(super) const ROWS: &[Row] = &[
    (".charAt(string, int): string", char_at),
    (".indexOf(string, string): int", index_of),
    (".indexOf(string, string, int): int", index_of),
    (".lastIndexOf(string, string): int", last_index_of),
    (".lastIndexOf(string, string, int): int", last_index_of),
    (".lowerAscii(string): string", |values| Ok(text(values, 0)?.to_ascii_lowercase().into())),
    (".upperAscii(string): string", |values| Ok(text(values, 0)?.to_ascii_uppercase().into())),
    (".trim(string): string", |values| Ok(text(values, 0)?.trim().to_owned().into())),
    (".replace(string, string, string): string", replace),
    (".replace(string, string, string, int): string", replace),
    (".split(string, string): list(string)", split),
    (".split(string, string, int): list(string)", split),
    (".substring(string, int): string", substring),
    (".substring(string, int, int): string", substring),
    (".join(list(string)): string", join),
    (".join(list(string), string): string", join),
    (".format(string, list(dyn)): string", |values| {
        strings_format::format(text(values, 0)?, &list(values, 1)?).map(Into::into)
    }),
    ("strings.quote(string): string", |values| Ok(quote(text(values, 0)?).into())),
];

/// The most bytes that replacing may make of a text: the request itself is smaller.
const RESULT_BYTES_MAX: usize = 16 * 1024 * 1024;

fn char_at<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, index) = (text(values, 0)?, whole(values, 1)?);
    let characters = subject.chars().count() as i64;
    if index == characters {
        return Ok(String::new().into());
    }
    let found = usize::try_from(index).ok().and_then(|index| subject.chars().nth(index));
    found.map(|c| c.to_string().into()).ok_or_else(|| failed(format!("index out of range: {index}")))
}

fn index_of<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, wanted) = (text(values, 0)?, text(values, 1)?);
    let start = if values.len() > 2 { whole(values, 2)? } else { 0 };
    let Some(bytes) = byte_offset(subject, start) else {
        return Err(failed(format!("index out of range: {start}")));
    };
    let found = subject[bytes..].find(wanted).map(|found| subject[..bytes + found].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, wanted) = (text(values, 0)?, text(values, 1)?);
    let end = match values.len() {
        2 => subject.len(),
        _ => {
            let last = whole(values, 2)?;
            let start = byte_offset(subject, last);
            let start = start.ok_or_else(|| failed(format!("index out of range: {last}")))?;
            // The match has to begin at the offset or before.
            let mut end = (start + wanted.len()).min(subject.len());
            while !subject.is_char_boundary(end) {
                end += 1;
            }
            end
        }
    };
    let found = subject[..end].rfind(wanted).map(|found| subject[..found].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

/// Where the character at `index` begins; the end counts too.
fn byte_offset(subject: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    subject.char_indices().map(|(bytes, _)| bytes).chain([subject.len()]).nth(index)
}

fn replace<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, from, to) = (text(values, 0)?, text(values, 1)?, text(values, 2)?);
    let limit = if values.len() > 3 { whole(values, 3)? } else { -1 };
    let times = usize::try_from(limit).unwrap_or(usize::MAX);
    let most = (subject.len() / from.len().max(1) + 1).min(times);
    if most.saturating_mul(to.len()) > RESULT_BYTES_MAX
        && subject.matches(from).take(times).count().saturating_mul(to.len()) > RESULT_BYTES_MAX
    {
        return Err(failed("the replaced text is too long"));
    }
    Ok(subject.replacen(from, to, times).into())
}

fn split<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, separator) = (text(values, 0)?, text(values, 1)?);
    let limit = if values.len() > 2 { whole(values, 2)? } else { -1 };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<String> = match (most, separator) {
        (0, _) => Vec::new(),
        (most, "") => {
            let mut parts: Vec<String> =
                subject.chars().take(most.saturating_sub(1)).map(String::from).collect();
            let rest: String = subject.chars().skip(parts.len()).collect();
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
        (most, separator) => subject.splitn(most, separator).map(str::to_owned).collect(),
    };
    Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

fn substring<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let (subject, start) = (text(values, 0)?, whole(values, 1)?);
    let outside = |index: i64| failed(format!("index out of range: {index}"));
    let from = byte_offset(subject, start).ok_or_else(|| outside(start))?;
    let to = match values.len() {
        2 => subject.len(),
        _ => {
            let end = whole(values, 2)?;
            byte_offset(subject, end).ok_or_else(|| outside(end))?
        }
    };
    if from > to {
        return Err(failed(format!(
            "invalid substring range. start: {start}, end: {}",
            whole(values, 2).unwrap_or_default()
        )));
    }
    Ok(subject[from..to].to_owned().into())
}

fn join<'a>(values: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let items = list(values, 0)?;
    let separator = if values.len() > 1 { text(values, 1)? } else { "" };
    let mut texts = Vec::with_capacity(items.len());
    for index in 0..items.len() {
        texts.push(text(&items, index)?);
    }
    if separator.len().saturating_mul(texts.len()) > RESULT_BYTES_MAX {
        return Err(failed("the joined text is too long"));
    }
    Ok(texts.join(separator).into())
}

/// A text in quotes, with what is special in them escaped.
fn quote(subject: &str) -> String {
    let mut quoted = String::from("\"");
    for c in subject.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
