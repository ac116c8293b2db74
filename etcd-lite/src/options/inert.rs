//! Flags of etcd 3.5 that say nothing here: those whose only value taken is the one that already holds, and those that tune a part of etcd
//! that is built differently. They are taken, so that etcd's scripts and files work, and a value that would have to change something is
//! refused with the reason.

use clap::{Arg, ArgAction, ArgMatches};

/// Heading of these flags in `--help`.
const HEADING: &str = "Taken, without effect";

/// Such a flag.
pub(super) struct Inert {
    /// Without dashes.
    pub name: &'static str,
    default: &'static str,
    kind: Kind,
    help: &'static str,
}

enum Kind {
    /// Either value changes nothing.
    Bool,
    /// Only the default holds; the text says why.
    BoolOnly(&'static str),
    /// Only these values hold; the text says why.
    Only(&'static [&'static str], &'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    Number,
    Duration,
    Text,
}

const NO_DISCOVERY: &str =
    "finding members by a discovery service is not implemented; name them with --initial-cluster";
const NO_V2: &str = "the v2 API is not implemented, as in etcd 3.6; use the v3 API";

pub(super) const INERT: &[Inert] = &[
    Inert {
        name: "backend-batch-interval",
        default: "",
        kind: Kind::Duration,
        help: "Every answered request is in the synced log; what the checkpoint gathers is no matter",
    },
    Inert {
        name: "backend-batch-limit",
        default: "0",
        kind: Kind::Number,
        help: "As --backend-batch-interval",
    },
    Inert {
        name: "backend-bbolt-freelist-type",
        default: "map",
        kind: Kind::OneOf(&["array", "map"]),
        help: "The checkpoint has no such list",
    },
    Inert {
        name: "discovery",
        default: "",
        kind: Kind::Only(&[""], NO_DISCOVERY),
        help: "Refused unless empty",
    },
    Inert {
        name: "discovery-fallback",
        default: "proxy",
        kind: Kind::OneOf(&["exit", "proxy"]),
        help: "Without --discovery it says nothing",
    },
    Inert {
        name: "discovery-proxy",
        default: "",
        kind: Kind::Text,
        help: "Without --discovery it says nothing",
    },
    Inert {
        name: "discovery-srv",
        default: "",
        kind: Kind::Only(&[""], NO_DISCOVERY),
        help: "Refused unless empty",
    },
    Inert {
        name: "discovery-srv-name",
        default: "",
        kind: Kind::Text,
        help: "Without --discovery-srv it says nothing",
    },
    Inert {
        name: "enable-log-rotation",
        default: "false",
        kind: Kind::BoolOnly("log files are not rotated; use logrotate with copytruncate"),
        help: "Refused if true",
    },
    Inert {
        name: "log-rotation-config-json",
        default: "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        kind: Kind::Text,
        help: "Without --enable-log-rotation it says nothing",
    },
    Inert {
        name: "enable-pprof",
        default: "false",
        kind: Kind::BoolOnly("/debug/pprof is a facility of Go; use `perf record -p PID`"),
        help: "Refused if true",
    },
    Inert { name: "enable-v2", default: "false", kind: Kind::BoolOnly(NO_V2), help: "Refused if true" },
    Inert {
        name: "experimental-enable-v2v3",
        default: "",
        kind: Kind::Only(&[""], NO_V2),
        help: "Refused unless empty",
    },
    Inert {
        name: "v2-deprecation",
        default: "not-yet",
        kind: Kind::OneOf(&["not-yet", "write-only", "write-only-drop-data", "gone"]),
        help: "There is no v2 store to deprecate",
    },
    Inert {
        name: "experimental-bootstrap-defrag-threshold-megabytes",
        default: "0",
        kind: Kind::Number,
        help: "The checkpoint frees its space by itself",
    },
    Inert {
        name: "experimental-compaction-batch-limit",
        default: "1000",
        kind: Kind::Number,
        help: "Compaction is one step in memory",
    },
    Inert {
        name: "experimental-compaction-sleep-interval",
        default: "10ms",
        kind: Kind::Duration,
        help: "Compaction is one step in memory",
    },
    Inert {
        name: "experimental-enable-distributed-tracing",
        default: "false",
        kind: Kind::BoolOnly("spans are not sent to a collector; `--log-level=debug` logs requests"),
        help: "Refused if true",
    },
    Inert {
        name: "experimental-distributed-tracing-address",
        default: "localhost:4317",
        kind: Kind::Text,
        help: "Without tracing it says nothing",
    },
    Inert {
        name: "experimental-distributed-tracing-service-name",
        default: "etcd",
        kind: Kind::Text,
        help: "Without tracing it says nothing",
    },
    Inert {
        name: "experimental-distributed-tracing-instance-id",
        default: "",
        kind: Kind::Text,
        help: "Without tracing it says nothing",
    },
    Inert {
        name: "experimental-distributed-tracing-sampling-rate",
        default: "0",
        kind: Kind::Number,
        help: "Without tracing it says nothing",
    },
    Inert {
        name: "experimental-enable-lease-checkpoint",
        default: "false",
        kind: Kind::BoolOnly("a new leader gives every lease its whole time again, as etcd does by default"),
        help: "Refused if true",
    },
    Inert {
        name: "experimental-enable-lease-checkpoint-persist",
        default: "false",
        kind: Kind::BoolOnly("a new leader gives every lease its whole time again, as etcd does by default"),
        help: "Refused if true",
    },
    Inert {
        name: "experimental-memory-mlock",
        default: "false",
        kind: Kind::BoolOnly("memory is not locked; turn swap off instead"),
        help: "Refused if true",
    },
    Inert {
        name: "experimental-stop-grpc-service-on-defrag",
        default: "false",
        kind: Kind::Bool,
        help: "Requests are answered during defragmentation",
    },
    Inert {
        name: "experimental-txn-mode-write-with-shared-buffer",
        default: "true",
        kind: Kind::Bool,
        help: "Transactions read the store itself",
    },
    Inert {
        name: "proxy",
        default: "off",
        kind: Kind::Only(&["off"], "the v2 proxy is not implemented, as in etcd 3.6"),
        help: "Refused unless off",
    },
    Inert {
        name: "proxy-dial-timeout",
        default: "1000",
        kind: Kind::Number,
        help: "Without --proxy it says nothing",
    },
    Inert {
        name: "proxy-failure-wait",
        default: "5000",
        kind: Kind::Number,
        help: "Without --proxy it says nothing",
    },
    Inert {
        name: "proxy-read-timeout",
        default: "0",
        kind: Kind::Number,
        help: "Without --proxy it says nothing",
    },
    Inert {
        name: "proxy-refresh-interval",
        default: "30000",
        kind: Kind::Number,
        help: "Without --proxy it says nothing",
    },
    Inert {
        name: "proxy-write-timeout",
        default: "5000",
        kind: Kind::Number,
        help: "Without --proxy it says nothing",
    },
];

impl Inert {
    /// For `--help` and the parser.
    pub(super) fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).help(self.help).help_heading(HEADING);
        let arg = if self.default.is_empty() { arg } else { arg.default_value(self.default) };
        match self.kind {
            Kind::Bool | Kind::BoolOnly(_) => arg
                .action(ArgAction::Set)
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Kind::OneOf(values) => arg.value_parser(clap::builder::PossibleValuesParser::new(values)),
            Kind::Number => arg.value_parser(clap::value_parser!(u64)),
            Kind::Duration => arg.value_parser(clap::value_parser!(component_base::duration::GoDuration)),
            Kind::Only(..) | Kind::Text => arg,
        }
    }

    /// Whether what was given holds here.
    pub(super) fn check(&self, matches: &ArgMatches) -> Result<(), String> {
        let (given, why) = match self.kind {
            Kind::BoolOnly(why) => {
                let given = matches.get_one::<bool>(self.name).map(bool::to_string).unwrap_or_default();
                if given == self.default {
                    return Ok(());
                }
                (given, why)
            }
            Kind::Only(values, why) => {
                let given = matches.get_one::<String>(self.name).cloned().unwrap_or_default();
                if values.contains(&given.as_str()) {
                    return Ok(());
                }
                (given, why)
            }
            _ => return Ok(()),
        };
        Err(format!("--{}={given} is not implemented: {why}", self.name))
    }
}
