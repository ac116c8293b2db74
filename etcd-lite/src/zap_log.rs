//! The log as etcd 3.5 writes it: one JSON object a line with level, ts, caller, msg and the fields, or the same separated by tabs; to
//! stderr, stdout and files. Never here: what is logged.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::options::LoggingOptions;

/// Installs the log; `RUST_LOG` overrides `--log-level`.
///
/// # Errors
/// A file of `--log-outputs` cannot be written.
pub fn init(options: &LoggingOptions) -> anyhow::Result<()> {
    let level = options.log_level.filter();
    // Libraries report what concerns them alone only when asked by name.
    let libraries = level.min(tracing::level_filters::LevelFilter::WARN);
    let directives = format!("{libraries},etcd_lite={level},etcd_lite_core={level},component_base={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives));
    let outputs = options.log_outputs.iter().map(|name| Output::open(name)).collect::<anyhow::Result<_>>()?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Outputs(Arc::new(outputs)))
        .event_format(ZapFormat { is_json: options.log_format == "json" });
    // A second call (tests) keeps the first subscriber.
    let _ = subscriber.try_init();
    Ok(())
}

enum Output {
    Stderr,
    Stdout,
    File(Mutex<File>),
}

impl Output {
    fn open(name: &str) -> anyhow::Result<Self> {
        match name {
            "default" | "stderr" | "/dev/stderr" => Ok(Self::Stderr),
            "stdout" | "/dev/stdout" => Ok(Self::Stdout),
            "systemd/journal" => {
                bail!("--log-outputs=systemd/journal is not implemented; use stderr, which journald keeps")
            }
            path => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                let file = file.with_context(|| {
                    format!("cannot write --log-outputs={path}; choose a writable file, stdout or stderr")
                })?;
                Ok(Self::File(Mutex::new(file)))
            }
        }
    }
}

#[derive(Clone)]
struct Outputs(Arc<Vec<Output>>);

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in self.0.iter() {
            match output {
                Output::Stderr => io::stderr().write_all(line)?,
                Output::Stdout => io::stdout().write_all(line)?,
                Output::File(file) => file.lock().write_all(line)?,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.iter().any(|output| matches!(output, Output::Stdout)) {
            io::stdout().flush()
        } else {
            Ok(())
        }
    }
}

impl MakeWriter<'_> for Outputs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct ZapFormat {
    is_json: bool,
}

impl<S, N> FormatEvent<S, N> for ZapFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
        let file = metadata.file().unwrap_or_default();
        // The last folder and the file, as Go's zap has it.
        let short = file.rmatch_indices('/').nth(1).map_or(file, |(at, _)| &file[at + 1..]);
        let caller = format!("{short}:{}", metadata.line().unwrap_or_default());
        if !self.is_json {
            write!(out, "{time}\t{level}\t{caller}\t{}", line.message)?;
            if !line.fields.is_empty() {
                let fields: Vec<String> = line.fields.iter().map(|(name, value)| pair(name, value)).collect();
                write!(out, "\t{{{}}}", fields.join(", "))?;
            }
            return writeln!(out);
        }
        let head = [("level", level.into()), ("ts", time.to_string().into()), ("caller", caller.into())];
        write!(out, "{{")?;
        for (name, value) in head {
            write!(out, "{},", pair(name, &value))?;
        }
        write!(out, "{}", pair("msg", &line.message.clone().into()))?;
        for (name, value) in &line.fields {
            write!(out, ",{}", pair(name, value))?;
        }
        writeln!(out, "}}")
    }
}

fn pair(name: &str, value: &Value) -> String {
    format!("{}:{value}", Value::from(name))
}

/// An event's fields, with etcd's spelling of names.
#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(String, Value)>,
}

impl Line {
    fn take(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.fields.push((field.name().replace('_', "-"), value));
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(is_json: bool) -> String {
        let file = tempfile::NamedTempFile::new().expect("file");
        let output = Output::open(file.path().to_str().expect("path")).expect("opens");
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Outputs(Arc::new(vec![output])))
            .event_format(ZapFormat { is_json })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(remote_addr = "a\"b", count = 3, error = %io::Error::other("why"), "rejected {}", "it");
        });
        std::fs::read_to_string(file.path()).expect("read")
    }

    #[test]
    fn a_line_is_an_object_as_of_etcd() {
        let text = logged(true);
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&line["level"], &line["msg"], &line["remote-addr"], &line["count"], &line["error"]),
            (&"warn".into(), &"rejected it".into(), &"a\"b".into(), &3.into(), &"why".into())
        );
        assert!(
            text.starts_with("{\"level\":\"warn\",\"ts\":\"2")
                && line["ts"].as_str().expect("ts").len() == 24
        );
        assert!(line["caller"].as_str().expect("caller").starts_with("src/zap_log.rs:"), "{text}");
    }

    #[test]
    fn a_line_for_people_has_tabs() {
        let text = logged(false);
        let parts: Vec<&str> = text.trim_end().split('\t').collect();
        assert_eq!((parts[1], parts[3]), ("warn", "rejected it"));
        assert_eq!(parts[4], "{\"remote-addr\":\"a\\\"b\", \"count\":3, \"error\":\"why\"}");
    }

    #[test]
    fn outputs_that_cannot_be_are_named() {
        let error = |name: &str| Output::open(name).err().expect("refused").to_string();
        assert!(error("/nonexistent/log").contains("/nonexistent/log"));
        assert!(error("systemd/journal").contains("use stderr"));
    }
}
