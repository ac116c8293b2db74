//! Amounts of resources as the scheduler counts them: integers, CPU in thousandths of a core. Owns the arithmetic and the
//! reading of quantities; rounds up, so that a pod is never promised less than it asked for.

use std::collections::BTreeMap;

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
            "cpu" => self.milli_cpu = scaled(&quantity.0, 1000),
            "memory" => self.memory = scaled(&quantity.0, 1),
            "ephemeral-storage" => self.ephemeral_storage = scaled(&quantity.0, 1),
            "pods" => self.pods = scaled(&quantity.0, 1),
            other => {
                self.scalar.insert(other.to_owned(), scaled(&quantity.0, 1));
            }
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

/// A quantity times `scale`, rounded away from zero to a whole number and limited to the range of `i64`.
/// `1.5` with scale 1000 is 1500; `1Ki` with scale 1 is 1024; `100n` with scale 1000 is 1.
pub fn scaled(text: &str, scale: i64) -> i64 {
    parse(text, scale).unwrap_or(0)
}

fn parse(text: &str, scale: i64) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.get(..fraction.len().min(18))?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    // The value is digits * numerator / denominator.
    let (mut numerator, mut denominator) =
        (u128::from(scale.unsigned_abs()), power(10, fraction.len() as u32)?);
    match suffix {
        "" => {}
        "n" => denominator = denominator.checked_mul(1_000_000_000)?,
        "u" => denominator = denominator.checked_mul(1_000_000)?,
        "m" => denominator = denominator.checked_mul(1000)?,
        _ => numerator = numerator.checked_mul(multiplier(suffix, &mut denominator)?)?,
    }
    let Some(product) = digits.checked_mul(numerator) else {
        return Some(if negative { i64::MIN } else { i64::MAX });
    };
    let value = i64::try_from(product.div_ceil(denominator)).unwrap_or(i64::MAX);
    Some(if negative { -value } else { value })
}

fn power(base: u128, exponent: u32) -> Option<u128> {
    base.checked_pow(exponent)
}

fn multiplier(suffix: &str, denominator: &mut u128) -> Option<u128> {
    let decimal = ["k", "M", "G", "T", "P", "E"];
    if let Some(at) = decimal.iter().position(|name| *name == suffix) {
        return power(1000, at as u32 + 1);
    }
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(at) = binary.iter().position(|name| *name == suffix) {
        return power(1024, at as u32 + 1);
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    if exponent < 0 {
        *denominator = denominator.checked_mul(power(10, exponent.unsigned_abs())?)?;
        return Some(1);
    }
    power(10, exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_forms_and_rounded_up() {
        for (text, scale, value) in [
            ("2", 1000, 2000),
            ("0.5", 1000, 500),
            ("100m", 1000, 100),
            ("100n", 1000, 1),
            ("1Ki", 1, 1024),
            ("1.5Gi", 1, 1_610_612_736),
            ("128974848", 1, 128_974_848),
            ("129e6", 1, 129_000_000),
            ("1E3", 1000, 1_000_000),
            ("2E", 1, 2_000_000_000_000_000_000),
            ("5e-1", 1, 1),
            ("-3", 1, -3),
            ("100Ei", 1, i64::MAX),
            ("nonsense", 1, 0),
        ] {
            assert_eq!(scaled(text, scale), value, "{text}");
        }
    }

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
