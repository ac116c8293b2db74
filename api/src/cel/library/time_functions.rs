//! Parts of points and spans of time.

use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed, no_such_overload};
use super::text;

pub(super) const ROWS: &[Row] = &[
    (".getFullYear(timestamp): int", |values| part(values, |time| time.year().into())),
    (".getFullYear(timestamp, string): int", |values| part(values, |time| time.year().into())),
    (".getMonth(timestamp): int", |values| part(values, |time| i64::from(time.month()) - 1)),
    (".getMonth(timestamp, string): int", |values| part(values, |time| i64::from(time.month()) - 1)),
    (".getDayOfYear(timestamp): int", |values| part(values, |time| i64::from(time.day_of_year()) - 1)),
    (".getDayOfYear(timestamp, string): int", |values| {
        part(values, |time| i64::from(time.day_of_year()) - 1)
    }),
    (".getDayOfMonth(timestamp): int", |values| part(values, |time| i64::from(time.day()) - 1)),
    (".getDayOfMonth(timestamp, string): int", |values| part(values, |time| i64::from(time.day()) - 1)),
    (".getDate(timestamp): int", |values| part(values, |time| time.day().into())),
    (".getDate(timestamp, string): int", |values| part(values, |time| time.day().into())),
    (".getDayOfWeek(timestamp): int", |values| {
        part(values, |time| time.weekday().to_sunday_zero_offset().into())
    }),
    (".getDayOfWeek(timestamp, string): int", |values| {
        part(values, |time| time.weekday().to_sunday_zero_offset().into())
    }),
    (".getHours(timestamp): int", |values| part(values, |time| time.hour().into())),
    (".getHours(timestamp, string): int", |values| part(values, |time| time.hour().into())),
    (".getMinutes(timestamp): int", |values| part(values, |time| time.minute().into())),
    (".getMinutes(timestamp, string): int", |values| part(values, |time| time.minute().into())),
    (".getSeconds(timestamp): int", |values| part(values, |time| time.second().into())),
    (".getSeconds(timestamp, string): int", |values| part(values, |time| time.second().into())),
    (".getMilliseconds(timestamp): int", |values| part(values, |time| time.millisecond().into())),
    (".getMilliseconds(timestamp, string): int", |values| part(values, |time| time.millisecond().into())),
    (".getHours(duration): int", |values| span(values, 3_600_000)),
    (".getMinutes(duration): int", |values| span(values, 60_000)),
    (".getSeconds(duration): int", |values| span(values, 1_000)),
    (".getMilliseconds(duration): int", |values| span(values, 1)),
];

fn part<'a>(values: &[Value<'a>], of: impl Fn(&Zoned) -> i64) -> Result<Value<'a>, EvalError> {
    let Value::Timestamp(time) = &values[0] else { return Err(no_such_overload()) };
    let zone = match values.len() {
        1 => TimeZone::UTC,
        _ => zone(text(values, 1)?)?,
    };
    Ok(Value::Int(of(&time.to_zoned(zone))))
}

/// A name of the time zone database, or an offset such as `-08:00`.
fn zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || failed(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return TimeZone::get(name).map_err(|_| unknown());
    };
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let hours: i32 = hours.trim_start_matches(['-', '+']).parse().map_err(|_| unknown())?;
    let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
    if hours > 23 || !(0..60).contains(&minutes) {
        return Err(unknown());
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map(TimeZone::fixed).map_err(|_| unknown())
}

fn span<'a>(values: &[Value<'a>], unit_ms: i128) -> Result<Value<'a>, EvalError> {
    match &values[0] {
        Value::Duration(span) => Ok(Value::Int((span.as_millis() / unit_ms) as i64)),
        _ => Err(no_such_overload()),
    }
}
