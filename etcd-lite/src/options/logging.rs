//! What is logged, where, and how.

use clap::{Args, ValueEnum};

/// Logging.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LoggingOptions {
    /// Least severe log level.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// `zap` is the one logger etcd has; accepted for its scripts.
    #[arg(long, default_value = "zap")]
    pub logger: String,
    /// Where to log: default or stderr, stdout, and files, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "default")]
    pub log_outputs: Vec<String>,
    /// `json` for one JSON object a line, as etcd 3.5; `console` for people.
    #[arg(long, default_value = "json", value_parser = ["json", "console"])]
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
    Dpanic,
    Panic,
    Fatal,
}

impl LogLevel {
    /// As the logging library names it.
    pub fn filter(self) -> tracing::level_filters::LevelFilter {
        use tracing::level_filters::LevelFilter;
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            // There is nothing more severe than an error here.
            Self::Error | Self::Dpanic | Self::Panic | Self::Fatal => LevelFilter::ERROR,
        }
    }
}
