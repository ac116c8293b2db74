//! How much an expression can cost at most, from the sizes that its data can have. The same sums as upstream's, so that the same rules are refused.

use super::cost::{self, scaled};
use super::node::{Expression, Fold, Node, Select};
use super::types::{Shape, Type};
use super::value::Value;

/// The most that evaluating `node` can cost.
pub(super) fn estimate(node: &Node, variables: &[(&'static str, Shape)]) -> u64 {
    Estimation { variables, locals: Vec::new() }.node(node).cost
}

/// What is known of a part: what it costs, and how large its value is.
#[derive(Clone, Debug)]
struct Estimate {
    cost: u64,
    extent: Extent,
}

/// How large a value can be, and where it comes from if it is data.
#[derive(Clone, Debug)]
struct Extent {
    size: u64,
    shape: Option<Shape>,
    /// The size of items, where no shape tells it.
    items: Option<u64>,
}

impl Extent {
    fn of(size: u64) -> Extent {
        Extent { size, shape: None, items: None }
    }

    fn shaped(shape: &Shape) -> Extent {
        Extent { size: shape.size_max, shape: Some(shape.clone()), items: None }
    }

    /// What is known from a type alone.
    fn of_type(ty: &Type) -> Extent {
        Extent::of(match ty {
            Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Timestamp
            | Type::Duration
            | Type::Null
            | Type::Type => 1,
            _ => u64::MAX,
        })
    }

    fn element(&self, ty: &Type) -> Extent {
        let shape = self.shape.as_ref().and_then(|shape| shape.element.as_deref());
        match (shape, self.items) {
            (Some(shape), _) => Extent::shaped(shape),
            (None, Some(size)) => Extent::of(size),
            (None, None) => Extent::of_type(ty),
        }
    }
}

struct Estimation<'e> {
    variables: &'e [(&'static str, Shape)],
    locals: Vec<Extent>,
}

fn made(cost: u64, extent: Extent) -> Estimate {
    Estimate { cost, extent }
}

impl Estimation<'_> {
    fn node(&mut self, node: &Node) -> Estimate {
        match &node.expression {
            Expression::Literal(value) => made(0, literal(value, &node.ty)),
            Expression::Local(depth) => {
                let known = self.locals.get(*depth).cloned();
                made(cost::SELECT_AND_IDENT, known.unwrap_or_else(|| Extent::of_type(&node.ty)))
            }
            Expression::Input(index) => {
                let shape = self.variables.get(*index).map(|(_, shape)| shape);
                made(cost::SELECT_AND_IDENT, shape.map_or(Extent::of(u64::MAX), Extent::shaped))
            }
            Expression::Composed(_) => made(2 * cost::SELECT_AND_IDENT, Extent::of_type(&node.ty)),
            Expression::Select { operand, field, mode } => {
                let ty = operand.ty.clone();
                let operand = self.node(operand);
                if *mode == Select::Presence {
                    return made(operand.cost, Extent::of(1));
                }
                let read = matches!(ty, Type::Map(..) | Type::Object(_) | Type::Optional(_));
                let shape = operand.extent.shape.as_ref().and_then(|shape| shape.field(field));
                let extent = shape.as_ref().map_or_else(|| Extent::of_type(&node.ty), Extent::shaped);
                made(operand.cost.saturating_add(u64::from(read)), extent)
            }
            Expression::Index { operand, index, .. } => {
                let (operand, index) = (self.node(operand), self.node(index));
                let extent = operand.extent.element(&node.ty);
                made(operand.cost.saturating_add(index.cost).saturating_add(1), extent)
            }
            Expression::Not(operand) | Expression::NotStrictlyFalse(operand) => {
                made(self.node(operand).cost.saturating_add(1), Extent::of(1))
            }
            Expression::And(one, other) | Expression::Or(one, other) => {
                made(self.node(one).cost.saturating_add(self.node(other).cost), Extent::of(1))
            }
            Expression::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let condition = self.node(condition);
                let (yes, no) = (self.node(yes), self.node(no));
                let extent = larger(yes.extent, no.extent);
                made(condition.cost.saturating_add(yes.cost.max(no.cost)), extent)
            }
            Expression::Call { name, arguments, .. } => {
                let ty = arguments.first().map(|first| first.ty.clone());
                let mut total = 0_u64;
                let mut extents = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let estimate = self.node(argument);
                    total = total.saturating_add(estimate.cost);
                    extents.push(estimate.extent);
                }
                let (cost, extent) = call(name, ty.as_ref(), &extents, &node.ty);
                made(total.saturating_add(cost), extent)
            }
            Expression::List(elements) => {
                let (mut total, mut largest) = (cost::LIST_CREATE, 0);
                for element in elements {
                    let estimate = self.node(&element.value);
                    total = total.saturating_add(estimate.cost);
                    largest = largest.max(estimate.extent.size);
                }
                made(total, Extent { size: elements.len() as u64, shape: None, items: Some(largest) })
            }
            Expression::Map(entries) => {
                let (mut total, mut largest) = (cost::MAP_CREATE, 0);
                for entry in entries {
                    let (key, value) = (self.node(&entry.key), self.node(&entry.value));
                    total = total.saturating_add(key.cost).saturating_add(value.cost);
                    largest = largest.max(value.extent.size);
                }
                made(total, Extent { size: entries.len() as u64, shape: None, items: Some(largest) })
            }
            Expression::Made { fields, .. } => {
                let costs = fields.iter().map(|field| self.node(&field.value).cost);
                let total = costs.fold(cost::OBJECT_CREATE, u64::saturating_add);
                made(total, Extent::of(fields.len() as u64))
            }
            Expression::Fold(fold) => self.fold(fold),
            Expression::OptionalMap { target, body, .. } => {
                let target = self.node(target);
                self.locals.push(target.extent);
                let body = self.node(body);
                self.locals.pop();
                made(target.cost.saturating_add(body.cost).saturating_add(1), body.extent)
            }
            Expression::OrValue { target, other, .. } => {
                let (target, other) = (self.node(target), self.node(other));
                let extent = larger(target.extent, other.extent);
                made(target.cost.saturating_add(other.cost).saturating_add(1), extent)
            }
        }
    }

    fn fold(&mut self, fold: &Fold) -> Estimate {
        let range = self.node(&fold.range);
        let start = self.node(&fold.start);
        let item = match &fold.range.ty {
            Type::List(item) => range.extent.element(item),
            // Keys of declared maps have no declared length.
            _ if range.extent.shape.is_some() => Extent::of(0),
            _ => Extent::of(u64::MAX),
        };
        let before = self.locals.len();
        self.locals.push(start.extent.clone());
        if fold.two {
            // The index or key; then the item or value.
            let first = if matches!(fold.range.ty, Type::List(_)) { Extent::of(1) } else { item.clone() };
            let second = match &fold.range.ty {
                Type::List(_) => item,
                Type::Map(_, value) => range.extent.element(value),
                _ => Extent::of(u64::MAX),
            };
            self.locals.extend([first, second]);
        } else {
            self.locals.push(item);
        }
        let condition = self.node(&fold.condition);
        let step = self.node(&fold.step);
        self.locals.truncate(before);
        let collects = matches!(fold.start.expression, Expression::List(_) | Expression::Map(_));
        let extent = if collects {
            Extent { size: range.extent.size, shape: None, items: step.extent.items }
        } else {
            start.extent.clone()
        };
        self.locals.push(extent.clone());
        let result = self.node(&fold.result);
        self.locals.truncate(before);
        let once = condition.cost.saturating_add(step.cost);
        let total = range
            .cost
            .saturating_add(start.cost)
            .saturating_add(result.cost)
            .saturating_add(range.extent.size.saturating_mul(once));
        made(total, if collects { extent } else { result.extent })
    }
}

fn larger(one: Extent, other: Extent) -> Extent {
    let items = one.items.zip(other.items).map(|(one, other)| one.max(other));
    let shape = if one.size >= other.size { one.shape } else { other.shape };
    Extent { size: one.size.max(other.size), shape, items }
}

fn literal(value: &Value<'_>, ty: &Type) -> Extent {
    value.size().map_or_else(|| Extent::of_type(ty), |size| Extent::of(size as u64))
}

/// What a call costs beyond its arguments, and how large its result can be.
fn call(name: &str, target: Option<&Type>, extents: &[Extent], result: &Type) -> (u64, Extent) {
    let size = |index: usize| extents.get(index).map_or(0, |extent: &Extent| extent.size);
    let (first, second) = (size(0), size(1));
    let is_text = matches!(target, Some(Type::String | Type::Bytes));
    let known = Extent::of_type(result);
    match name {
        "check" => (cost::AUTHORIZATION, known),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "sort" | "distinct" | "reverse" => {
            let Some(Type::List(item)) = target else { return (scaled(first, cost::TRAVERSAL), known) };
            let element = extents[0].element(item);
            let one = match **item {
                Type::String | Type::Bytes => scaled(element.size, cost::TRAVERSAL).saturating_add(1),
                _ => 1,
            };
            let extent = match result {
                Type::List(_) => extents[0].clone(),
                Type::String | Type::Bytes => element,
                _ => known,
            };
            (first.saturating_mul(one), extent)
        }
        "jsonpatch.escapeKey" => (scaled(first, cost::TRAVERSAL), Extent::of(first.saturating_mul(2))),
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "charAt" => {
            (scaled(first, cost::TRAVERSAL), Extent::of(first))
        }
        "url" | "isURL" | "quantity" | "isQuantity" | "cidr" | "isIP" | "isCIDR" | "validate" => {
            (scaled(first, cost::TRAVERSAL), known)
        }
        "ip" if is_text => (scaled(first, cost::TRAVERSAL), known),
        "ip.isCanonical" => (scaled(first, 2.0 * cost::TRAVERSAL), known),
        "replace" => {
            let grown = first.saturating_add(1).saturating_mul(size(2)).saturating_add(first);
            (scaled(first, 2.0 * cost::TRAVERSAL), Extent::of(grown))
        }
        "split" => {
            (scaled(first, 2.0 * cost::TRAVERSAL), Extent { size: first, shape: None, items: Some(first) })
        }
        "join" => {
            let item = extents[0].element(&Type::String).size;
            let joined = first.saturating_mul(item);
            let joined = joined.saturating_add(second.saturating_mul(first.saturating_sub(1)));
            (scaled(joined, cost::TRAVERSAL), Extent::of(joined))
        }
        "find" | "findAll" | "matches" => {
            let text = scaled(first.saturating_add(1), cost::TRAVERSAL);
            let extent = match result {
                Type::List(_) => Extent { size: first, shape: None, items: Some(first) },
                Type::String => Extent::of(first),
                _ => known,
            };
            (text.saturating_mul(scaled(second, cost::PATTERN)), extent)
        }
        "contains" => (scaled(first, cost::TRAVERSAL).saturating_mul(scaled(second, cost::TRAVERSAL)), known),
        "startsWith" | "endsWith" => (scaled(second, cost::TRAVERSAL), known),
        "bytes" | "string" if is_text => {
            (scaled(first, cost::TRAVERSAL), Extent::of(first.saturating_mul(4)))
        }
        "strings.quote" => {
            let quoted = first.saturating_mul(2).saturating_add(2);
            (scaled(first, cost::TRAVERSAL), Extent::of(quoted))
        }
        // What has no size of its own is short as text.
        "string" => (1, Extent::of(SCALAR_TEXT_MAX)),
        "format" => {
            let item = extents.get(1).and_then(|list| list.items).unwrap_or(u64::MAX).max(SCALAR_TEXT_MAX);
            (scaled(first, cost::TRAVERSAL), Extent::of(first.saturating_add(second.saturating_mul(item))))
        }
        "dyn" => (1, extents[0].clone()),
        "@in" => (second, known),
        "_==_" | "_!=_" => (scaled(first.min(second), cost::TRAVERSAL), known),
        "_<_" | "_<=_" | "_>_" | "_>=_" if is_text => (scaled(first.min(second), cost::TRAVERSAL), known),
        "_+_" if is_text => {
            let joined = first.saturating_add(second);
            (scaled(joined, cost::TRAVERSAL), Extent::of(joined))
        }
        "_+_" if matches!(target, Some(Type::List(_))) => {
            let mut extent = larger(extents[0].clone(), extents[1].clone());
            extent.size = first.saturating_add(second);
            (1, extent)
        }
        "containsIP" | "containsCIDR" => {
            (scaled(second.min(REQUEST_TEXT_MAX).saturating_add(32), cost::TRAVERSAL), known)
        }
        "sets.contains" | "sets.intersects" => (first.saturating_mul(second).saturating_add(1), known),
        "sets.equivalent" => (first.saturating_mul(second).saturating_mul(2).saturating_add(1), known),
        _ => (1, known),
    }
}

/// The longest text of a number, a truth value or a time.
const SCALAR_TEXT_MAX: u64 = 40;
/// An address is never longer than this, whatever the text it is read from.
const REQUEST_TEXT_MAX: u64 = 64;
