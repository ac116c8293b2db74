//! Durations as Go's flags and Kubernetes' config files spell them: `1m30s`, `500ms`, `0`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A non-negative duration parsed from, and printed in, Go's notation (`time.ParseDuration`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(Duration);

impl GoDuration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The same without what is shorter than a millisecond.
    pub const fn whole_milliseconds(self) -> Self {
        Self::from_millis(self.0.as_millis() as u64)
    }

    /// The duration as the standard library has it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// Why a text is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid duration {0:?}: write it like 300ms, 10s, 1m30s or 2h")]
pub struct ParseDurationError(String);

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseDurationError(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut total_seconds = 0f64;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let seconds = match &rest[..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(bad()),
            };
            rest = &rest[unit_end..];
            total_seconds += number * seconds;
        }
        Duration::try_from_secs_f64(total_seconds).map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000_000_000 {
            let (value, unit) = match nanos {
                n if n >= 1_000_000 => (n as f64 / 1e6, "ms"),
                n if n >= 1_000 => (n as f64 / 1e3, "µs"),
                n => (n as f64, "ns"),
            };
            return write!(f, "{value}{unit}");
        }
        let (hours, minutes) = (self.0.as_secs() / 3600, self.0.as_secs() / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let seconds = (self.0.as_secs() % 60) as f64 + f64::from(self.0.subsec_nanos()) / 1e9;
        write!(f, "{seconds}s")
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_are_printed_as_go_does() {
        for (millis, text) in
            [(0, "0s"), (393, "393ms"), (1200, "1.2s"), (62_003, "1m2.003s"), (7_260_000, "2h1m0s")]
        {
            let duration = Duration::from_millis(millis) + Duration::from_nanos(999_999);
            assert_eq!(GoDuration::from(duration).whole_milliseconds().to_string(), text);
        }
    }

    #[test]
    fn reads_and_prints_go_notation() {
        for (text, millis, printed) in [
            ("1m30s", 90_000, "1m30s"),
            ("300ms", 300, "300ms"),
            ("1.5h", 5_400_000, "1h30m0s"),
            ("0", 0, "0s"),
            ("15s", 15_000, "15s"),
        ] {
            let parsed: GoDuration = text.parse().expect(text);
            assert_eq!(parsed, GoDuration::from_millis(millis), "{text}");
            assert_eq!(parsed.to_string(), printed);
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "10", "s", "-5s", "1x", "5 s", "1e400h"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?} was accepted");
        }
    }
}
