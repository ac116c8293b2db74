//! Named places where a test can make the process die, panic or pause.
//!
//! `CORACLE_FAILPOINTS="etcd.before_fsync=exit;raft.before_send=sleep(500)"` arms them when the process starts; without
//! the variable a failpoint is one relaxed load.

use std::collections::HashMap;
use std::sync::OnceLock;
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
}

/// Parses the value of `CORACLE_FAILPOINTS`.
///
/// # Errors
/// Names the first part that is not `name=exit`, `name=panic` or `name=sleep(MILLISECONDS)`.
pub fn parse(text: &str) -> Result<HashMap<String, Action>, String> {
    text.split(';')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let bad =
                || format!("failpoint {part:?}: write NAME=exit, NAME=panic or NAME=sleep(MILLISECONDS)");
            let (name, action) = part.trim().split_once('=').ok_or_else(bad)?;
            let action = match action {
                "exit" => Action::Exit,
                "panic" => Action::Panic,
                other => {
                    let millis = other.strip_prefix("sleep(").and_then(|rest| rest.strip_suffix(')'));
                    let millis = millis.and_then(|m| m.parse().ok()).ok_or_else(bad)?;
                    Action::Sleep(Duration::from_millis(millis))
                }
            };
            Ok((name.to_owned(), action))
        })
        .collect()
}

/// Runs the action armed for `name`, if any. Use through [`failpoint!`](crate::failpoint!).
pub fn hit(name: &str) {
    static ARMED: OnceLock<HashMap<String, Action>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| match std::env::var("CORACLE_FAILPOINTS") {
        Ok(text) => parse(&text).unwrap_or_else(|error| {
            eprintln!("CORACLE_FAILPOINTS: {error}");
            std::process::exit(2);
        }),
        Err(_) => HashMap::new(),
    });
    if armed.is_empty() {
        return;
    }
    match armed.get(name) {
        None => {}
        Some(Action::Exit) => std::process::exit(137),
        Some(Action::Panic) => panic!("failpoint {name}"),
        Some(Action::Sleep(duration)) => std::thread::sleep(*duration),
    }
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
        assert_eq!(armed["a"], Action::Exit);
        assert_eq!(armed["b"], Action::Sleep(Duration::from_millis(20)));
        assert_eq!(armed["c"], Action::Panic);
        assert!(parse("a=exit;b=sleep(x)").expect_err("bad").contains("b=sleep(x)"));
    }
}
