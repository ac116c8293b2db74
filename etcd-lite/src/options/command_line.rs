//! From command line, environment and configuration file to [`Options`], by etcd's rules: flags in Go's forms, the last of a kind wins;
//! `ETCD_` variables for flags that are not given, and none for one that is; a configuration file in place of both. Never here: what the
//! flags mean.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::ValueRange;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::inert::INERT;
use super::{EtcdUrl, NOT_IMPLEMENTED, Options, config_file};

/// Why a member does not start. `Display` says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `--help` or `--version`: the text is the answer.
    #[error("{0}")]
    Answer(String),
    /// The command line cannot be read.
    #[error("{0}")]
    Usage(String),
    /// Flags, variables or file say something that does not hold together.
    #[error("{0}")]
    Verify(String),
}

/// What is to be logged about the way to the options, once there is a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A variable in place of a flag.
    VariableUsed(String, String),
    /// A variable that looks like etcd's and is not.
    VariableUnknown(String),
    /// The configuration file that was read.
    FileRead(PathBuf),
    /// A key in it that means nothing.
    KeyUnknown(String),
}

/// A flag by its name without dashes, and its value as text.
pub(super) type Given = BTreeMap<String, String>;

/// Reads everything there is to read.
///
/// # Errors
/// See [`Refusal`].
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Options, Vec<Notice>), Refusal> {
    let mut command = command();
    command.build();
    let flags = tokenize(args, &command)?;
    if flags.contains_key("help") {
        return Err(Refusal::Answer(command.render_help().to_string()));
    }
    if flags.get("version").is_some_and(|value| value == "true") {
        return Err(Refusal::Answer(version()));
    }
    let mut notices = Vec::new();
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let variables: BTreeMap<String, String> =
        variables.into_iter().filter_map(text).filter(|(name, _)| name.starts_with("ETCD_")).collect();
    let file = flags
        .get("config-file")
        .or_else(|| variables.get("ETCD_CONFIG_FILE"))
        .filter(|file| !file.is_empty());
    let given = match file {
        Some(file) => config_file::read(Path::new(file), &command, &mut notices).map_err(Refusal::Verify)?,
        None => with_variables(flags, &variables, &command, &mut notices)?,
    };
    let matches = matches(&command, &given)?;
    let mut options =
        Options::from_arg_matches(&matches).map_err(|error| Refusal::Usage(plain_text(&error)))?;
    options.given = given.into_keys().collect();
    for inert in INERT {
        inert.check(&matches).map_err(Refusal::Verify)?;
    }
    Ok((options, notices))
}

/// All flags that are taken.
pub(super) fn command() -> Command {
    let config_file = Arg::new("config-file")
        .long("config-file")
        .value_name("FILE")
        .help("Configuration as YAML with etcd's keys; other flags and ETCD_ variables are ignored");
    let version = Arg::new("version")
        .long("version")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .help("Print the version");
    // Variables are read here, for flags and refusals alike.
    Options::command()
        .mut_args(|arg| arg.env(None))
        .disable_version_flag(true)
        .args([config_file, version])
        .args(INERT.iter().map(super::inert::Inert::arg))
        .after_help("Every flag has a variable: --data-dir is ETCD_DATA_DIR. docs/etcd-compatibility.md lists what is refused.")
}

fn version() -> String {
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    format!(
        "etcd Version: {}\nGit SHA: coracle-{}\nGo Version: none, written in Rust\nGo OS/Arch: {platform}",
        component_base::version::ETCD,
        env!("CARGO_PKG_VERSION"),
    )
}

/// The argument of a flag, by its name or another name it has.
pub(super) fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

/// The name under which a flag is remembered.
pub(super) fn name_of(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().to_owned()
}

/// Go's forms: `-flag`, `--flag`, `-flag=value`, `-flag value`; the first word that is no flag is one too many.
fn tokenize(args: impl IntoIterator<Item = OsString>, command: &Command) -> Result<Given, Refusal> {
    let mut given = Given::new();
    let mut words = args.into_iter().skip(1).map(OsString::into_string);
    while let Some(word) = words.next() {
        let word = word.map_err(|word| Refusal::Usage(format!("{word:?} is not UTF-8")))?;
        let stripped = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(flag) = stripped.filter(|flag| !flag.is_empty()) else {
            return Err(Refusal::Verify(format!("'{word}' is not a valid flag")));
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if matches!(name, "h" | "help") {
            given.insert("help".to_owned(), String::new());
            continue;
        }
        let Some(arg) = find(command, name) else { return Err(unknown(name)) };
        let value = match value {
            Some(value) => value.to_owned(),
            None if is_bool(arg) => "true".to_owned(),
            None => match words.next() {
                Some(Ok(value)) => value,
                _ => return Err(Refusal::Usage(format!("flag needs an argument: -{name}"))),
            },
        };
        given.insert(name_of(arg), value);
    }
    Ok(given)
}

fn unknown(name: &str) -> Refusal {
    if NOT_IMPLEMENTED.contains(&name) {
        return Refusal::Usage(format!(
            "flag --{name} is not implemented by Coracle yet; remove it, or see docs/etcd-compatibility.md"
        ));
    }
    Refusal::Usage(format!("flag provided but not defined: -{name}; `--help` lists the flags"))
}

fn is_bool(arg: &Arg) -> bool {
    arg.get_num_args() == Some(ValueRange::from(0..=1))
}

/// Adds what variables say about flags that are not given.
fn with_variables(
    mut flags: Given,
    variables: &BTreeMap<String, String>,
    command: &Command,
    notices: &mut Vec<Notice>,
) -> Result<Given, Refusal> {
    for (variable, value) in variables {
        let name = variable["ETCD_".len()..].to_lowercase().replace('_', "-");
        // What etcd itself reads elsewhere.
        if name == "unsupported-arch" {
            continue;
        }
        let Some(arg) =
            find(command, &name).filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        else {
            if NOT_IMPLEMENTED.contains(&name.as_str()) && !value.is_empty() {
                return Err(unknown(&name));
            }
            notices.push(Notice::VariableUnknown(format!("{variable}={value}")));
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if flags.contains_key(&name_of(arg)) {
            return Err(Refusal::Verify(format!(
                "conflicting environment variable {variable} is shadowed by corresponding command-line flag (either unset \
                 environment variable or disable flag)"
            )));
        }
        flags.insert(name_of(arg), value.clone());
        notices.push(Notice::VariableUsed(variable.clone(), value.clone()));
    }
    Ok(flags)
}

/// Hands the values to the parser.
fn matches(command: &Command, given: &Given) -> Result<ArgMatches, Refusal> {
    let mut args = vec!["etcd-lite".to_owned()];
    for (name, value) in given {
        let Some(arg) = find(command, name) else { continue };
        if value.is_empty() && is_skipped_when_empty(arg) {
            continue;
        }
        let value = if is_bool(arg) {
            go_bool(value).ok_or_else(|| {
                Refusal::Usage(format!("invalid boolean value {value:?} for -{name}: parse error"))
            })?
        } else {
            value
        };
        args.push(format!("--{name}={value}"));
    }
    command.clone().try_get_matches_from(args).map_err(|error| Refusal::Usage(refused_value(&error, given)))
}

/// An empty list of URLs and an empty path mean that nothing is said.
fn is_skipped_when_empty(arg: &Arg) -> bool {
    let kind = arg.get_value_parser().type_id();
    kind == TypeId::of::<PathBuf>() || kind == TypeId::of::<EtcdUrl>()
}

/// Go's spellings of truth.
fn go_bool(text: &str) -> Option<&'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some("true"),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some("false"),
        _ => None,
    }
}

/// etcd's wording of a value that is refused.
fn refused_value(error: &clap::Error, given: &Given) -> String {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return plain_text(error);
    };
    let name = argument.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
    let value = given.get(name).cloned().unwrap_or_default();
    // The one name that etcd checks after the flags are read.
    if name == "auto-compaction-mode" {
        return format!("unknown auto-compaction-mode {value:?}");
    }
    let values = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(values.join(", ")),
        _ => None,
    };
    let reason = std::error::Error::source(error).map(ToString::to_string);
    let reason = match (values, reason) {
        (Some(values), _) => format!("invalid value, use one of {values}"),
        (None, Some(reason)) => reason,
        (None, None) => "parse error".to_owned(),
    };
    format!("invalid value {value:?} for flag -{name}: {reason}")
}

fn plain_text(error: &clap::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterState, LogLevel};
    use super::*;

    fn read(args: &[&str], variables: &[(&str, &str)]) -> Result<(Options, Vec<Notice>), Refusal> {
        let args = std::iter::once("etcd-lite").chain(args.iter().copied()).map(OsString::from);
        parse(args, variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn refused(args: &[&str]) -> String {
        read(args, &[]).expect_err("refused").to_string()
    }

    #[test]
    fn flags_take_the_forms_of_go_and_the_last_wins() {
        let args =
            ["-name", "a", "--heartbeat-interval=7", "-name=b", "--client-cert-auth", "--peer-auto-tls=F"];
        let (options, _) = read(&args, &[]).expect("taken");
        assert_eq!((options.name.as_str(), options.tuning.heartbeat_interval), ("b", 7));
        assert!(options.security.client_cert_auth && !options.security.peer_auto_tls);
        let (options, _) =
            read(&["--listen-client-urls=http://a:1", "--listen-client-urls=http://b:2,http://c:3"], &[])
                .expect("taken");
        assert_eq!(options.urls.listen_client_urls.len(), 2);
        let (options, _) = read(&["--listen-client-urls=", "--cert-file=", "--name="], &[]).expect("taken");
        assert_eq!(options.urls.listen_client_urls[0].to_string(), "http://localhost:2379");
        assert_eq!((options.name.as_str(), options.security.cert_file), ("", None));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_the_words_of_go() {
        assert!(refused(&["--nope"]).starts_with("flag provided but not defined: -nope"));
        assert_eq!(refused(&["foo"]), "'foo' is not a valid flag");
        assert_eq!(refused(&["--client-cert-auth", "true"]), "'true' is not a valid flag");
        assert_eq!(refused(&["--name"]), "flag needs an argument: -name");
        assert_eq!(
            refused(&["--client-cert-auth=maybe"]),
            "invalid boolean value \"maybe\" for -client-cert-auth: parse error"
        );
        assert!(
            refused(&["--heartbeat-interval=x"])
                .starts_with("invalid value \"x\" for flag -heartbeat-interval: ")
        );
        assert!(
            refused(&["--snapshot-count=-1"]).starts_with("invalid value \"-1\" for flag -snapshot-count: ")
        );
        assert_eq!(
            refused(&["--listen-client-urls=foo"]),
            "invalid value \"foo\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo"
        );
        assert_eq!(
            refused(&["--initial-cluster-state=foo"]),
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value, use one of new, existing"
        );
        assert!(
            refused(&["--v2-deprecation=foo"])
                .starts_with("invalid value \"foo\" for flag -v2-deprecation: invalid")
        );
    }

    #[test]
    fn a_variable_stands_for_a_flag_that_is_not_given() {
        let variables = [
            ("ETCD_NAME", "b"),
            ("ETCD_CLIENT_CERT_AUTH", "1"),
            ("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s"),
            ("ETCD_DATA_DIR", ""),
            ("ETCD_FOO", "c"),
            ("PATH", "/bin"),
        ];
        let (options, notices) = read(&[], &variables).expect("taken");
        assert_eq!((options.name.as_str(), options.security.client_cert_auth), ("b", true));
        assert_eq!(options.tuning.watch_progress_notify_interval.get().as_secs(), 5);
        assert_eq!(notices.iter().filter(|n| matches!(n, Notice::VariableUsed(..))).count(), 3);
        assert!(notices.contains(&Notice::VariableUnknown("ETCD_FOO=c".into())));
        let error = read(&["--name=a"], &variables).expect_err("both").to_string();
        assert!(error.contains("conflicting environment variable ETCD_NAME is shadowed"), "{error}");
        let error = read(&[], &[("ETCD_DISCOVERY", "http://x")]).expect_err("refused").to_string();
        assert!(error.contains("--discovery=http://x is not implemented"), "{error}");
    }

    #[test]
    fn a_configuration_file_replaces_flags_and_variables() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("etcd.yml");
        let text = "
name: 'infra0'
data-dir: /d
wal-dir:
heartbeat-interval: 50
initial-cluster-state: existing
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
experimental-watch-progress-notify-interval: 5000000000
discovery-fallback: 'proxy'
proxy: 'off'
log-outputs: [stderr]
log-level: debug
cipher-suites: [TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384]
client-transport-security:
  cert-file: /c
  client-cert-auth: true
  auto-tls: true
peer-transport-security:
  cert-file: /pc
  client-cert-auth: false
  allowed-cn: peer
self-signed-cert-validity: 2
socket-options:
  reuse-port: true
no-such-key: 1
";
        std::fs::write(&path, text).expect("write");
        let flag = format!("--config-file={}", path.display());
        let (options, notices) = read(&[&flag, "--name=x"], &[("ETCD_DATA_DIR", "/e")]).expect("taken");
        assert_eq!((options.name.as_str(), options.data_dir()), ("infra0", "/d".into()));
        assert_eq!(options.tuning.heartbeat_interval, 50);
        assert_eq!(options.tuning.watch_progress_notify_interval.get().as_secs(), 5);
        assert_eq!(options.clustering.initial_cluster_state, ClusterState::Existing);
        assert_eq!(options.urls.listen_client_urls.len(), 2);
        assert!(options.urls.socket_reuse_port);
        assert_eq!(options.logging.log_level, LogLevel::Debug);
        let security = &options.security;
        assert_eq!(
            (&security.cert_file, &security.peer_cert_file),
            (&Some("/c".into()), &Some("/pc".into()))
        );
        assert!(security.client_cert_auth && security.auto_tls && !security.peer_client_cert_auth);
        assert_eq!((security.cipher_suites.len(), security.self_signed_cert_validity), (2, 2));
        assert_eq!(security.peer_cert_allowed_cn.as_deref(), Some("peer"));
        assert_eq!(notices, [Notice::KeyUnknown("no-such-key".into()), Notice::FileRead(path.clone())]);
        let (options, _) = read(&[], &[("ETCD_CONFIG_FILE", path.to_str().expect("path"))]).expect("taken");
        assert_eq!(options.name, "infra0");

        std::fs::write(&path, "name: [x\n").expect("write");
        assert!(refused(&[&flag]).starts_with("error converting YAML to JSON: yaml: "));
        std::fs::write(&path, "name: 5\n").expect("write");
        assert!(refused(&[&flag]).contains("name"));
        std::fs::write(&path, "discovery: http://x\n").expect("write");
        assert!(refused(&[&flag]).contains("--discovery=http://x is not implemented"));
        assert!(
            refused(&["--config-file=/nonexist"]).starts_with("open /nonexist: no such file or directory")
        );
    }

    #[test]
    fn values_that_hold_already_are_taken_and_others_refused_with_the_reason() {
        read(
            &["--enable-v2=false", "--proxy=off", "--proxy-dial-timeout", "1", "--v2-deprecation=gone"],
            &[],
        )
        .expect("taken");
        for (flag, reason) in [
            ("--enable-v2", "v2 API"),
            ("--proxy=on", "v2 proxy"),
            ("--enable-pprof", "perf record"),
            ("--discovery=http://x", "--initial-cluster"),
            ("--enable-log-rotation", "logrotate"),
        ] {
            let text = refused(&[flag]);
            assert!(text.contains("is not implemented") && text.contains(reason), "{text}");
        }
    }

    #[test]
    fn version_and_help_are_answers() {
        let Err(Refusal::Answer(text)) = read(&["--version"], &[]) else { panic!("an answer") };
        assert!(text.starts_with("etcd Version: 3.5."), "{text}");
        assert!(
            text.contains("\nGit SHA: ")
                && text.contains("\nGo Version: ")
                && text.contains("\nGo OS/Arch: ")
        );
        let Err(Refusal::Answer(text)) = read(&["-h"], &[]) else { panic!("an answer") };
        assert!(text.contains("--config-file") && text.contains("--pre-vote"));
    }

    #[test]
    fn no_flag_is_both_taken_and_refused() {
        let command = command();
        for name in NOT_IMPLEMENTED {
            assert!(find(&command, name).is_none(), "{name}");
        }
    }
}
