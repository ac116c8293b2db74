//! Command lines in upstream's style: Go's flag forms, refusal of unimplemented flags by name.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, Parser, ValueEnum};

use crate::{go_bool, version};

pub mod page;
mod upstream;

/// The logging flags of every component.
#[derive(Args, Clone, Debug)]
pub struct LogFlags {
    /// Log verbosity: 0-1 warnings, 2-3 info, 4-5 debug, 6 and more trace.
    #[arg(long = "v", default_value_t = 2, value_name = "LEVEL", help_heading = "Logging")]
    pub verbosity: i32,

    /// Log format.
    #[arg(long = "logging-format", value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    pub format: LogFormat,
}

impl Default for LogFlags {
    fn default() -> Self {
        Self { verbosity: 2, format: LogFormat::Text }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a command line was refused. `Display` says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// An upstream flag that Coracle does not have yet.
    #[error("flag --{0} is not implemented by Coracle yet{reason}; remove it, or see `--help`", reason = upstream::reason(.0))]
    NotImplemented(String),
    /// A flag that upstream does not have either.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// A flag without the value it needs.
    #[error("flag needs an argument: --{0}")]
    NoValue(String),
    /// A value that is none for its flag.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {reason}")]
    Value {
        /// Without dashes.
        flag: String,
        /// As given.
        value: String,
        /// In the parser's words, or Go's.
        reason: String,
    },
    /// Anything else: flags that need each other, `--help`, `--version`.
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

/// Parses the process's command line, or exits: status 0 for `--help` and `--version`, 1 otherwise.
///
/// `not_implemented` names upstream flags (without dashes) that are refused as such.
pub fn parse<T: Parser>(not_implemented: &[&str]) -> T {
    if std::env::args_os().any(|argument| argument == "--version=raw") {
        println!("{}", version::kubernetes_info().raw());
        std::process::exit(0);
    }
    match try_parse_from(std::env::args_os(), not_implemented) {
        Ok(flags) => flags,
        Err(FlagError::Usage(error)) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let text = error.to_string();
            eprintln!("Error: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            std::process::exit(1);
        }
    }
}

/// Parses a command line whose first element is the program's name.
///
/// # Errors
/// See [`FlagError`].
pub fn try_parse_from<T: Parser>(
    args: impl IntoIterator<Item = OsString>,
    not_implemented: &[&str],
) -> Result<T, FlagError> {
    let mut command = T::command().args_override_self(true);
    if !not_implemented.is_empty() {
        command = command.after_help(upstream::help(not_implemented));
    }
    let args = understood(&command, args.into_iter().map(normalise), not_implemented)?;
    let parsed = command.try_get_matches_from(&args).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| in_gos_words(error, not_implemented))
}

/// A flag that the program has.
struct Own {
    name: String,
    /// It is something when it is not given.
    has_default: bool,
    is_bool: bool,
}

/// Drops what changes nothing: flags that are not implemented with values that say what is so anyway, and the empty values and arguments that scripts
/// make of unset variables. Go's forms of bools become ours.
fn understood(
    command: &clap::Command,
    args: impl Iterator<Item = OsString>,
    not_implemented: &[&str],
) -> Result<Vec<OsString>, FlagError> {
    let own: Vec<Own> = command
        .get_arguments()
        .filter_map(|argument| {
            let values = argument.get_possible_values();
            Some(Own {
                name: argument.get_long()?.to_owned(),
                has_default: !argument.get_default_values().is_empty(),
                is_bool: argument.get_action().takes_values()
                    && values.iter().any(|value| value.matches("true", false)),
            })
        })
        .collect();
    let mut kept = Vec::new();
    let mut args = args.peekable();
    while let Some(argument) = args.next() {
        let Some(text) = argument.to_str() else {
            kept.push(argument);
            continue;
        };
        let Some(flag) = text.strip_prefix("--") else {
            if !text.is_empty() {
                kept.push(argument);
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        match own.iter().find(|own| own.name == name) {
            Some(own) => match value {
                Some("") if !own.has_default => {}
                Some(value) => match go_bool::parse(value).filter(|_| own.is_bool) {
                    Some(value) => kept.push(format!("--{name}={value}").into()),
                    None => kept.push(argument),
                },
                None => kept.push(argument),
            },
            None if not_implemented.contains(&name) => {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None if upstream::is_switch(name) => "true".to_owned(),
                    None => args.next().and_then(|value| value.into_string().ok()).unwrap_or_default(),
                };
                if !upstream::is_accepted(name, &value) {
                    return Err(FlagError::NotImplemented(name.to_owned()));
                }
            }
            None => kept.push(argument),
        }
    }
    Ok(kept)
}

/// What the parser refuses, as pflag says it.
fn in_gos_words(error: clap::Error, not_implemented: &[&str]) -> FlagError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let flag = context(ContextKind::InvalidArg)
        .and_then(|argument| Some(argument.strip_prefix("--")?.split(['=', ' ', '[']).next()?.to_owned()));
    let Some(flag) = flag else { return FlagError::Usage(error) };
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if not_implemented.contains(&flag.as_str()) => {
            FlagError::NotImplemented(flag)
        }
        ErrorKind::UnknownArgument => FlagError::Unknown(flag),
        ErrorKind::InvalidValue if value.is_empty() => FlagError::NoValue(flag),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let allowed = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) => values.clone(),
                _ => Vec::new(),
            };
            let reason = match std::error::Error::source(&error) {
                Some(reason) => reason.to_string(),
                None if allowed.iter().any(|value| value == "false") => go_bool::problem(&value),
                None => format!("must be one of {}", allowed.join(", ")),
            };
            FlagError::Value { flag, value, reason }
        }
        _ => FlagError::Usage(error),
    }
}

/// Go's flag package also takes `-v=4` and `-v 4`; upstream's flags also go by names with underscores, and `--version` has a value.
fn normalise(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-v") => "--v".into(),
        Some("--version=true") => "--version".into(),
        Some("--version=false") => OsString::new(),
        Some(text) if text.starts_with("-v=") => format!("-{text}").into(),
        Some(text) if text.starts_with("--") && text.contains('_') => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            format!("{}{value}", name.replace('_', "-")).into()
        }
        _ => argument,
    }
}

/// Parses `key=value,key=value` as upstream's map flags do.
///
/// # Errors
/// Names the first pair without `=`.
pub fn parse_key_values(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
            _ => Err(format!("malformed pair {pair:?}, expected key=value")),
        })
        .collect()
}

/// Marks a bool flag as taking `--x`, `--x=true` and `--x=false`; for commands built without the derive.
pub fn bool_flag(name: &'static str, default: &'static str) -> clap::Arg {
    clap::Arg::new(name)
        .long(name)
        .action(ArgAction::Set)
        .value_parser(clap::value_parser!(bool))
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    #[command(version)]
    struct Flags {
        #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
        leader_elect: bool,
        #[command(flatten)]
        log: LogFlags,
    }

    fn parse(args: &[&str]) -> Result<Flags, FlagError> {
        try_parse_from(
            std::iter::once("test").chain(args.iter().copied()).map(OsString::from),
            &["profiling", "contention-profiling", "vmodule", "audit-webhook-config-file"],
        )
    }

    fn said(args: &[&str]) -> String {
        parse(args).expect_err("refused").to_string()
    }

    #[test]
    fn bool_flags_take_all_three_forms() {
        assert!(parse(&["--leader-elect"]).expect("bare").leader_elect);
        assert!(parse(&["--leader-elect=true"]).expect("true").leader_elect);
        assert!(!parse(&["--leader-elect=false"]).expect("false").leader_elect);
        assert_eq!(parse(&["-v=4"]).expect("short").log.verbosity, 4);
    }

    #[test]
    fn unimplemented_and_unknown_flags_are_refused_by_name() {
        assert!(
            matches!(parse(&["--profiling=true"]), Err(FlagError::NotImplemented(name)) if name == "profiling")
        );
        assert!(matches!(parse(&["--no-such"]), Err(FlagError::Unknown(name)) if name == "no-such"));
        assert_eq!(said(&["--no_such"]), "unknown flag: --no-such");
        assert!(
            said(&["--profiling"])
                .starts_with("flag --profiling is not implemented by Coracle yet (only false is")
        );
    }

    #[test]
    fn values_that_are_none_are_refused_as_pflag_does() {
        assert_eq!(
            said(&["--leader-elect=maybe"]),
            "invalid argument \"maybe\" for \"--leader-elect\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert_eq!(said(&["--v"]), "flag needs an argument: --v");
        assert!(said(&["--v=many"]).starts_with("invalid argument \"many\" for \"--v\" flag: "));
    }

    #[test]
    fn names_values_and_repetitions_go_by_gos_rules() {
        assert!(parse(&["--leader_elect=T"]).expect("underscore").leader_elect);
        assert!(!parse(&["--leader-elect", "--leader-elect=0"]).expect("the last one counts").leader_elect);
        assert!(matches!(parse(&["--version=true"]), Err(FlagError::Usage(error)) if !error.use_stderr()));
        parse(&["--version=false", "--vmodule", "server=5", "--v=1"]).expect("no version asked for");
    }

    #[test]
    fn what_start_scripts_say_without_meaning_anything_is_accepted() {
        let flags =
            ["", "--vmodule=", "--profiling=false", "--contention-profiling=false", "--leader-elect=true"];
        assert!(parse(&flags).expect("accepted").leader_elect);
        assert!(matches!(parse(&["--no-such="]), Err(FlagError::Unknown(name)) if name == "no-such"));
        // Its own flag is never passed over.
        assert!(
            matches!(parse(&["--leader-elect="]), Err(FlagError::NoValue(name)) if name == "leader-elect")
        );
        // Nor is what the program's upstream does not have.
        assert!(
            matches!(parse(&["--cloud-provider="]), Err(FlagError::Unknown(name)) if name == "cloud-provider")
        );
        assert!(
            matches!(parse(&["--audit-webhook-config-file=/x"]), Err(FlagError::NotImplemented(name)) if name == "audit-webhook-config-file")
        );
    }

    #[test]
    fn key_value_lists_name_the_bad_pair() {
        assert_eq!(parse_key_values("a=b,c=d").expect("valid")["c"], "d");
        assert!(parse_key_values("a=b,c").expect_err("bad").contains("\"c\""));
    }
}
