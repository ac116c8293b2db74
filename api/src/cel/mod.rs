//! The Common Expression Language as Kubernetes has it: expressions are checked against declared variables when they are written, and evaluated within
//! a budget of cost, so that none runs for long. Pure: what an expression may ask of the outside (permissions) is handed in.
//!
//! Parsing is the crate `cel`'s; types, functions, evaluation and cost are counted here (see `docs/decisions/cel.md`).

pub mod admission;
mod check;
mod cost;
mod estimate;
mod eval;
mod json;
mod library;
mod macros;
mod names;
mod node;
mod overload;
mod parse;
mod patches;
mod types;
mod value;

use std::fmt;
use std::sync::Arc;

pub use library::authorizer::{Authorization, Authorizer, Question};
pub use names::escape;
pub use patches::{JSON_PATCH, OBJECT};
pub use types::{Field, ObjectType, Shape, Type};
pub use value::{Key, Made, Text, Value};

use node::Node;

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations of one request for a custom resource, or for one policy, may cost.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// What all match conditions of one webhook or policy may cost.
pub const MATCH_CONDITIONS_COST_BUDGET: u64 = 2_500_000;
/// The most bytes that a request can have, from which the sizes of unbounded data are estimated.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// The most bytes of a message that an expression makes.
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// Why an expression was refused, in the words that follow `compilation failed: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError(pub String);

impl fmt::Display for CompileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// No function takes these values.
    NoSuchOverload,
    /// It would have cost more than it may.
    CostLimitExceeded,
    /// Anything else, in upstream's words.
    Failed(Arc<str>),
}

impl fmt::Display for EvalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            EvalError::NoSuchOverload => "no such overload",
            EvalError::CostLimitExceeded => "operation cancelled: actual cost limit exceeded",
            EvalError::Failed(text) => text,
        })
    }
}

fn no_such_overload() -> EvalError {
    EvalError::NoSuchOverload
}

fn failed(text: impl Into<Arc<str>>) -> EvalError {
    EvalError::Failed(text.into())
}

/// Counts what an evaluation costs.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    spent: u64,
    limit: u64,
}

impl Meter {
    /// Nothing is spent yet.
    pub fn new(limit: u64) -> Meter {
        Meter { spent: 0, limit }
    }

    /// What was spent.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(EvalError::CostLimitExceeded) } else { Ok(()) }
    }
}

/// The variables that expressions may use.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(&'static str, Shape)>,
    composed: Option<Vec<(String, Type)>>,
    makes_patches: bool,
}

impl Environment {
    /// No variables.
    pub fn new() -> Environment {
        Environment::default()
    }

    /// The same with one variable more. Values are handed to [`Program::evaluate`] in the order of declaration.
    #[must_use]
    pub fn with(mut self, name: &'static str, shape: Shape) -> Environment {
        self.variables.push((name, shape));
        self
    }

    /// The same with `variables`, whose fields are expressions of their own: see [`Environment::compose`].
    #[must_use]
    pub fn with_variables(mut self) -> Environment {
        self.composed.get_or_insert_default();
        self
    }

    /// The same with the types and functions that patches are made of: `Object{…}`, `JSONPatch{…}`, `jsonpatch.escapeKey`.
    #[must_use]
    pub fn with_patches(mut self) -> Environment {
        self.makes_patches = true;
        self
    }

    /// Declares `variables.NAME`, which is evaluated when it is first used; of a name that is declared twice the last counts.
    pub fn compose(&mut self, name: &str, ty: Type) {
        self.composed.get_or_insert_default().push((name.to_owned(), ty));
    }

    /// Reads and checks an expression.
    ///
    /// # Errors
    /// All that is wrong with it, with the places.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let root = parse::with_stack(|| {
            let (expression, source) = parse::parse(text)?;
            check::check(self, &expression, &source)
        })?;
        let estimate = estimate::estimate(&root, &self.variables);
        Ok(Program { root, names: self.variables.iter().map(|(name, _)| *name).collect(), estimate })
    }
}

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Program {
    root: Node,
    names: Vec<&'static str>,
    estimate: u64,
}

/// What variables hold during an evaluation.
pub struct Inputs<'a, 'p> {
    values: Vec<Option<Value<'a>>>,
    composed: &'p [Result<Program, CompileError>],
    known: Vec<Option<Result<Value<'a>, EvalError>>>,
}

impl<'a, 'p> Inputs<'a, 'p> {
    /// Values in the order in which the variables were declared; `None` for what is not there.
    pub fn new(values: Vec<Option<Value<'a>>>) -> Self {
        Inputs { values, composed: &[], known: Vec::new() }
    }

    /// The expressions behind `variables`, in the order in which they were declared. What they give is kept.
    #[must_use]
    pub fn with_variables(mut self, composed: &'p [Result<Program, CompileError>]) -> Self {
        self.known = vec![None; composed.len()];
        self.composed = composed;
        self
    }
}

impl Program {
    /// Evaluates the expression.
    ///
    /// # Errors
    /// What went wrong, or that it costs more than `meter` allows.
    pub fn evaluate<'a>(
        &self,
        inputs: &mut Inputs<'a, '_>,
        meter: &mut Meter,
    ) -> Result<Value<'a>, EvalError> {
        eval::evaluate(&self.root, inputs, meter)
    }

    /// The type of what it gives.
    pub fn ty(&self) -> &Type {
        &self.root.ty
    }

    /// Whether it reads a variable.
    pub fn uses(&self, name: &str) -> bool {
        let index = self.names.iter().position(|known| *known == name);
        index.is_some_and(|index| self.root.reads(index))
    }

    /// The most that an evaluation can cost, as far as the sizes of what it reads are known.
    pub fn estimate(&self) -> u64 {
        self.estimate
    }
}

#[cfg(test)]
mod tests;
