//! Command lines in upstream's style: Go's flag forms, refusal of unimplemented flags by name.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgAction, Args, Parser, ValueEnum};

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

/// Upstream flags, of any component, that are not here because what they set cannot be set, with the values that say what is so anyway; `*` is any. Those
/// are accepted, as is an empty value of any flag that is not implemented: start scripts give many flags so.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    ("allow-untagged-cloud", &["false"]),
    ("apiserver-count", &["*"]),
    ("cloud-config", &[""]),
    ("cloud-provider", &["external"]),
    ("configure-cloud-routes", &["*"]),
    ("contention-profiling", &["false"]),
    ("disable-http2-serving", &["false"]),
    ("enable-garbage-collector", &["true"]),
    ("enable-hostpath-provisioner", &["false"]),
    ("enable-leader-migration", &["false"]),
    ("enable-logs-handler", &["false"]),
    ("endpoint-reconciler-type", &["lease"]),
    ("goaway-chance", &["0", "0.0"]),
    ("kube-api-content-type", &["*"]),
    ("kubernetes-service-node-port", &["0"]),
    ("log-flush-frequency", &["*"]),
    ("log-json-split-stream", &["false"]),
    ("log-text-split-stream", &["false"]),
    ("permit-address-sharing", &["false"]),
    ("permit-port-sharing", &["false"]),
    ("profiling", &["false"]),
    ("pvclaimbinder-sync-period", &["*"]),
    ("shutdown-send-retry-after", &["false"]),
    ("shutdown-watch-termination-grace-period", &["0s", "0"]),
    ("vmodule", &["*"]),
];

/// What `--help` says of them.
fn without_effect_help() -> String {
    let of = |(name, values): &(&str, &[&str])| match *values {
        ["*"] => format!("--{name}"),
        values => format!("--{name}={}", values[0]),
    };
    format!(
        "Upstream flags that are not listed are refused by name. Accepted without effect, because they say what is so anyway or set what there is not here: {}, \
and an empty value of any of them.",
        WITHOUT_EFFECT.iter().map(of).collect::<Vec<_>>().join(", ")
    )
}

/// Whether a flag that is not implemented may be given this value.
fn is_without_effect(name: &str, value: &str, not_implemented: &[&str]) -> bool {
    let known = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name);
    match known {
        Some((_, values)) => value.is_empty() || values.contains(&"*") || values.contains(&value),
        None => value.is_empty() && not_implemented.contains(&name),
    }
}

/// Why a command line was refused. `Display` says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// An upstream flag that Coracle does not have yet.
    #[error(
        "flag --{0} is not implemented by Coracle yet; remove it, or see the README's list of what works"
    )]
    NotImplemented(String),
    /// A flag that upstream does not have either.
    #[error("unknown flag: --{0}; `--help` lists the flags")]
    Unknown(String),
    /// Anything else: missing or malformed values, `--help`, `--version`.
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

/// Parses the process's command line, or exits: status 0 for `--help` and `--version`, 1 otherwise.
///
/// `not_implemented` names upstream flags (without dashes) that are refused as such.
pub fn parse<T: Parser>(not_implemented: &[&str]) -> T {
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
    let mut command = T::command();
    // Own flags, with whether they are something when they are not given.
    let own: Vec<(String, bool)> = command
        .get_arguments()
        .filter_map(|argument| {
            Some((argument.get_long()?.to_owned(), !argument.get_default_values().is_empty()))
        })
        .collect();
    // Scripts give unset variables as empty values and empty arguments: as if nothing was given.
    let ignored = |argument: &OsString| {
        argument.to_str().is_some_and(|text| match text.strip_prefix("--").map(|flag| flag.split_once('=')) {
            Some(Some((name, value))) => match own.iter().find(|(known, _)| known == name) {
                Some((_, has_default)) => value.is_empty() && !has_default,
                None => is_without_effect(name, value, not_implemented),
            },
            Some(None) => false,
            None => text.is_empty(),
        })
    };
    let args: Vec<OsString> = args.into_iter().map(normalise).filter(|argument| !ignored(argument)).collect();
    command = command.after_help(without_effect_help());
    command.try_get_matches_from(&args).and_then(|matches| T::from_arg_matches(&matches)).map_err(|error| {
        if error.kind() != clap::error::ErrorKind::UnknownArgument {
            return FlagError::Usage(error);
        }
        let argument = match error.get(clap::error::ContextKind::InvalidArg) {
            Some(clap::error::ContextValue::String(argument)) => argument.clone(),
            _ => return FlagError::Usage(error),
        };
        let Some(flag) = argument.strip_prefix("--") else { return FlagError::Usage(error) };
        let name = flag.split(['=', ' ']).next().unwrap_or(flag).to_owned();
        let known = WITHOUT_EFFECT.iter().any(|(known, _)| *known == name);
        if known || not_implemented.contains(&name.as_str()) {
            FlagError::NotImplemented(name)
        } else {
            FlagError::Unknown(name)
        }
    })
}

/// Go's flag package also takes `-v=4` and `-v 4`, and pflag the underscores of old component flags.
fn normalise(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-v") => "--v".into(),
        Some(text) if text.starts_with("-v=") => format!("-{text}").into(),
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
    struct Flags {
        #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
        leader_elect: bool,
        #[command(flatten)]
        log: LogFlags,
    }

    fn parse(args: &[&str]) -> Result<Flags, FlagError> {
        try_parse_from(
            std::iter::once("test").chain(args.iter().copied()).map(OsString::from),
            &["profiling"],
        )
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
        assert!(matches!(parse(&["--leader-elect=maybe"]), Err(FlagError::Usage(_))));
    }

    #[test]
    fn what_start_scripts_say_without_meaning_anything_is_accepted() {
        let flags =
            ["", "--vmodule=", "--profiling=false", "--contention-profiling=false", "--leader-elect=true"];
        assert!(parse(&flags).expect("accepted").leader_elect);
        assert!(matches!(parse(&["--no-such="]), Err(FlagError::Unknown(name)) if name == "no-such"));
        // Its own flag is never passed over.
        assert!(matches!(parse(&["--leader-elect="]), Err(FlagError::Usage(_))));
        assert!(
            matches!(parse(&["--goaway-chance=0.1"]), Err(FlagError::NotImplemented(name)) if name == "goaway-chance")
        );
    }

    #[test]
    fn key_value_lists_name_the_bad_pair() {
        assert_eq!(parse_key_values("a=b,c=d").expect("valid")["c"], "d");
        assert!(parse_key_values("a=b,c").expect_err("bad").contains("\"c\""));
    }
}
