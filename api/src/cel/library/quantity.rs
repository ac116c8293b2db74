//! Quantities of resources.

use super::super::overload::Row;
use super::super::value::Value;
use super::super::{EvalError, failed, no_such_overload};
use super::text;
use crate::quantity::{Format, Quantity};

pub(super) const ROWS: &[Row] = &[
    ("quantity(string): kubernetes.Quantity", |values| {
        let parsed = text(values, 0)?.parse::<Quantity>();
        parsed.map(Value::Quantity).map_err(|error| failed(error.to_string()))
    }),
    ("isQuantity(string): bool", |values| Ok(text(values, 0)?.parse::<Quantity>().is_ok().into())),
    (".sign(kubernetes.Quantity): int", |values| {
        let quantity = of(values, 0)?;
        Ok(Value::Int(if quantity.is_zero() {
            0
        } else if quantity.is_negative() {
            -1
        } else {
            1
        }))
    }),
    (".isInteger(kubernetes.Quantity): bool", |values| Ok(of(values, 0)?.is_integer().into())),
    (".asInteger(kubernetes.Quantity): int", |values| {
        let quantity = of(values, 0)?;
        if quantity.is_integer() {
            Ok(Value::Int(quantity.value()))
        } else {
            Err(failed("cannot convert value to integer"))
        }
    }),
    (".asApproximateFloat(kubernetes.Quantity): double", |values| {
        Ok(Value::Double(of(values, 0)?.approximate()))
    }),
    (".isGreaterThan(kubernetes.Quantity, kubernetes.Quantity): bool", |values| {
        Ok((of(values, 0)? > of(values, 1)?).into())
    }),
    (".isLessThan(kubernetes.Quantity, kubernetes.Quantity): bool", |values| {
        Ok((of(values, 0)? < of(values, 1)?).into())
    }),
    (".compareTo(kubernetes.Quantity, kubernetes.Quantity): int", |values| {
        Ok(Value::Int(of(values, 0)?.cmp(&of(values, 1)?) as i64))
    }),
    (".add(kubernetes.Quantity, kubernetes.Quantity): kubernetes.Quantity", |values| {
        Ok(Value::Quantity(of(values, 0)?.saturating_add(of(values, 1)?)))
    }),
    (".add(kubernetes.Quantity, int): kubernetes.Quantity", |values| {
        Ok(Value::Quantity(of(values, 0)?.saturating_add(of(values, 1)?)))
    }),
    (".sub(kubernetes.Quantity, kubernetes.Quantity): kubernetes.Quantity", |values| {
        Ok(Value::Quantity(of(values, 0)?.saturating_sub(of(values, 1)?)))
    }),
    (".sub(kubernetes.Quantity, int): kubernetes.Quantity", |values| {
        Ok(Value::Quantity(of(values, 0)?.saturating_sub(of(values, 1)?)))
    }),
];

fn of(values: &[Value<'_>], index: usize) -> Result<Quantity, EvalError> {
    match values.get(index) {
        Some(Value::Quantity(quantity)) => Ok(*quantity),
        Some(Value::Int(units)) => Ok(Quantity::from_units(*units, Format::DecimalSi)),
        _ => Err(no_such_overload()),
    }
}
