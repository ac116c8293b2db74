//! Points and spans of time as text.

use jiff::{SignedDuration, Timestamp};

use crate::meta;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A time by RFC 3339.
pub(in crate::cel) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    meta::parse_time(text)
}

/// A time by RFC 3339 in UTC, with as many decimals as it has.
pub(in crate::cel) fn timestamp_text(time: Timestamp) -> String {
    time.to_string()
}

/// A span as Go writes it, such as `1h30m` or `-1.5s`.
pub(in crate::cel) fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut nanos: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    if rest != "0" {
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, after) = rest.split_at(digits);
            let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_length);
            let unit: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => NANOS_PER_SECOND,
                "m" => 60 * NANOS_PER_SECOND,
                "h" => 3_600 * NANOS_PER_SECOND,
                _ => return None,
            };
            nanos = nanos.checked_add(scaled(number, unit)?)?;
            rest = after;
        }
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole * unit + part * unit / 10_i128.pow(fraction.len() as u32))
}

/// A span in seconds, such as `5400s`.
pub(in crate::cel) fn duration_seconds_text(span: SignedDuration) -> String {
    let nanos = span.as_nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.abs() / NANOS_PER_SECOND, nanos.abs() % NANOS_PER_SECOND);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_read_as_go_writes_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("100ms", Some(100_000_000)),
            (".5s", Some(500_000_000)),
            ("3", None),
            ("", None),
            ("1x", None),
            ("s", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(parse_duration(text).map(|span| span.as_nanos()), nanos, "{text}");
        }
    }

    proptest! {
        #[test]
        fn seconds_round_trip(nanos in -4_000_000_000_000_000_000_i64..4_000_000_000_000_000_000) {
            let span = SignedDuration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&duration_seconds_text(span)), Some(span));
        }

        #[test]
        fn no_text_panics(text in "[-+.0-9a-zµ]{0,12}") {
            let _ = parse_duration(&text);
        }
    }
}
