//! Resource quantities such as `100m`, `1.5Gi`, `2e3`: exact values in nano-units, canonical text, comparison and sums.
//!
//! Source: the API's description of `resource.Quantity`. A value finer than one nano is rounded up, away from zero; a
//! value beyond 2^63-1 is capped there.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_MAX: i128 = i64::MAX as i128 * NANOS_PER_UNIT;

/// How a quantity is printed. The format of what was parsed is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …: powers of 1024.
    BinarySi,
    /// `m`, none, `k`, `M`, …: powers of 1000.
    DecimalSi,
    /// `e3`, `e6`, …: powers of 1000 as exponents.
    DecimalExponent,
}

/// A fixed-point number with the format it prints in. Equality and order compare values alone.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has not the form of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number before the suffix is not one.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

/// What a suffix stands for: `10^decimal * 1024^binary`.
struct Scale {
    decimal: i32,
    binary: u32,
    format: Format,
}

fn parse_suffix(suffix: &str) -> Result<Scale, QuantityError> {
    let binary = |power| Ok(Scale { decimal: 0, binary: power, format: Format::BinarySi });
    let decimal = |power| Ok(Scale { decimal: power, binary: 0, format: Format::DecimalSi });
    match suffix {
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let power: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            Ok(Scale { decimal: power.clamp(-100_000, 100_000), binary: 0, format: Format::DecimalExponent })
        }
    }
}

/// `mantissa * 10^power`, rounded up, or `None` when it does not fit.
fn scale_by_ten(mantissa: i128, power: i32, inexact: bool) -> Option<i128> {
    if mantissa == 0 {
        return Some(i128::from(inexact));
    }
    if power >= 0 {
        let power = u32::try_from(power).ok()?;
        return mantissa.checked_mul(10_i128.checked_pow(power)?)?.checked_add(i128::from(inexact));
    }
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => {
            let rounds_up = inexact || mantissa % divisor != 0;
            Some(mantissa / divisor + i128::from(rounds_up))
        }
        None => Some(1),
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let number_end =
            rest.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Numeric);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        if !suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-')) {
            return Err(QuantityError::Format);
        }
        let scale = parse_suffix(suffix)?;

        // Leading digits are kept exactly; what lies beyond the type's reach only decides whether to round up.
        let digits_max = if scale.binary > 0 { 19 } else { 30 };
        let mut mantissa: i128 = 0;
        let mut power = scale.decimal - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2) + 9;
        let mut inexact = false;
        let mut kept = 0;
        for digit in whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0')) {
            if kept < digits_max {
                mantissa = mantissa * 10 + digit;
                kept += usize::from(mantissa != 0);
            } else {
                inexact |= digit != 0;
                power = power.saturating_add(1);
            }
        }
        mantissa <<= 10 * scale.binary;
        let nanos = scale_by_ten(mantissa, power, inexact).unwrap_or(NANOS_MAX).min(NANOS_MAX);
        let mut format = scale.format;
        if format == Format::BinarySi && nanos > 0 && nanos < NANOS_PER_UNIT {
            format = Format::DecimalSi;
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// Divides rounding away from zero.
fn divide_up(value: i128, divisor: i128) -> i64 {
    let quotient = value / divisor;
    let rounded = if value % divisor == 0 { quotient } else { quotient + value.signum() };
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

impl Quantity {
    /// Nothing, printed as `0`.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// `value` whole units.
    pub fn from_units(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * NANOS_PER_UNIT, format }
    }

    /// `value` thousandths of a unit.
    pub fn from_millis(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * (NANOS_PER_UNIT / 1000), format }
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        divide_up(self.nanos, NANOS_PER_UNIT)
    }

    /// Thousandths of a unit, rounded up.
    pub fn milli_value(&self) -> i64 {
        divide_up(self.nanos, NANOS_PER_UNIT / 1000)
    }

    /// The nearest floating point number.
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / NANOS_PER_UNIT as f64
    }

    /// The format it prints in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANOS_PER_UNIT == 0
    }

    fn combined(self, other: Quantity, nanos: i128) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: nanos.clamp(-NANOS_MAX, NANOS_MAX), format }
    }

    /// The sum, in the format of the first unless that is zero; capped.
    pub fn saturating_add(self, other: Quantity) -> Quantity {
        self.combined(other, self.nanos + other.nanos)
    }

    /// The difference, in the format of the first unless that is zero; capped.
    pub fn saturating_sub(self, other: Quantity) -> Quantity {
        self.combined(other, self.nanos - other.nanos)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return formatter.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS_PER_UNIT;
        if self.format == Format::BinarySi && !small {
            let mut units = i128::from(self.value());
            let mut power = 0;
            while power < 6 && units % 1024 == 0 {
                units /= 1024;
                power += 1;
            }
            return write!(formatter, "{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut amount = self.nanos;
        let mut thousands = 0_usize;
        while thousands < 9 && amount % 1000 == 0 {
            amount /= 1000;
            thousands += 1;
        }
        if self.format == Format::DecimalExponent {
            let exponent = thousands as i32 * 3 - 9;
            return if exponent == 0 {
                write!(formatter, "{amount}")
            } else {
                write!(formatter, "{amount}e{exponent}")
            };
        }
        write!(formatter, "{amount}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][thousands])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>()
            .map(|quantity| quantity.to_string())
            .unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("12345k", "12345k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1Ei", "1Ei"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("100e-3", "100e-3"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("-100m", "-100m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("1e100", "9223372036854775807e0"),
            ("16Ei", "9223372036854775807"),
        ] {
            let expected = expected.strip_suffix("e0").unwrap_or(expected);
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Gi", "1.2.3", "1 Gi", "1gi", "1KB", "--1", "1e", "1e3x", "ä", "1ä"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let quantity: Quantity = "1001m".parse().expect("a quantity");
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1001));
        let sum = Quantity::ZERO.saturating_add("1Gi".parse().expect("a quantity"));
        assert_eq!(sum.to_string(), "1Gi");
        assert_eq!(sum.saturating_sub(sum).to_string(), "0");
    }

    fn parts() -> impl Strategy<Value = (i64, u8, &'static str, i128)> {
        let suffix = prop::sample::select(vec![
            ("n", 1),
            ("u", 1000),
            ("m", 1_000_000),
            ("", 1_000_000_000),
            ("k", 1_000_000_000_000),
            ("M", 1_000_000_000_000_000),
            ("Ki", 1024 * 1_000_000_000),
            ("Mi", 1024 * 1024 * 1_000_000_000),
            ("e3", 1_000_000_000_000),
        ]);
        (-1_000_000_000_000_i64..1_000_000_000_000, 0_u8..6, suffix)
            .prop_map(|(mantissa, decimals, (suffix, nanos))| (mantissa, decimals, suffix, nanos))
    }

    fn text(mantissa: i64, decimals: u8, suffix: &str) -> String {
        let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        let sign = if mantissa < 0 { "-" } else { "" };
        format!("{sign}{whole}.{fraction}{suffix}")
    }

    /// The exact value in nanos, rounded away from zero.
    fn exact(mantissa: i64, decimals: u8, nanos: i128) -> i128 {
        let divisor = 10_i128.pow(u32::from(decimals));
        let product = i128::from(mantissa) * nanos;
        let rounded = product / divisor + if product % divisor == 0 { 0 } else { product.signum() };
        rounded.clamp(-NANOS_MAX, NANOS_MAX)
    }

    proptest! {
        #[test]
        fn text_round_trips((mantissa, decimals, suffix, nanos) in parts()) {
            let quantity: Quantity = text(mantissa, decimals, suffix).parse().expect("a quantity");
            prop_assert_eq!(quantity.nanos, exact(mantissa, decimals, nanos));
            let again: Quantity = quantity.to_string().parse().expect("its own text");
            if quantity.format() == Format::BinarySi && quantity.nanos.abs() >= 1024 * NANOS_PER_UNIT {
                prop_assert_eq!(again.value(), quantity.value());
            } else {
                prop_assert_eq!(again, quantity);
            }
        }

        #[test]
        fn order_is_that_of_the_exact_values(left in parts(), right in parts()) {
            let one: Quantity = text(left.0, left.1, left.2).parse().expect("a quantity");
            let other: Quantity = text(right.0, right.1, right.2).parse().expect("a quantity");
            prop_assert_eq!(one.cmp(&other), exact(left.0, left.1, left.3).cmp(&exact(right.0, right.1, right.3)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
