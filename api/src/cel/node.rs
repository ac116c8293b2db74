//! A checked expression: names are resolved, functions are those that may be called, every node has a type.

use std::sync::Arc;

use super::overload::Overload;
use super::types::Type;
use super::value::Value;

/// A part of an expression.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) expression: Expression,
    /// The type of its value.
    pub(super) ty: Type,
}

/// The sorts of parts.
#[derive(Debug)]
pub(super) enum Expression {
    Literal(Value<'static>),
    /// A declared variable.
    Input(usize),
    /// A variable that is an expression of its own.
    Composed(usize),
    /// What a loop or a macro has bound, by depth.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        mode: Select,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    Not(Box<Node>),
    /// Everything but `false` goes on, errors too: the condition of loops.
    NotStrictlyFalse(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    Call {
        name: Arc<str>,
        candidates: Vec<&'static Overload>,
        arguments: Vec<Node>,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    /// `TYPE{field: value}`.
    Made {
        ty: Arc<str>,
        fields: Vec<MadeField>,
    },
    Fold(Box<Fold>),
    /// `optional.optMap(x, y)`, or with `flat` `optFlatMap`.
    OptionalMap {
        target: Box<Node>,
        body: Box<Node>,
        flat: bool,
    },
    /// `optional.orValue(x)`, or with `flat` `or`: the second is evaluated only when it is needed.
    OrValue {
        target: Box<Node>,
        other: Box<Node>,
        flat: bool,
    },
}

/// What a selection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// The field.
    Value,
    /// Whether it is there.
    Presence,
    /// The field as an optional.
    Optional,
}

/// An item of a list.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) value: Node,
    /// Left out when it is an optional without value.
    pub(super) optional: bool,
}

/// An entry of a map.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Node,
    pub(super) value: Node,
    /// Left out when it is an optional without value.
    pub(super) optional: bool,
}

/// A field of an object that is made.
#[derive(Debug)]
pub(super) struct MadeField {
    pub(super) name: Arc<str>,
    pub(super) value: Node,
    /// Left out when it is an optional without value.
    pub(super) optional: bool,
}

/// A loop. The accumulator is bound first, the item (or key) after it; with `two` variables the index (or key), then the item (or value).
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) range: Node,
    pub(super) two: bool,
    pub(super) start: Node,
    pub(super) condition: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

impl Node {
    /// Whether it is `[]`, whose items have no type of their own.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.expression, Expression::List(items) if items.is_empty())
    }

    /// Whether any part reads the declared variable at this index.
    pub(super) fn reads(&self, index: usize) -> bool {
        match &self.expression {
            Expression::Literal(_) | Expression::Composed(_) | Expression::Local(_) => false,
            Expression::Input(read) => *read == index,
            Expression::Select { operand, .. } => operand.reads(index),
            Expression::Not(operand) | Expression::NotStrictlyFalse(operand) => operand.reads(index),
            Expression::And(one, other)
            | Expression::Or(one, other)
            | Expression::Index { operand: one, index: other, .. }
            | Expression::OptionalMap { target: one, body: other, .. }
            | Expression::OrValue { target: one, other, .. } => one.reads(index) || other.reads(index),
            Expression::Conditional(parts) => parts.iter().any(|part| part.reads(index)),
            Expression::Call { arguments, .. } => arguments.iter().any(|argument| argument.reads(index)),
            Expression::List(items) => items.iter().any(|item| item.value.reads(index)),
            Expression::Map(entries) => {
                entries.iter().any(|entry| entry.key.reads(index) || entry.value.reads(index))
            }
            Expression::Made { fields, .. } => fields.iter().any(|field| field.value.reads(index)),
            Expression::Fold(fold) => [&fold.range, &fold.start, &fold.condition, &fold.step, &fold.result]
                .iter()
                .any(|part| part.reads(index)),
        }
    }
}
