//! The times at which a CronJob runs: five fields, or a word such as `@daily`. Owns reading a schedule, what is wrong with
//! one, and when it comes next. Source of the rules and sentences: robfig/cron, which upstream reads schedules with.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// What a field may hold.
struct Bounds {
    min: u32,
    max: u32,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds {
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];
/// Words and the fields they stand for.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// A time is looked for this many years ahead.
const YEARS_AHEAD: i16 = 5;

/// The values of one field as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Values {
    bits: u64,
    /// Written as `*` or `?`: it leaves the choice of days to the other field.
    any: bool,
}

impl Values {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    /// Minute, hour, day of the month, month, day of the week (Sunday is 0).
    Fields([Values; 5]),
    Every(Duration),
}

/// A schedule that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    times: Times,
    /// The zone that the schedule itself names.
    zone: Option<TimeZone>,
}

/// Checks a schedule.
///
/// # Errors
/// The sentence for what is wrong.
pub fn check(schedule: &str) -> Result<(), String> {
    Schedule::parse(schedule).map(|_| ())
}

/// A zone of the time zone database.
pub fn zone(name: &str) -> Option<TimeZone> {
    jiff::tz::TimeZoneDatabase::bundled().get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// The sentence for what is wrong.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        let (mut rest, mut named) = (schedule, None);
        if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
            let (given, after) = schedule.split_once(' ').unwrap_or((schedule, ""));
            let given = given.split_once('=').map_or("", |(_, name)| name);
            let found = zone(given)
                .ok_or_else(|| format!("provided bad location {given}: unknown time zone {given}"))?;
            named = Some(found);
            rest = after.trim();
        }
        if let Some(every) = rest.strip_prefix("@every ") {
            let every =
                duration(every).map_err(|problem| format!("failed to parse duration {rest}: {problem}"))?;
            return Ok(Self { times: Times::Every(every), zone: named });
        }
        if rest.starts_with('@') {
            let word = WORDS.iter().find(|(word, _)| *word == rest);
            rest = word.ok_or_else(|| format!("unrecognized descriptor: {rest}"))?.1;
        }
        let fields: Vec<&str> = rest.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(format!(
                "expected exactly {} fields, found {}: [{}]",
                FIELDS.len(),
                fields.len(),
                fields.join(" ")
            ));
        }
        let mut values = [Values::default(); 5];
        for ((field, bounds), values) in fields.iter().zip(&FIELDS).zip(&mut values) {
            for part in field.split(',').filter(|part| !part.is_empty()) {
                let part = range(part, bounds)?;
                values.bits |= part.bits;
                values.any |= part.any;
            }
        }
        Ok(Self { times: Times::Fields(values), zone: named })
    }

    /// The first time after `after`, read in `local` unless the schedule names a zone; `None` if there is none in the next
    /// years.
    pub fn next(&self, after: Timestamp, local: &TimeZone) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second()).ok()?;
        match &self.times {
            Times::Every(every) => {
                // Whole seconds, and at least one.
                let every = SignedDuration::from_secs(i64::try_from(every.as_secs().max(1)).ok()?);
                second.checked_add(every).ok()
            }
            Times::Fields(fields) => {
                let zone = self.zone.as_ref().unwrap_or(local);
                let from = second.checked_add(SignedDuration::from_secs(1)).ok()?;
                next_of_fields(fields, from.to_zoned(zone.clone())).map(|found| found.timestamp())
            }
        }
    }
}

fn is_day([_, _, days, months, weekdays]: &[Values; 5], date: Date) -> bool {
    let day = days.has(date.day());
    let weekday = weekdays.has(date.weekday().to_sunday_zero_offset());
    let either = if days.any || weekdays.any { day && weekday } else { day || weekday };
    months.has(date.month()) && either
}

/// The first fitting time at or after `from`: days by the calendar, hours and minutes as they pass, so that an hour which a
/// change of clocks skips is skipped and one that it repeats comes twice.
fn next_of_fields(fields: &[Values; 5], from: Zoned) -> Option<Zoned> {
    let last_year = from.year().checked_add(YEARS_AHEAD)?;
    let mut at = from;
    if at.second() > 0 {
        at = at.checked_add(Span::new().seconds(60 - i64::from(at.second()))).ok()?;
    }
    loop {
        if at.year() > last_year {
            return None;
        }
        let date = at.date();
        if !fields[3].has(date.month()) {
            let first = date.first_of_month().checked_add(Span::new().months(1)).ok()?;
            at = first.to_zoned(at.time_zone().clone()).ok()?;
        } else if !is_day(fields, date) {
            at = date.tomorrow().ok()?.to_zoned(at.time_zone().clone()).ok()?;
        } else if !fields[1].has(at.hour()) {
            at = at.checked_add(Span::new().minutes(60 - i64::from(at.minute()))).ok()?;
        } else if !fields[0].has(at.minute()) {
            at = at.checked_add(Span::new().minutes(1)).ok()?;
        } else {
            return Some(at);
        }
    }
}

/// Whether the time zone database has a zone of exactly this name.
pub fn is_known_zone(name: &str) -> bool {
    zone(name).is_some()
}

/// `low[-high][/step]`, where `*` and `?` are everything.
fn range(text: &str, bounds: &Bounds) -> Result<Values, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let limits: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match limits.as_slice() {
        ["*" | "?", ..] => (bounds.min, bounds.max),
        [only] => {
            let start = value(only, bounds)?;
            (start, start)
        }
        [low, high] => (value(low, bounds)?, value(high, bounds)?),
        [low, ..] => {
            value(low, bounds)?;
            return Err(format!("too many hyphens: {text}"));
        }
        [] => (bounds.min, bounds.max),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = integer(step)?;
            if limits.len() == 1 {
                end = bounds.max;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let every = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end).step_by(every).fold(0, |bits, value| bits | (1 << value));
    let any = matches!(limits.as_slice(), ["*" | "?", ..]) && step == 1;
    Ok(Values { bits, any })
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let named = bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    match named.and_then(|position| u32::try_from(position).ok()) {
        Some(position) => Ok(bounds.min + position),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<u32, String> {
    let problem = |what: &str| {
        let quoted = crate::field::go_quote(text);
        format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: {what}")
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| problem("value out of range"))?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A length of time such as `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let negative = text.starts_with('-');
    let mut seconds = 0.0;
    let quoted = crate::field::go_quote(text);
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(format!("time: invalid duration {quoted}"));
    }
    while !rest.is_empty() {
        let in_number = |character: char| character.is_ascii_digit() || character == '.';
        let unit_at = rest.find(|character| !in_number(character)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(unit_at);
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        if digits == 0 || number.len() - digits > 1 {
            return Err(format!("time: invalid duration {quoted}"));
        }
        let (unit, after) = after.split_at(after.find(in_number).unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {quoted}"));
        }
        let Some((_, length)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            let unit = crate::field::go_quote(unit);
            return Err(format!("time: unknown unit {unit} in duration {quoted}"));
        };
        seconds += number.parse::<f64>().unwrap_or(0.0) * length;
        rest = after;
    }
    // A negative length is as good as none: the schedule then comes every second.
    Ok(if negative { Duration::ZERO } else { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_that_run_are_taken() {
        for schedule in [
            "* * * * *",
            "*/5 0-6/2 1,15 JAN-mar ?",
            "0 0 31 12 sun",
            "5/15 * * * *",
            "@daily",
            "@every 1h30m",
            "@every 1.5s",
            "TZ=UTC 0 0 * * *",
            "CRON_TZ=Europe/Berlin 0 0 * * *",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    fn next(schedule: &str, after: &str, zone_name: &str) -> Option<String> {
        let zone = zone(zone_name).expect("zone");
        let after = after.parse::<Zoned>().map(|at| at.timestamp()).or_else(|_| after.parse()).expect("time");
        let found = Schedule::parse(schedule).expect("schedule").next(after, &zone)?;
        Some(found.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %a").to_string())
    }

    #[test]
    fn the_next_time_is_after_the_last_and_fits_all_fields() {
        for (schedule, after, expected) in [
            ("* * * * *", "2012-07-09T14:45:00Z", "2012-07-09 14:46:00 Mon"),
            ("* * * * *", "2012-07-09T14:59:59Z", "2012-07-09 15:00:00 Mon"),
            ("*/15 * * * *", "2012-07-09T23:45:30Z", "2012-07-10 00:00:00 Tue"),
            ("20-35/15 * * * *", "2012-07-09T15:45:00Z", "2012-07-09 16:20:00 Mon"),
            ("0 0 9 2 *", "2012-07-09T23:35:00Z", "2013-02-09 00:00:00 Sat"),
            ("0 0 * 2 Mon", "2012-07-09T23:35:00Z", "2013-02-04 00:00:00 Mon"),
            ("0 0 */10 * Sun", "2012-07-11T00:00:00Z", "2012-07-15 00:00:00 Sun"),
            ("0 0 1,15 * *", "2012-07-15T00:00:00Z", "2012-08-01 00:00:00 Wed"),
            ("0 0 29 2 *", "2013-01-01T00:00:00Z", "2016-02-29 00:00:00 Mon"),
            ("@hourly", "2012-07-09T14:45:00Z", "2012-07-09 15:00:00 Mon"),
            ("@weekly", "2012-07-09T14:45:00Z", "2012-07-15 00:00:00 Sun"),
            ("@every 1h30m", "2012-07-09T14:45:10.5Z", "2012-07-09 16:15:10 Mon"),
            ("@every 10ms", "2012-07-09T14:45:10.5Z", "2012-07-09 14:45:11 Mon"),
        ] {
            assert_eq!(next(schedule, after, "UTC").as_deref(), Some(expected), "{schedule} after {after}");
        }
        assert_eq!(next("0 0 31 2 *", "2012-07-09T00:00:00Z", "UTC"), None, "there is no such day");
    }

    #[test]
    fn clocks_that_change_skip_and_repeat_hours() {
        for (schedule, after, expected) in [
            ("30 2 * * *", "2012-03-11T00:00:00-05[America/New_York]", "2012-03-12 02:30:00 Mon"),
            ("0 * * * *", "2012-03-11T01:00:00-05[America/New_York]", "2012-03-11 03:00:00 Sun"),
            ("0 * * * *", "2012-11-04T01:00:00-04[America/New_York]", "2012-11-04 01:00:00 Sun"),
            ("TZ=UTC 0 12 * * *", "2012-07-09T00:00:00-04[America/New_York]", "2012-07-09 08:00:00 Mon"),
        ] {
            assert_eq!(
                next(schedule, after, "America/New_York").as_deref(),
                Some(expected),
                "{schedule} after {after}"
            );
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        for (schedule, problem) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("error", "expected exactly 5 fields, found 1: [error]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every 5d", "failed to parse duration @every 5d: time: unknown unit \"d\" in duration \"5d\""),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
            ("TZ=Nowhere 0 0 * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(check(schedule), Err(problem.to_owned()), "{schedule}");
        }
    }
}
