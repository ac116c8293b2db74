//! Loops over two variables, index and item of a list or key and value of a map: `all`, `exists`, `existsOne`, `transformList`, `transformMap` and
//! `transformMapEntry`. Rewrites calls when they are read; knows nothing of types and values.

use std::sync::LazyLock;

use cel::Env;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators,
};
use cel::parser::{Macro, MacroExprHelper, ParseError, Parser};

/// Puts an entry, or those of a map, into the map that a loop makes. No expression can name it.
pub(super) const MAP_INSERT: &str = "cel.@mapInsert";
const RESULT: &str = "@result";

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    for (name, arguments, kind) in [
        ("all", 3, Kind::All),
        ("exists", 3, Kind::Exists),
        ("existsOne", 3, Kind::ExistsOne),
        ("exists_one", 3, Kind::ExistsOne),
        ("transformList", 3, Kind::List),
        ("transformList", 4, Kind::List),
        ("transformMap", 3, Kind::Map),
        ("transformMap", 4, Kind::Map),
        ("transformMapEntry", 3, Kind::Entries),
        ("transformMapEntry", 4, Kind::Entries),
    ] {
        let expanding =
            move |helper: &mut MacroExprHelper<'_>,
                  target: &mut Option<IdedExpr>,
                  arguments: &mut Vec<IdedExpr>| { expand(kind, helper, target, arguments) };
        // None of them is among the standard ones, which take fewer arguments.
        let _ = environment.add_macro(Macro::receiver(name, arguments, expanding));
    }
    environment
});

/// A parser that knows the loops, and optional values.
pub(super) fn parser() -> Parser {
    ENVIRONMENT.parser().enable_optional_syntax(true)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    All,
    Exists,
    ExistsOne,
    List,
    Map,
    Entries,
}

fn expand(
    kind: Kind,
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    arguments: &mut Vec<IdedExpr>,
) -> Result<Option<IdedExpr>, ParseError> {
    let (Some(body), Some(range)) = (arguments.pop(), target.take()) else { return Ok(None) };
    let first = identifier(arguments.remove(0), helper)?;
    let second = identifier(arguments.remove(0), helper)?;
    if first == second {
        return Err(helper.new_error(body.id, "second variable must not be the same as the first"));
    }
    let filter = arguments.pop();
    let accumulated = |helper: &mut MacroExprHelper<'_>| helper.next_expr(Expr::Ident(RESULT.to_owned()));
    let truth = |helper: &mut MacroExprHelper<'_>, value: bool| {
        helper.next_expr(Expr::Literal(LiteralValue::Boolean(value.into())))
    };
    let number =
        |helper: &mut MacroExprHelper<'_>| helper.next_expr(Expr::Literal(LiteralValue::Int(1.into())));
    let before = accumulated(helper);
    let (start, condition, step) = match kind {
        Kind::All => {
            let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![before]);
            let before = accumulated(helper);
            (truth(helper, true), condition, call(helper, operators::LOGICAL_AND, vec![before, body]))
        }
        Kind::Exists => {
            let negated = call(helper, operators::LOGICAL_NOT, vec![before]);
            let condition = call(helper, operators::NOT_STRICTLY_FALSE, vec![negated]);
            let before = accumulated(helper);
            (truth(helper, false), condition, call(helper, operators::LOGICAL_OR, vec![before, body]))
        }
        Kind::ExistsOne => {
            let start = helper.next_expr(Expr::Literal(LiteralValue::Int(0.into())));
            let one = number(helper);
            let more = call(helper, operators::ADD, vec![before, one]);
            let same = accumulated(helper);
            (start, truth(helper, true), call(helper, operators::CONDITIONAL, vec![body, more, same]))
        }
        Kind::List => {
            let start = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
            let added = helper.next_expr(Expr::List(ListExpr::new(vec![body])));
            (start, truth(helper, true), call(helper, operators::ADD, vec![before, added]))
        }
        Kind::Map | Kind::Entries => {
            let start = helper.next_expr(Expr::Map(MapExpr::default()));
            let mut added = vec![before];
            if kind == Kind::Map {
                added.push(helper.next_expr(Expr::Ident(first.clone())));
            }
            added.push(body);
            (start, truth(helper, true), call(helper, MAP_INSERT, added))
        }
    };
    let step = match filter {
        Some(filter) => {
            let same = accumulated(helper);
            call(helper, operators::CONDITIONAL, vec![filter, step, same])
        }
        None => step,
    };
    let mut result = accumulated(helper);
    if kind == Kind::ExistsOne {
        let one = number(helper);
        result = call(helper, operators::EQUALS, vec![result, one]);
    }
    Ok(Some(helper.next_expr(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: range,
        iter_var: first,
        iter_var2: Some(second),
        accu_var: RESULT.to_owned(),
        accu_init: start,
        loop_cond: condition,
        loop_step: step,
        result,
    })))))
}

fn call(helper: &mut MacroExprHelper<'_>, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn identifier(expression: IdedExpr, helper: &mut MacroExprHelper<'_>) -> Result<String, ParseError> {
    match expression.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(helper.new_error(expression.id, "argument must be a simple name")),
    }
}
