//! Amounts of resources as the scheduler counts them: integers, CPU in thousandths of a core. Owns the arithmetic;
//! quantities are rounded up, so that a pod is never promised less than it asked for.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity as ParsedQuantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container without a CPU request counts as when nodes are compared, in thousandths of a core.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts as when nodes are compared, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Number of pods (of a node's allocatable).
    pub pods: i64,
    /// Everything else, by name.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list. A quantity that cannot be read counts as nothing: the API server has refused it long before.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            resources.set(name, quantity);
        }
        resources
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, name: &str, quantity: &Quantity) {
        match name {
            "cpu" => self.milli_cpu = parsed(quantity).milli_value(),
            "memory" => self.memory = parsed(quantity).value(),
            "ephemeral-storage" => self.ephemeral_storage = parsed(quantity).value(),
            "pods" => self.pods = parsed(quantity).value(),
            other => {
                self.scalar.insert(other.to_owned(), parsed(quantity).value());
            }
        }
    }

    /// The amount of one resource.
    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            other => self.scalar.get(other).copied().unwrap_or(0),
        }
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to at least the other's.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.scalar {
            match self.scalar.get_mut(name) {
                Some(mine) => *mine = with(*mine, *amount),
                None => {
                    self.scalar.insert(name.clone(), with(0, *amount));
                }
            }
        }
    }
}

fn parsed(quantity: &Quantity) -> ParsedQuantity {
    quantity.0.parse().unwrap_or(ParsedQuantity::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_and_subtract_by_name() {
        let list = |cpu: &str, gpu: &str| {
            BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_owned())),
                ("example.com/gpu".to_owned(), Quantity(gpu.to_owned())),
            ])
        };
        let mut sum = Resources::of(Some(&list("1", "2")));
        sum.add(&Resources::of(Some(&list("500m", "1"))));
        assert_eq!((sum.milli_cpu, sum.scalar["example.com/gpu"]), (1500, 3));
        sum.subtract(&Resources::of(Some(&list("1", "2"))));
        assert_eq!((sum.milli_cpu, sum.scalar["example.com/gpu"]), (500, 1));
    }
}
