//! Checks a parsed expression: every name is declared, every field exists, every function takes what it is given.

use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, StructExpr, operators,
};
use regex::Regex;

use super::node::{Element, Entry, Expression, Fold, MadeField, Node, Select};
use super::overload::{self, Overload};
use super::types::{Bindings, Type};
use super::value::{Text, Value};
use super::{CompileError, Environment, parse, patches};

/// How deep parts may be nested in one another.
const DEPTH_MAX: usize = 250;
/// Types that are values by their name.
const TYPE_NAMES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "dyn"];
const QUALIFIED_TYPE_NAMES: [&str; 2] = ["google.protobuf.Timestamp", "google.protobuf.Duration"];

/// Checks an expression against the variables of an environment.
pub(super) fn check(
    environment: &Environment,
    expression: &IdedExpr,
    source: &SourceInfo,
) -> Result<Node, CompileError> {
    let mut checker =
        Checker { environment, source, scope: Vec::new(), depth: 0, mixed: false, problems: Vec::new() };
    let node = checker.node(expression);
    if checker.problems.is_empty() {
        return Ok(node);
    }
    checker.problems.sort_by_key(|(offset, _)| *offset);
    let problems: Vec<String> = checker
        .problems
        .iter()
        .map(|(offset, message)| {
            let (line, column) = parse::place(&source.source, *offset);
            parse::problem(&source.source, line, column, message)
        })
        .collect();
    Err(CompileError(problems.join("\n")))
}

struct Checker<'e> {
    environment: &'e Environment,
    source: &'e SourceInfo,
    scope: Vec<(String, Type)>,
    depth: usize,
    /// Within the arguments of `format`, which may differ in type.
    mixed: bool,
    problems: Vec<(usize, String)>,
}

fn made(expression: Expression, ty: Type) -> Node {
    Node { expression, ty }
}

fn boxed(node: Node) -> Box<Node> {
    Box::new(node)
}

impl Checker<'_> {
    fn problem(&mut self, id: u64, message: String) -> Node {
        let offset = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        if !self.problems.iter().any(|known| known.0 == offset && known.1 == message) {
            self.problems.push((offset, message));
        }
        made(Expression::Literal(Value::Null), Type::Dyn)
    }

    fn node(&mut self, expression: &IdedExpr) -> Node {
        self.depth += 1;
        let node = if self.depth > DEPTH_MAX {
            self.problem(expression.id, format!("expression recursion limit exceeded: {DEPTH_MAX}"))
        } else {
            self.any(expression)
        };
        self.depth -= 1;
        node
    }

    fn any(&mut self, expression: &IdedExpr) -> Node {
        match &expression.expr {
            Expr::Unspecified => self.problem(expression.id, "unexpected expression".to_owned()),
            Expr::Literal(literal) => self::literal(literal),
            Expr::Ident(name) => self.identifier(expression.id, name),
            Expr::Select(select) => {
                if let Some(node) = self.qualified(expression) {
                    return node;
                }
                let mode = if select.test { Select::Presence } else { Select::Value };
                let operand = self.node(&select.operand);
                self.select(expression.id, operand, &select.field, mode)
            }
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => {
                let mut item: Option<Type> = None;
                let mut items = Vec::new();
                for (index, element) in list.elements.iter().enumerate() {
                    let value = self.node(element);
                    let optional = list.optional_indices.contains(&index);
                    let ty = if optional { self.inside(element.id, &value.ty) } else { value.ty.clone() };
                    item = Some(self.same(element.id, item, ty));
                    items.push(Element { value, optional });
                }
                made(Expression::List(items), Type::List(Arc::new(item.unwrap_or(Type::Dyn))))
            }
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(structure) => self.structure(expression.id, structure),
            Expr::Comprehension(fold) => self.fold(fold),
        }
    }

    fn map(&mut self, entries: &[cel::common::ast::IdedEntryExpr]) -> Node {
        let (mut keys, mut values): (Option<Type>, Option<Type>) = (None, None);
        let mut made_entries = Vec::new();
        for entry in entries {
            let EntryExpr::MapEntry(pair) = &entry.expr else { continue };
            let (key, value) = (self.node(&pair.key), self.node(&pair.value));
            keys = Some(self.same(pair.key.id, keys, key.ty.clone()));
            let ty = if pair.optional { self.inside(pair.value.id, &value.ty) } else { value.ty.clone() };
            values = Some(self.same(pair.value.id, values, ty));
            made_entries.push(Entry { key, value, optional: pair.optional });
        }
        let part = |ty: Option<Type>| Arc::new(ty.unwrap_or(Type::Dyn));
        made(Expression::Map(made_entries), Type::Map(part(keys), part(values)))
    }

    /// An object of one of the types that patches are made of.
    fn structure(&mut self, id: u64, structure: &StructExpr) -> Node {
        let name = structure.type_name.as_str();
        if !self.environment.makes_patches || !patches::is_type(name) {
            return self.problem(id, format!("undeclared reference to '{name}' (in container '')"));
        }
        let mut fields = Vec::new();
        for entry in &structure.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let value = self.node(&field.value);
            let given =
                if field.optional { self.inside(field.value.id, &value.ty) } else { value.ty.clone() };
            match patches::field_type(name, &field.field) {
                None => {
                    self.problem(entry.id, format!("undefined field '{}'", field.field));
                }
                Some(wanted) if !wanted.takes(&given) => {
                    let text = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{given}'",
                        field.field
                    );
                    self.problem(entry.id, text);
                }
                Some(_) => {}
            }
            fields.push(MadeField { name: field.field.as_str().into(), value, optional: field.optional });
        }
        let ty: Arc<str> = name.into();
        made(Expression::Made { ty: Arc::clone(&ty), fields }, Type::Made(ty))
    }

    /// All items of a literal have one type, but for what is formatted.
    fn same(&mut self, id: u64, before: Option<Type>, now: Type) -> Type {
        match before {
            None => now,
            Some(before) if before == now => now,
            Some(Type::Dyn) | Some(_) if now == Type::Dyn => Type::Dyn,
            Some(before) if before.takes(&now) => before,
            Some(before) if now.takes(&before) => now,
            Some(_) if self.mixed => Type::Dyn,
            Some(before) => {
                self.problem(id, format!("expected type '{before}' but found '{now}'"));
                Type::Dyn
            }
        }
    }

    /// What an optional holds.
    fn inside(&mut self, id: u64, ty: &Type) -> Type {
        match ty {
            Type::Optional(value) => (**value).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                self.problem(id, format!("expected type 'optional_type({other})' but found '{other}'"));
                Type::Dyn
            }
        }
    }

    fn identifier(&mut self, id: u64, name: &str) -> Node {
        if let Some(depth) = self.scope.iter().rposition(|(known, _)| known == name) {
            let ty = self.scope[depth].1.clone();
            return made(Expression::Local(depth), ty);
        }
        let variables = &self.environment.variables;
        if let Some(index) = variables.iter().position(|(known, _)| *known == name) {
            return made(Expression::Input(index), variables[index].1.ty.clone());
        }
        if TYPE_NAMES.contains(&name) {
            return made(Expression::Literal(Value::Type(name.into())), Type::Type);
        }
        self.problem(id, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn is_declared(&self, name: &str) -> bool {
        self.scope.iter().any(|(known, _)| known == name)
            || self.environment.variables.iter().any(|(known, _)| *known == name)
            || (name == "variables" && self.environment.composed.is_some())
    }

    /// Names with dots that are one thing: types, and what `variables` has.
    fn qualified(&mut self, expression: &IdedExpr) -> Option<Node> {
        let name = dotted(expression)?;
        if QUALIFIED_TYPE_NAMES.contains(&name.as_str()) {
            return Some(made(Expression::Literal(Value::Type(name.as_str().into())), Type::Type));
        }
        let variables = &self.environment.variables;
        if let Some(index) = variables.iter().position(|(known, _)| *known == name) {
            return Some(made(Expression::Input(index), variables[index].1.ty.clone()));
        }
        let (Expr::Select(select), Some(composed)) = (&expression.expr, &self.environment.composed) else {
            return None;
        };
        if select.operand.expr != Expr::Ident("variables".to_owned()) {
            return None;
        }
        let Some(index) = composed.iter().rposition(|(known, _)| *known == select.field) else {
            return Some(self.problem(expression.id, format!("undefined field '{}'", select.field)));
        };
        let ty = composed[index].1.clone();
        Some(made(Expression::Composed(index), ty))
    }

    fn select(&mut self, id: u64, operand: Node, field: &str, mode: Select) -> Node {
        let (outer, wrapped) = match &operand.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let ty = match &outer {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Made(name) => match patches::field_type(name, field) {
                Some(ty) => ty,
                None => return self.problem(id, format!("undefined field '{field}'")),
            },
            Type::Object(object) => match object.fields.get(field) {
                Some(found) => found.shape.ty.clone(),
                None => return self.problem(id, format!("undefined field '{field}'")),
            },
            other => return self.problem(id, format!("type '{other}' does not support field selection")),
        };
        let ty = match mode {
            Select::Presence => Type::Bool,
            Select::Optional => Type::Optional(Arc::new(ty)),
            Select::Value if wrapped => Type::Optional(Arc::new(ty)),
            Select::Value => ty,
        };
        made(Expression::Select { operand: boxed(operand), field: field.into(), mode }, ty)
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Node {
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, None, [one, other]) => {
                let (one, other) = (self.boolean("_&&_", one), self.boolean("_&&_", other));
                made(Expression::And(boxed(one), boxed(other)), Type::Bool)
            }
            (operators::LOGICAL_OR, None, [one, other]) => {
                let (one, other) = (self.boolean("_||_", one), self.boolean("_||_", other));
                made(Expression::Or(boxed(one), boxed(other)), Type::Bool)
            }
            (operators::LOGICAL_NOT, None, [operand]) => {
                let operand = self.boolean("!_", operand);
                made(Expression::Not(boxed(operand)), Type::Bool)
            }
            (operators::NOT_STRICTLY_FALSE, None, [operand]) => {
                let operand = self.node(operand);
                made(Expression::NotStrictlyFalse(boxed(operand)), Type::Bool)
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let condition = self.boolean("_?_:_", condition);
                let (yes, no) = (self.node(yes), self.node(no));
                let ty = if yes.is_empty_list() && yes.ty.takes(&no.ty) {
                    no.ty.clone()
                } else if yes.ty.takes(&no.ty) {
                    if yes.ty == Type::Null { no.ty.clone() } else { yes.ty.clone() }
                } else if no.ty.takes(&yes.ty) {
                    no.ty.clone()
                } else {
                    let text = no_overload("_?_:_", &[Type::Bool, yes.ty, no.ty]);
                    return self.problem(id, text);
                };
                made(Expression::Conditional(Box::new([condition, yes, no])), ty)
            }
            (operators::INDEX, None, [operand, index]) => self.index(id, operand, index, false),
            (operators::OPT_INDEX, None, [operand, index]) => self.index(id, operand, index, true),
            (operators::OPT_SELECT, None, [operand, field]) => {
                let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
                    return self.problem(id, "unsupported optional field selection".to_owned());
                };
                let operand = self.node(operand);
                self.select(id, operand, field.inner(), Select::Optional)
            }
            ("optMap" | "optFlatMap", Some(target), [variable, body]) => {
                self.optional_map(id, &call.func_name, target, variable, body)
            }
            ("orValue" | "or", Some(target), [other]) => {
                let (target, other) = (self.node(target), self.node(other));
                let flat = call.func_name == "or";
                let inner = match &target.ty {
                    Type::Optional(inner) => (**inner).clone(),
                    Type::Dyn => Type::Dyn,
                    _ => return self.problem(id, no_overload(&call.func_name, &[target.ty, other.ty])),
                };
                let wanted = if flat { Type::Optional(Arc::new(inner)) } else { inner };
                if !wanted.takes(&other.ty) && !other.ty.takes(&wanted) {
                    return self.problem(id, no_overload(&call.func_name, &[target.ty, other.ty]));
                }
                let ty = if wanted == Type::Dyn { other.ty.clone() } else { wanted };
                made(Expression::OrValue { target: boxed(target), other: boxed(other), flat }, ty)
            }
            (name, target, arguments) => self.function(id, name, target, arguments),
        }
    }

    fn boolean(&mut self, function: &str, operand: &IdedExpr) -> Node {
        let node = self.node(operand);
        if !Type::Bool.takes(&node.ty) {
            let text = format!("expected type 'bool' but found '{}'", node.ty);
            return self
                .problem(operand.id, if function == "!_" { no_overload("!_", &[node.ty]) } else { text });
        }
        node
    }

    fn index(&mut self, id: u64, operand: &IdedExpr, index: &IdedExpr, optional: bool) -> Node {
        let (operand, index) = (self.node(operand), self.node(index));
        let (outer, wrapped) = match &operand.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let ty = match &outer {
            Type::Dyn => Some(Type::Dyn),
            Type::List(item) if Type::Int.takes(&index.ty) => Some((**item).clone()),
            Type::Map(key, value) if key.takes(&index.ty) => Some((**value).clone()),
            _ => None,
        };
        let Some(ty) = ty else {
            let name = if optional { "_[?_]" } else { "_[_]" };
            return self.problem(id, no_overload(name, &[operand.ty, index.ty]));
        };
        let ty = if optional || wrapped { Type::Optional(Arc::new(ty)) } else { ty };
        made(Expression::Index { operand: boxed(operand), index: boxed(index), optional }, ty)
    }

    fn optional_map(
        &mut self,
        id: u64,
        name: &str,
        target: &IdedExpr,
        variable: &IdedExpr,
        body: &IdedExpr,
    ) -> Node {
        let flat = name == "optFlatMap";
        let target = self.node(target);
        let Expr::Ident(variable_name) = &variable.expr else {
            return self.problem(variable.id, format!("{name}() variable name must be a simple identifier"));
        };
        let inner = match &target.ty {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn => Type::Dyn,
            _ => return self.problem(id, no_overload(name, &[target.ty])),
        };
        self.scope.push((variable_name.clone(), inner));
        let body = self.node(body);
        self.scope.pop();
        let ty = match (flat, &body.ty) {
            (false, ty) => Type::Optional(Arc::new(ty.clone())),
            (true, ty @ (Type::Optional(_) | Type::Dyn)) => ty.clone(),
            (true, ty) => return self.problem(id, no_overload(name, std::slice::from_ref(ty))),
        };
        made(Expression::OptionalMap { target: boxed(target), body: boxed(body), flat }, ty)
    }

    fn function(&mut self, id: u64, name: &str, target: Option<&IdedExpr>, given: &[IdedExpr]) -> Node {
        // A call on a name that is no variable is the call of a function with dots in its name.
        let qualified = target.and_then(dotted).filter(|path| {
            let first = path.split('.').next().unwrap_or_default();
            !self.is_declared(first) && !overload::named(&format!("{path}.{name}")).is_empty()
        });
        let (full, target) = match &qualified {
            Some(path) => (format!("{path}.{name}"), None),
            None => (name.to_owned(), target),
        };
        let member = target.is_some();
        let known: Vec<&'static Overload> =
            overload::named(&full).iter().filter(|one| one.member == member).collect();
        let mut arguments: Vec<Node> = target.into_iter().map(|target| self.node(target)).collect();
        let before = std::mem::replace(&mut self.mixed, full == "format");
        arguments.extend(given.iter().map(|argument| self.node(argument)));
        self.mixed = before;
        let is_withheld = full.starts_with(patches::LIBRARY) && !self.environment.makes_patches;
        if overload::named(&full).is_empty() || is_withheld {
            return self.problem(id, format!("undeclared reference to '{full}' (in container '')"));
        }
        let mut candidates = Vec::new();
        let mut ty: Option<Type> = None;
        for one in known {
            let mut bindings = Bindings::default();
            let fits = one.parameters.len() == arguments.len()
                && one
                    .parameters
                    .iter()
                    .zip(&arguments)
                    .all(|(wanted, node)| bindings.accepts(wanted, &node.ty));
            if fits {
                let result = bindings.fill(&one.result);
                ty = Some(ty.map_or(result.clone(), |ty| ty.join(&result)));
                candidates.push(one);
            }
        }
        // An empty list takes the type of what it is added to.
        if let ("_+_", [first, second]) = (full.as_str(), arguments.as_slice())
            && first.is_empty_list()
            && ty.is_some()
        {
            ty = Some(second.ty.clone());
        }
        let Some(ty) = ty else {
            let types: Vec<Type> = arguments.into_iter().map(|node| node.ty).collect();
            let applied = if member { no_method(&full, &types) } else { no_overload(&full, &types) };
            return self.problem(id, applied);
        };
        if matches!(full.as_str(), "matches" | "find" | "findAll")
            && let Some(pattern) = arguments.get_mut(1)
            && let Expression::Literal(Value::String(text)) = &pattern.expression
        {
            match super::library::regex::compile(text) {
                Ok(regex) => {
                    pattern.expression = Expression::Literal(Value::Pattern(Arc::<Regex>::new(regex)))
                }
                Err(error) => return self.problem(id, error.to_string()),
            }
        }
        made(Expression::Call { name: full.into(), candidates, arguments }, ty)
    }

    fn fold(&mut self, fold: &ComprehensionExpr) -> Node {
        let range = self.node(&fold.iter_range);
        let two = fold.iter_var2.as_deref();
        let (item, second) = match &range.ty {
            Type::List(item) if two.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.problem(fold.iter_range.id, text);
            }
        };
        let start = self.node(&fold.accu_init);
        let before = self.scope.len();
        // An empty list takes the type of what is added to it.
        let empty = matches!(&start.expression, Expression::List(items) if items.is_empty());
        self.scope.push((fold.accu_var.clone(), start.ty.clone()));
        self.scope.push((fold.iter_var.clone(), item));
        self.scope.extend(two.map(|name| (name.to_owned(), second)));
        let condition = self.node(&fold.loop_cond);
        let step = self.node(&fold.loop_step);
        self.scope.truncate(before);
        let ty = if empty { grown(&step) } else { start.ty.clone() };
        self.scope.push((fold.accu_var.clone(), ty));
        let result = self.node(&fold.result);
        self.scope.truncate(before);
        let ty = result.ty.clone();
        made(
            Expression::Fold(Box::new(Fold { range, two: two.is_some(), start, condition, step, result })),
            ty,
        )
    }
}

/// The type of the list that a step makes of an empty one.
fn grown(step: &Node) -> Type {
    match &step.expression {
        Expression::Conditional(parts) => grown(&parts[1]),
        Expression::Call { arguments, .. } => arguments.last().map_or(Type::Dyn, |last| last.ty.clone()),
        _ => step.ty.clone(),
    }
}

fn dotted(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", dotted(&select.operand)?, select.field))
        }
        _ => None,
    }
}

fn literal(literal: &LiteralValue) -> Node {
    let (value, ty) = match literal {
        LiteralValue::Null => (Value::Null, Type::Null),
        LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Type::Bool),
        LiteralValue::Int(value) => (Value::Int(*value.inner()), Type::Int),
        LiteralValue::UInt(value) => (Value::Uint(*value.inner()), Type::Uint),
        LiteralValue::Double(value) => (Value::Double(*value.inner()), Type::Double),
        LiteralValue::String(text) => (Value::String(Text::Shared(text.inner().into())), Type::String),
        LiteralValue::Bytes(bytes) => (Value::Bytes(bytes.inner().into()), Type::Bytes),
    };
    made(Expression::Literal(value), ty)
}

fn listed(types: &[Type]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn no_overload(name: &str, types: &[Type]) -> String {
    format!("found no matching overload for '{name}' applied to '({})'", listed(types))
}

fn no_method(name: &str, types: &[Type]) -> String {
    match types.split_first() {
        Some((target, rest)) => {
            format!("found no matching overload for '{name}' applied to '{target}.({})'", listed(rest))
        }
        None => no_overload(name, types),
    }
}
