//! Evaluates a checked expression and charges a meter for every step, in upstream's units.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cost;
use super::macros::MAP_INSERT;
use super::node::{Expression, Fold, Node, Select};
use super::value::{Key, Made, Value};
use super::{EvalError, Inputs, Meter, failed, library, no_such_overload};

/// Evaluates an expression.
pub(super) fn evaluate<'a>(
    node: &Node,
    inputs: &mut Inputs<'a, '_>,
    meter: &mut Meter,
) -> Result<Value<'a>, EvalError> {
    Evaluation { inputs, meter, locals: Vec::new() }.node(node)
}

struct Evaluation<'e, 'a, 'p> {
    inputs: &'e mut Inputs<'a, 'p>,
    meter: &'e mut Meter,
    /// What loops and macros have bound. An accumulator may hold an error, which a later item can make irrelevant.
    locals: Vec<Result<Value<'a>, EvalError>>,
}

/// Errors are values to logical operators, but not that there is nothing left to spend.
fn absorbed<T>(result: Result<T, EvalError>) -> Result<Result<T, EvalError>, EvalError> {
    match result {
        Err(EvalError::CostLimitExceeded) => Err(EvalError::CostLimitExceeded),
        other => Ok(other),
    }
}

fn truth(value: Value<'_>) -> Result<bool, EvalError> {
    match value {
        Value::Bool(value) => Ok(value),
        _ => Err(no_such_overload()),
    }
}

impl<'a> Evaluation<'_, 'a, '_> {
    fn node(&mut self, node: &Node) -> Result<Value<'a>, EvalError> {
        match &node.expression {
            Expression::Literal(value) => Ok(value.clone()),
            Expression::Local(depth) => {
                self.meter.charge(cost::SELECT_AND_IDENT)?;
                self.locals.get(*depth).cloned().unwrap_or_else(|| Err(failed("no such attribute")))
            }
            Expression::Input(index) => {
                self.meter.charge(cost::SELECT_AND_IDENT)?;
                let value = self.inputs.values.get(*index).cloned().flatten();
                value.ok_or_else(|| failed("no such attribute"))
            }
            Expression::Composed(index) => self.composed(*index),
            Expression::Select { operand, field, mode } => {
                let operand = self.node(operand)?;
                if *mode != Select::Presence {
                    self.meter.charge(cost::SELECT_AND_IDENT)?;
                }
                select(&operand, field, *mode)
            }
            Expression::Index { operand, index, optional } => {
                let operand = self.node(operand)?;
                let index = self.node(index)?;
                self.meter.charge(cost::SELECT_AND_IDENT)?;
                indexed(&operand, &index, *optional)
            }
            Expression::Not(operand) => {
                let value = truth(self.node(operand)?)?;
                self.meter.charge(1)?;
                Ok(Value::Bool(!value))
            }
            Expression::NotStrictlyFalse(operand) => {
                let value = absorbed(self.node(operand))?;
                self.meter.charge(1)?;
                Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false)))))
            }
            Expression::And(one, other) => self.logical(one, other, false),
            Expression::Or(one, other) => self.logical(one, other, true),
            Expression::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                if truth(self.node(condition)?)? { self.node(yes) } else { self.node(no) }
            }
            Expression::Call { name, candidates, arguments } => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.node(argument)?);
                }
                let overload =
                    candidates.iter().find(|one| one.fits(&values)).ok_or_else(no_such_overload)?;
                let before = cost::of_call(name, &values);
                self.meter.charge(before)?;
                let result = (overload.run)(&values)?;
                self.meter.charge(cost::of_result(name, &result))?;
                Ok(result)
            }
            Expression::List(elements) => {
                let mut items = Vec::with_capacity(elements.len());
                for element in elements {
                    match (self.node(&element.value)?, element.optional) {
                        (value, false) => items.push(value),
                        (Value::Optional(value), true) => items.extend(value.map(|value| (*value).clone())),
                        _ => return Err(no_such_overload()),
                    }
                }
                self.meter.charge(cost::LIST_CREATE)?;
                Ok(items.into())
            }
            Expression::Map(entries) => {
                let mut map = BTreeMap::new();
                for entry in entries {
                    let key = self.node(&entry.key)?;
                    let value = match (self.node(&entry.value)?, entry.optional) {
                        (value, false) => value,
                        (Value::Optional(Some(value)), true) => (*value).clone(),
                        (Value::Optional(None), true) => continue,
                        _ => return Err(no_such_overload()),
                    };
                    if map.insert(Key::of(&key).map_err(|_| failed("unsupported key type"))?, value).is_some()
                    {
                        return Err(failed("Failed with repeated key"));
                    }
                }
                self.meter.charge(cost::MAP_CREATE)?;
                Ok(Value::Map(Arc::new(map)))
            }
            Expression::Made { ty, fields } => {
                let mut made = BTreeMap::new();
                for field in fields {
                    let value = match (self.node(&field.value)?, field.optional) {
                        (value, false) => value,
                        (Value::Optional(Some(value)), true) => (*value).clone(),
                        (Value::Optional(None), true) => continue,
                        _ => return Err(no_such_overload()),
                    };
                    made.insert(Arc::clone(&field.name), value);
                }
                self.meter.charge(cost::OBJECT_CREATE)?;
                Ok(Value::Made(Arc::new(Made { ty: Arc::clone(ty), fields: made })))
            }
            Expression::Fold(fold) => self.fold(fold),
            Expression::OptionalMap { target, body, flat } => {
                let target = self.node(target)?;
                self.meter.charge(1)?;
                let Value::Optional(value) = target else { return Err(no_such_overload()) };
                let Some(value) = value else { return Ok(Value::Optional(None)) };
                self.locals.push(Ok((*value).clone()));
                let result = self.node(body);
                self.locals.pop();
                Ok(if *flat { result? } else { Value::Optional(Some(Arc::new(result?))) })
            }
            Expression::OrValue { target, other, flat } => {
                let target = self.node(target)?;
                self.meter.charge(1)?;
                match target {
                    Value::Optional(Some(value)) if !*flat => Ok((*value).clone()),
                    Value::Optional(Some(_)) => Ok(target),
                    Value::Optional(None) => self.node(other),
                    _ => Err(no_such_overload()),
                }
            }
        }
    }

    fn composed(&mut self, index: usize) -> Result<Value<'a>, EvalError> {
        self.meter.charge(2 * cost::SELECT_AND_IDENT)?;
        if let Some(Some(known)) = self.inputs.known.get(index) {
            return known.clone();
        }
        let composed = self.inputs.composed;
        let result = match composed.get(index) {
            Some(Ok(program)) => evaluate(&program.root, self.inputs, self.meter),
            Some(Err(error)) => Err(failed(format!("composited variable failed to compile: {error}"))),
            None => Err(failed("no such attribute")),
        };
        if let Some(known) = self.inputs.known.get_mut(index) {
            *known = Some(result.clone());
        }
        result
    }

    /// `&&` is decided by `false`, `||` by `true`; an error counts only when the other side decides nothing.
    fn logical(&mut self, one: &Node, other: &Node, decides: bool) -> Result<Value<'a>, EvalError> {
        let first = absorbed(self.node(one))?.and_then(truth);
        if first == Ok(decides) {
            return Ok(Value::Bool(decides));
        }
        let second = absorbed(self.node(other))?.and_then(truth);
        match (first, second) {
            (_, Ok(second)) if second == decides => Ok(Value::Bool(decides)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(Value::Bool(!decides)),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Result<Value<'a>, EvalError> {
        let range = self.node(&fold.range)?;
        let items = match (range.items(), range.keys()) {
            (Some(items), _) => items,
            (None, Some(keys)) => keys.iter().map(Key::value).collect(),
            (None, None) => return Err(no_such_overload()),
        };
        let start = self.node(&fold.start)?;
        let depth = self.locals.len();
        self.locals.push(Ok(start));
        let is_list = range.items().is_some();
        for (index, item) in items.into_iter().enumerate() {
            if fold.two {
                let (first, second) = if is_list {
                    (Value::Int(index as i64), Some(item))
                } else {
                    let value = Key::of(&item)?;
                    (item, range.entry(&value))
                };
                self.locals.push(Ok(first));
                self.locals.push(second.ok_or_else(|| failed("no such key")));
            } else {
                self.locals.push(Ok(item));
            }
            let next = match self.node(&fold.condition) {
                Ok(Value::Bool(true)) => absorbed(self.step(&fold.step, depth)).map(Some),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            self.locals.truncate(depth + 1);
            match next {
                Ok(Some(value)) => self.locals[depth] = value,
                Ok(None) => break,
                Err(error) => {
                    self.locals.truncate(depth);
                    return Err(error);
                }
            }
        }
        let result = self.node(&fold.result);
        self.locals.truncate(depth);
        result
    }

    /// A step of a loop. Growing the accumulated list by one item does not copy it.
    fn step(&mut self, step: &Node, accumulator: usize) -> Result<Value<'a>, EvalError> {
        if let Expression::Conditional(parts) = &step.expression {
            let [condition, yes, no] = &**parts;
            return if truth(self.node(condition)?)? {
                self.step(yes, accumulator)
            } else {
                self.step(no, accumulator)
            };
        }
        if let Expression::Local(depth) = &step.expression
            && *depth == accumulator
        {
            self.meter.charge(cost::SELECT_AND_IDENT)?;
            return self.take(accumulator);
        }
        let Expression::Call { name, arguments, .. } = &step.expression else { return self.node(step) };
        if let [first, added @ ..] = arguments.as_slice()
            && **name == *MAP_INSERT
            && matches!(&first.expression, Expression::Local(depth) if *depth == accumulator)
        {
            let added = added.iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>()?;
            self.meter.charge(cost::SELECT_AND_IDENT + 1)?;
            return library::insert(self.take(accumulator)?, &added);
        }
        let ([first, second], "_+_") = (arguments.as_slice(), &**name) else { return self.node(step) };
        let (Expression::Local(depth), Expression::List(added)) = (&first.expression, &second.expression)
        else {
            return self.node(step);
        };
        if *depth != accumulator || added.len() != 1 || added[0].optional {
            return self.node(step);
        }
        let item = self.node(&added[0].value)?;
        self.meter.charge(cost::SELECT_AND_IDENT + cost::LIST_CREATE + 1)?;
        match self.take(accumulator)? {
            Value::List(mut items) => {
                Arc::make_mut(&mut items).push(item);
                Ok(Value::List(items))
            }
            _ => Err(no_such_overload()),
        }
    }

    fn take(&mut self, depth: usize) -> Result<Value<'a>, EvalError> {
        std::mem::replace(&mut self.locals[depth], Ok(Value::Null))
    }
}

fn select<'a>(operand: &Value<'a>, field: &str, mode: Select) -> Result<Value<'a>, EvalError> {
    if let Value::Optional(value) = operand {
        let found = value.as_ref().and_then(|value| value.field(field));
        return Ok(match mode {
            Select::Presence => Value::Bool(found.is_some()),
            Select::Value | Select::Optional => Value::Optional(found.map(Arc::new)),
        });
    }
    if !operand.has_entries() {
        return Err(no_such_overload());
    }
    let found = operand.field(field);
    match mode {
        Select::Presence => Ok(Value::Bool(found.is_some())),
        Select::Optional => Ok(Value::Optional(found.map(Arc::new))),
        Select::Value => found.ok_or_else(|| failed(format!("no such key: {field}"))),
    }
}

fn indexed<'a>(operand: &Value<'a>, index: &Value<'a>, optional: bool) -> Result<Value<'a>, EvalError> {
    if let Value::Optional(value) = operand {
        let Some(value) = value else { return Ok(Value::Optional(None)) };
        return indexed(value, index, true);
    }
    let is_list = matches!(operand, Value::List(_) | Value::JsonList(..));
    let key = Key::of(index).map_err(|_| no_such_overload())?;
    let found = match (&key, is_list) {
        (Key::Int(position), true) => {
            usize::try_from(*position).ok().and_then(|position| operand.item(position))
        }
        (_, false) if operand.has_entries() => operand.entry(&key),
        _ => return Err(no_such_overload()),
    };
    if optional {
        return Ok(Value::Optional(found.map(Arc::new)));
    }
    found.ok_or_else(|| match (key, is_list) {
        (Key::Int(position), true) => failed(format!("index out of bounds: {position}")),
        (Key::Int(key), _) => failed(format!("no such key: {key}")),
        (Key::Uint(key), _) => failed(format!("no such key: {key}")),
        (Key::Bool(key), _) => failed(format!("no such key: {key}")),
        (Key::String(key), _) => failed(format!("no such key: {}", &*key)),
    })
}
