//! What is logged, and how.

use clap::{Args, ValueEnum};

/// Logging.
#[derive(Args, Clone, Debug)]
pub struct LoggingOptions {
    /// Least severe log level.
    #[arg(long, env = "ETCD_LOG_LEVEL", value_enum, default_value_t = LogLevel::Info, help_heading = "Logging")]
    pub log_level: LogLevel,
    /// `zap` is the one logger etcd has; accepted for its scripts.
    #[arg(long, env = "ETCD_LOGGER", default_value = "zap", value_parser = ["zap"], help_heading = "Logging")]
    pub logger: String,
    /// `json` for one JSON object a line.
    #[arg(long, env = "ETCD_LOG_FORMAT", default_value = "console", value_parser = ["json", "console"], help_heading = "Logging")]
    pub log_format: String,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}
