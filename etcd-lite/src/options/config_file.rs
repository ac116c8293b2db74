//! `--config-file`: etcd's keys in YAML, which are its flags' names but for the blocks about TLS and sockets. As in etcd a duration is a
//! number of nanoseconds, and a key that means nothing is passed over.

use std::any::TypeId;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use component_base::duration::GoDuration;
use serde_yaml_ng::Value;

use super::NOT_IMPLEMENTED;
use super::command_line::{Given, Notice, find, name_of};

/// Keys of a block, and the flags they stand for.
type Block = (&'static str, &'static [(&'static str, &'static str)]);

const BLOCKS: [Block; 3] = [
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "experimental-peer-skip-client-san-verification"),
        ],
    ),
    ("socket-options", &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")]),
];

/// Reads the file as if its keys were flags.
///
/// # Errors
/// It cannot be read, or a value is not of its key's kind; etcd's words.
pub(super) fn read(path: &Path, command: &Command, notices: &mut Vec<Notice>) -> Result<Given, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        format!("open {}: {text}", path.display())
    })?;
    let document: Value = serde_yaml_ng::from_str(&text)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let mut given = Given::new();
    let entries = match document {
        Value::Null => Vec::new(),
        Value::Mapping(mapping) => mapping.into_iter().collect(),
        _ => return Err(format!("{} is not a mapping of keys to values", path.display())),
    };
    for (key, value) in entries {
        let Value::String(key) = key else { continue };
        match BLOCKS.iter().find(|(block, _)| *block == key) {
            Some((block, keys)) => read_block(block, keys, value, command, notices, &mut given)?,
            None => take(&key, &key, value, command, notices, &mut given)?,
        }
    }
    notices.push(Notice::FileRead(path.to_owned()));
    Ok(given)
}

fn read_block(
    block: &str,
    keys: &[(&str, &str)],
    value: Value,
    command: &Command,
    notices: &mut Vec<Notice>,
    given: &mut Given,
) -> Result<(), String> {
    let entries = match value {
        Value::Null => return Ok(()),
        Value::Mapping(mapping) => mapping,
        _ => return Err(format!("error unmarshaling JSON: {block} is not a mapping")),
    };
    for (key, value) in entries {
        let Value::String(key) = key else { continue };
        let full = format!("{block}.{key}");
        match keys.iter().find(|(name, _)| *name == key) {
            Some((_, flag)) => take(flag, &full, value, command, notices, given)?,
            None => notices.push(Notice::KeyUnknown(full)),
        }
    }
    Ok(())
}

fn take(
    flag: &str,
    key: &str,
    value: Value,
    command: &Command,
    notices: &mut Vec<Notice>,
    given: &mut Given,
) -> Result<(), String> {
    if value.is_null() || value.as_str() == Some("") {
        return Ok(());
    }
    let Some(arg) = find(command, flag) else {
        if NOT_IMPLEMENTED.contains(&flag) {
            return Err(format!("{key} in the configuration file is not implemented; remove it"));
        }
        notices.push(Notice::KeyUnknown(key.to_owned()));
        return Ok(());
    };
    given.insert(name_of(arg), text(key, arg, value)?);
    Ok(())
}

/// A value as its flag has it.
fn text(key: &str, arg: &Arg, value: Value) -> Result<String, String> {
    let parser = arg.get_value_parser().type_id();
    let is_text = parser == TypeId::of::<String>() || parser == TypeId::of::<PathBuf>();
    let is_bool = parser == TypeId::of::<bool>();
    let is_duration = parser == TypeId::of::<GoDuration>();
    let wrong = |kind: &str| {
        let wanted = if is_text {
            "string"
        } else if is_bool {
            "bool"
        } else {
            "number"
        };
        Err(format!("error unmarshaling JSON: cannot unmarshal {kind} into field {key} of type {wanted}"))
    };
    match value {
        Value::Bool(value) if is_bool => Ok(value.to_string()),
        Value::Bool(_) => wrong("bool"),
        Value::Number(value) if is_duration => Ok(format!("{value}ns")),
        Value::Number(_) if is_text || is_bool => wrong("number"),
        Value::Number(value) => Ok(value.to_string()),
        Value::String(_) if is_bool => wrong("string"),
        Value::String(value) => {
            let is_number = parser == TypeId::of::<u64>()
                || parser == TypeId::of::<u32>()
                || parser == TypeId::of::<i64>()
                || parser == TypeId::of::<usize>();
            if is_number { wrong("string") } else { Ok(value) }
        }
        Value::Sequence(values) => values
            .into_iter()
            .map(|value| value.as_str().map(str::to_owned).ok_or("a list of strings"))
            .collect::<Result<Vec<_>, _>>()
            .map(|values| values.join(","))
            .or_else(wrong),
        _ => wrong("object"),
    }
}
