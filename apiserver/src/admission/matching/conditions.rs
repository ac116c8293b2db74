//! Match conditions: expressions that all have to hold for a webhook or a policy to be meant.

use coracle_api::cel::admission::{Data, Known, compile};
use coracle_api::cel::{
    EvalError, Inputs, MATCH_CONDITIONS_COST_BUDGET, Meter, PER_CALL_LIMIT, Program, Type, Value as Found,
};
use coracle_api::kinds::access::{items, text};
use serde_json::Value;

/// What is said when all evaluations together have cost too much.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression that decides.
#[derive(Debug)]
pub struct Condition {
    text: String,
    program: Result<Program, String>,
}

/// Counts what the evaluations for one request cost together.
pub struct Budget(u64);

impl Budget {
    /// This much can be spent.
    pub fn new(limit: u64) -> Self {
        Self(limit)
    }

    /// Evaluates an expression.
    ///
    /// # Errors
    /// Why there is no value, and whether that was the budget.
    pub fn evaluate<'a>(
        &mut self,
        program: &Program,
        inputs: &mut Inputs<'a, '_>,
    ) -> Result<Result<Found<'a>, EvalError>, &'static str> {
        let mut meter = Meter::new(PER_CALL_LIMIT);
        let result = program.evaluate(inputs, &mut meter);
        self.0 = self.0.checked_sub(meter.spent()).ok_or(OUT_OF_BUDGET)?;
        Ok(result)
    }
}

/// The words for an expression that gave no value.
pub fn failure(expression: &str, error: &EvalError) -> String {
    format!("expression '{expression}' resulted in error: {error}")
}

/// The conditions of one webhook or policy.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// The `matchConditions` of an object.
    pub fn of(object: &Value, has_params: bool) -> Self {
        let list = items(object, "matchConditions");
        if list.is_empty() {
            return Self::default();
        }
        let environment = Known::nothing(has_params).environment(true);
        let condition = |one: &Value| Condition {
            text: text(one, "expression").to_owned(),
            program: compile(&environment, text(one, "expression"), &[Type::Bool]),
        };
        Self(list.iter().map(condition).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not counts more than one that cannot be evaluated.
    ///
    /// # Errors
    /// Why some could not be evaluated.
    pub fn hold(&self, data: &Data<'_>) -> Result<bool, String> {
        let mut budget = Budget::new(MATCH_CONDITIONS_COST_BUDGET);
        let mut inputs = Inputs::new(data.values());
        let mut errors = Vec::new();
        for condition in &self.0 {
            let program = match &condition.program {
                Ok(program) => program,
                Err(error) => {
                    errors.push(format!("compilation error: {error}"));
                    continue;
                }
            };
            match budget.evaluate(program, &mut inputs)? {
                Ok(Found::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(error) => errors.push(failure(&condition.text, &error)),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }
}
