//! Sets of a Job's completion indexes as text: `1,3-5,7`.

use crate::field::go_quote;

/// The intervals of a set of indexes below `completions`, in increasing order.
///
/// # Errors
/// Upstream's sentence for what is wrong.
pub fn parse(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut intervals: Vec<(i64, i64)> = Vec::new();
    if text.is_empty() {
        return Ok(intervals);
    }
    for part in text.split(',') {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = intervals.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        intervals.push((first, last));
    }
    Ok(intervals)
}

/// How many indexes the intervals hold.
pub fn count(intervals: &[(i64, i64)]) -> i64 {
    intervals.iter().map(|(first, last)| last - first + 1).sum()
}

/// The first index that both texts hold; parts that cannot be read hold none.
pub fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let others = intervals(other);
    intervals(one).into_iter().find_map(|(first, last)| {
        let hit = others.iter().find(|(from, to)| first <= *to && *from <= last)?;
        Some(first.max(hit.0))
    })
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = part.split('-').collect();
    let index = |text: &str| {
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {}", go_quote(text)))?;
        if index >= completions {
            return Err(format!("too large index: {}", go_quote(text)));
        }
        Ok(index)
    };
    match limits.as_slice() {
        [only] => index(only).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            go_quote(part)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_or_refused_with_the_reason() {
        let intervals = parse("1,3-5,7", 8).expect("a set");
        assert_eq!((intervals.as_slice(), count(&intervals)), ([(1, 1), (3, 5), (7, 7)].as_slice(), 5));
        for (text, problem) in [
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("5-3", "non-increasing order, previous: 5, current: 3"),
            ("8", "too large index: \"8\""),
            ("x", "cannot convert string to integer for index: \"x\""),
            ("-1", "cannot convert string to integer for index: \"\""),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
            ),
        ] {
            assert_eq!(parse(text, 8), Err(problem.to_owned()), "{text}");
        }
        assert_eq!(parse("", 8), Ok(Vec::new()));
    }

    #[test]
    fn overlaps_are_found() {
        assert_eq!(overlap("1,3-5", "4-6", 10), Some(4));
        assert_eq!(overlap("1,3-5", "2,6", 10), None);
        assert_eq!(overlap("", "2", 10), None);
    }
}
