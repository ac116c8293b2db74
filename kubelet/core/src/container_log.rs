//! The CRI container log format: `2026-01-02T03:04:05.000000006Z stdout F text`, one record a line, `P` for a part of a
//! longer line.
//!
//! Never here: files.

use jiff::Timestamp;

/// One record. The message has no line feed.
#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The time as it stands in the file.
    pub time_text: &'a str,
    /// From standard error instead of standard output.
    pub stderr: bool,
    /// The next record of this stream goes on with the same line.
    pub partial: bool,
    /// What was written.
    pub message: &'a [u8],
}

/// Parses one line of a log file (with or without its line feed), or `None` if it is not in the format.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time_text = std::str::from_utf8(fields.next()?).ok()?;
    let time = time_text.parse().ok()?;
    let stderr = match fields.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = fields.next()?.split(|byte| *byte == b':').next()? == b"P";
    let message = fields.next().unwrap_or_default();
    Some(Record { time, time_text, stderr, partial, message })
}

/// Writes one record with its line feed.
pub fn format(time: Timestamp, stderr: bool, message: &str) -> String {
    format!("{time:.9} {} F {message}\n", if stderr { "stderr" } else { "stdout" })
}

/// What a reader of logs asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on as the log grows.
    pub follow: bool,
    /// The container's last ended instance.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only records from this time on.
    pub since: Option<Timestamp>,
    /// Only the last lines.
    pub tail: Option<usize>,
    /// At most this many bytes.
    pub limit_bytes: Option<usize>,
    /// Only one of the streams: `Some(true)` standard error, `Some(false)` standard output.
    pub stderr_only: Option<bool>,
}

/// What a record looks like to the reader, or nothing if it was not asked for. `at_line_start` is whether the record
/// begins a line.
pub fn render(line: &[u8], options: &LogOptions, at_line_start: bool, out: &mut Vec<u8>) -> Option<bool> {
    let record = parse(line)?;
    if options.since.is_some_and(|since| record.time < since)
        || options.stderr_only.is_some_and(|stderr| stderr != record.stderr)
    {
        return None;
    }
    if options.timestamps && at_line_start {
        out.extend_from_slice(record.time_text.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(record.message);
    if !record.partial {
        out.push(b'\n');
    }
    Some(!record.partial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_partial_records_are_told_apart() {
        let record = parse(b"2026-01-02T03:04:05.000000006Z stdout F a b  c\n").unwrap();
        assert_eq!((record.partial, record.stderr, record.message), (false, false, &b"a b  c"[..]));
        assert_eq!(record.time.subsec_nanosecond(), 6);
        assert!(parse(b"2026-01-02T03:04:05Z stderr P part").unwrap().partial);
        assert_eq!(parse(b"2026-01-02T03:04:05+01:00 stdout F ").unwrap().message, b"");
        assert!(parse(b"not a record").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn a_line_in_parts_gets_one_timestamp() {
        let options = LogOptions { timestamps: true, ..LogOptions::default() };
        let mut out = Vec::new();
        let mut start = true;
        for line in [&b"2026-01-02T03:04:05Z stdout P ab"[..], b"2026-01-02T03:04:06Z stdout F cd"] {
            start = render(line, &options, start, &mut out).unwrap();
        }
        assert_eq!(out, b"2026-01-02T03:04:05Z abcd\n");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let time = Timestamp::new(1_700_000_000, 5).unwrap();
        let line = format(time, true, "hello");
        let record = parse(line.as_bytes()).unwrap();
        assert_eq!((record.time, record.stderr, record.message), (time, true, &b"hello"[..]));
    }
}
