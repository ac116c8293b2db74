//! From text to a tree, with limits on both so that no text exhausts the stack.

use cel::common::ast::{IdedExpr, SourceInfo};

use super::{CompileError, macros};

/// The most characters of an expression.
const CHARACTERS_MAX: usize = 100_000;
/// The most operators, calls and selections: as many can be nested.
const OPERATORS_MAX: usize = 10_000;
/// Enough for that many.
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// Runs what recurses over an expression that may be nested deeply.
pub(super) fn with_stack<T: Send>(
    work: impl FnOnce() -> Result<T, CompileError> + Send,
) -> Result<T, CompileError> {
    let failed = |reason: &str| CompileError(format!("the expression could not be read: {reason}"));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| failed(&error.to_string()))?;
        thread.join().unwrap_or_else(|_| Err(failed("its parser gave up")))
    })
}

/// Parses an expression.
pub(super) fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), CompileError> {
    let characters = text.chars().count();
    if characters > CHARACTERS_MAX {
        let limit =
            format!("expression code point size exceeds limit: size: {characters}, limit {CHARACTERS_MAX}");
        return Err(CompileError(format!("ERROR: <input>:-1:0: {limit}")));
    }
    if text.chars().filter(|c| "+-*/%.[(?<>!={".contains(*c)).count() > OPERATORS_MAX {
        return Err(CompileError("ERROR: <input>:-1:0: expression recursion limit exceeded".to_owned()));
    }
    let parser = macros::parser().max_recursion_depth(250);
    parser.parse_with_source_info(text).map_err(|found| {
        let problems: Vec<String> = found
            .errors
            .iter()
            .map(|error| {
                let (line, column) = error.pos;
                problem(text, line.max(1) as usize, column.max(1) as usize, &error.msg)
            })
            .collect();
        CompileError(problems.join("\n"))
    })
}

/// One thing that is wrong, with its line and a mark under the place. Lines and columns count from 1.
pub(super) fn problem(text: &str, line: usize, column: usize, message: &str) -> String {
    let shown = text.split('\n').nth(line - 1).unwrap_or_default();
    format!("ERROR: <input>:{line}:{column}: {message}\n | {shown}\n | {}^", ".".repeat(column - 1))
}

/// Line and column of a place that counts characters from the start.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before: Vec<char> = text.chars().take(offset).collect();
    let line_start = before.iter().rposition(|c| *c == '\n').map_or(0, |index| index + 1);
    (before.iter().filter(|c| **c == '\n').count() + 1, before.len() - line_start + 1)
}
