//! Checks of single fields that several kinds share: names, choices, addresses, quantities. Each pushes upstream's error, nothing when all
//! is well.

use std::net::IpAddr;

use serde_json::Value;

use super::access::{map, text};
use crate::field::{self, FieldError, FieldPath};
use crate::quantity::Quantity;

/// The error of a value that breaks a rule of names.
pub fn name(value: &str, rule: fn(&str) -> Vec<String>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    errors.extend(rule(value).into_iter().map(|problem| field::invalid(path, value, problem)));
}

/// As [`name`], and the value has to be there.
pub fn required_name(
    value: &str,
    rule: fn(&str) -> Vec<String>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if value.is_empty() {
        errors.push(field::required(path, ""));
    } else {
        name(value, rule, path, errors);
    }
}

/// A text field that may not be empty.
pub fn required(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if text(object, key).is_empty() {
        errors.push(field::required(path.child(key), ""));
    }
}

/// A text that is one of a few.
pub fn one_of(value: &str, allowed: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !allowed.contains(&value) {
        errors.push(field::not_supported(path, value, allowed));
    }
}

/// Whether a field is there and null is not its value, for booleans that upstream demands.
pub fn required_present(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if super::access::present(object, key).is_none() {
        errors.push(field::required(path.child(key), ""));
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Reads `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits: u8 = bits.parse().ok().filter(|bits| plain && *bits <= most)?;
        Some(Cidr { address, bits })
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The block with the bits behind the mask zeroed, as text.
    pub fn canonical(&self) -> String {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                format!("{}/{}", std::net::Ipv4Addr::from(u32::from(address) & mask), self.bits)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                format!("{}/{}", std::net::Ipv6Addr::from(u128::from(address) & mask), self.bits)
            }
        }
    }

    /// Whether the other block lies in this one and is smaller.
    pub fn strictly_contains(&self, other: &Cidr) -> bool {
        self.bits < other.bits
            && self.is_ipv4() == other.is_ipv4()
            && Cidr { bits: self.bits, ..*other }.canonical() == self.canonical()
    }
}

/// A block of addresses; gives it when it can be read.
pub fn cidr(value: &str, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<Cidr> {
    let parsed = Cidr::parse(value);
    if parsed.is_none() {
        errors.push(field::invalid(
            path,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
    }
    parsed
}

/// A block of addresses in the one form that upstream's newer kinds take.
pub fn canonical_cidr(value: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(parsed) = cidr(value, path, errors)
        && parsed.canonical() != value
    {
        let canonical = parsed.canonical();
        errors.push(field::invalid(path, value, format!("must be in canonical form (\"{canonical}\")")));
    }
}

/// Every value of a resource list is a quantity over 0.
pub fn positive_quantities(object: &Value, key: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (name, value) in map(object, key).into_iter().flatten() {
        positive_quantity(value, &path.child(key).key(name), errors);
    }
}

/// A quantity over 0.
pub fn positive_quantity(value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if shown.parse::<Quantity>().is_ok_and(|quantity| quantity.is_zero() || quantity.is_negative()) {
        errors.push(field::invalid(path, shown, "must be greater than zero"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_addresses_are_read_compared_and_made_canonical() {
        let parse = |text| Cidr::parse(text).expect("a block");
        assert!(parse("10.0.0.0/8").strictly_contains(&parse("10.1.0.0/16")));
        assert!(!parse("10.0.0.0/8").strictly_contains(&parse("10.0.0.0/8")));
        assert!(!parse("10.0.0.0/8").strictly_contains(&parse("11.0.0.0/16")));
        assert!(parse("0.0.0.0/0").strictly_contains(&parse("11.0.0.0/16")));
        assert!(!parse("::/0").strictly_contains(&parse("11.0.0.0/16")));
        assert_eq!(parse("10.1.2.3/16").canonical(), "10.1.0.0/16");
        assert_eq!(parse("2001:db8::1/64").canonical(), "2001:db8::/64");
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/08", "x/8", "10.0.0.0/+8"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
