//! Named places where a test can make the process die, panic, pause, or an IO call fail.
//!
//! `CORACLE_FAILPOINTS="etcd.before_fsync=exit;raft.before_send=sleep(500)"` arms them when the process starts; without
//! the variable a failpoint is one relaxed load. `wal.write=error(ENOSPC)@20` fails the 20th time and ever after,
//! `…@20-22` three times.

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What an armed failpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the process with status 137, as SIGKILL would look.
    Exit,
    /// Panic in the current thread.
    Panic,
    /// Block the current thread.
    Sleep(Duration),
    /// Fail with this error number, at places that do IO; elsewhere nothing.
    Error(i32),
}

/// An armed failpoint.
#[derive(Debug)]
pub struct Armed {
    action: Action,
    /// Which times it acts, counted from 1.
    times: RangeInclusive<u64>,
    count: AtomicU64,
}

impl Armed {
    fn next(&self) -> Option<Action> {
        let time = 1 + self.count.fetch_add(1, Ordering::Relaxed);
        self.times.contains(&time).then_some(self.action)
    }
}

/// Parses the value of `CORACLE_FAILPOINTS`.
///
/// # Errors
/// Names the first part that is not `name=exit`, `name=panic`, `name=sleep(MILLISECONDS)` or `name=error(ENOSPC)`, with `@FIRST` or `@FIRST-LAST`
/// behind it if wanted.
pub fn parse(text: &str) -> Result<HashMap<String, Armed>, String> {
    text.split(';')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let bad =
                || format!("failpoint {part:?}: write NAME=exit, NAME=panic, NAME=sleep(MILLISECONDS) or NAME=error(ENOSPC), with @FIRST or @FIRST-LAST if wanted");
            let (name, action) = part.trim().split_once('=').ok_or_else(bad)?;
            let (action, times) = match action.split_once('@') {
                None => (action, 1..=u64::MAX),
                Some((action, times)) => {
                    let (first, last) = times.split_once('-').unwrap_or((times, ""));
                    let first = first.parse().map_err(|_| bad())?;
                    let last = if last.is_empty() { u64::MAX } else { last.parse().map_err(|_| bad())? };
                    (action, first..=last)
                }
            };
            let action = match action {
                "exit" => Action::Exit,
                "panic" => Action::Panic,
                "error(ENOSPC)" => Action::Error(28),
                "error(EIO)" => Action::Error(5),
                other => {
                    let millis = other.strip_prefix("sleep(").and_then(|rest| rest.strip_suffix(')'));
                    let millis = millis.and_then(|m| m.parse().ok()).ok_or_else(bad)?;
                    Action::Sleep(Duration::from_millis(millis))
                }
            };
            Ok((name.to_owned(), Armed { action, times, count: AtomicU64::new(0) }))
        })
        .collect()
}

/// Runs the action armed for `name`, if any. Use through [`failpoint!`](crate::failpoint!).
pub fn hit(name: &str) {
    // Where nothing can fail, an error is nothing.
    let _ = hit_io(name);
}

/// As [`hit`], at a place that does IO.
///
/// # Errors
/// The failpoint is armed with one.
pub fn hit_io(name: &str) -> io::Result<()> {
    static ARMED: OnceLock<HashMap<String, Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| match std::env::var("CORACLE_FAILPOINTS") {
        Ok(text) => parse(&text).unwrap_or_else(|error| {
            eprintln!("CORACLE_FAILPOINTS: {error}");
            std::process::exit(2);
        }),
        Err(_) => HashMap::new(),
    });
    if armed.is_empty() {
        return Ok(());
    }
    match armed.get(name).and_then(Armed::next) {
        None => {}
        Some(Action::Error(number)) => return Err(io::Error::from_raw_os_error(number)),
        Some(Action::Exit) => std::process::exit(137),
        Some(Action::Panic) => panic!("failpoint {name}"),
        Some(Action::Sleep(duration)) => std::thread::sleep(duration),
    }
    Ok(())
}

/// Marks a place that `CORACLE_FAILPOINTS` can arm.
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        $crate::failpoint::hit($name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_action_and_names_the_bad_part() {
        let armed = parse("a=exit; b=sleep(20);c=panic;").expect("valid");
        assert_eq!(armed["a"].action, Action::Exit);
        assert_eq!(armed["b"].action, Action::Sleep(Duration::from_millis(20)));
        assert_eq!(armed["c"].action, Action::Panic);
        assert!(parse("a=exit;b=sleep(x)").expect_err("bad").contains("b=sleep(x)"));
    }

    #[test]
    fn acts_at_the_times_named() {
        let armed = parse("a=error(ENOSPC)@2-3;b=error(EIO)@2").expect("valid");
        let acts = |name: &str| (0..4).map(|_| armed[name].next()).collect::<Vec<_>>();
        let (full, broken) = (Some(Action::Error(28)), Some(Action::Error(5)));
        assert_eq!(acts("a"), [None, full, full, None]);
        assert_eq!(acts("b"), [None, broken, broken, broken]);
    }
}
