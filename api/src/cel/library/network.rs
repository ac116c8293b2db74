//! Addresses and address ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::overload::Row;
use super::super::value::{Cidr, Value};
use super::super::{EvalError, failed, no_such_overload};
use super::text;

pub(super) const ROWS: &[Row] = &[
    ("ip(string): net.IP", |values| Ok(Value::Ip(address(text(values, 0)?)?))),
    ("isIP(string): bool", |values| Ok(address(text(values, 0)?).is_ok().into())),
    ("ip.isCanonical(string): bool", |values| {
        let given = text(values, 0)?;
        Ok((address(given)?.to_string() == given).into())
    }),
    (".family(net.IP): int", |values| Ok(Value::Int(if ip(values)?.is_ipv4() { 4 } else { 6 }))),
    (".isUnspecified(net.IP): bool", |values| Ok(ip(values)?.is_unspecified().into())),
    (".isLoopback(net.IP): bool", |values| Ok(ip(values)?.is_loopback().into())),
    (".isLinkLocalMulticast(net.IP): bool", |values| {
        Ok(match ip(values)? {
            IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
            IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
        }
        .into())
    }),
    (".isLinkLocalUnicast(net.IP): bool", |values| {
        Ok(match ip(values)? {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
        .into())
    }),
    (".isGlobalUnicast(net.IP): bool", |values| {
        Ok(match ip(values)? {
            IpAddr::V4(address) => {
                !(address.is_unspecified()
                    || address.is_broadcast()
                    || address.is_loopback()
                    || address.is_multicast()
                    || address.is_link_local())
            }
            IpAddr::V6(address) => {
                !(address.is_unspecified()
                    || address.is_loopback()
                    || address.is_multicast()
                    || address.is_unicast_link_local())
            }
        }
        .into())
    }),
    ("cidr(string): net.CIDR", |values| Ok(Value::Cidr(range(text(values, 0)?)?))),
    ("isCIDR(string): bool", |values| Ok(range(text(values, 0)?).is_ok().into())),
    (
        ".containsIP(net.CIDR, net.IP): bool",
        |values| Ok(contains(cidr(values, 0)?, ip(&values[1..])?).into()),
    ),
    (".containsIP(net.CIDR, string): bool", |values| {
        Ok(contains(cidr(values, 0)?, address(text(values, 1)?)?).into())
    }),
    (".containsCIDR(net.CIDR, net.CIDR): bool", |values| {
        Ok(covers(cidr(values, 0)?, cidr(values, 1)?).into())
    }),
    (".containsCIDR(net.CIDR, string): bool", |values| {
        Ok(covers(cidr(values, 0)?, range(text(values, 1)?)?).into())
    }),
    (".ip(net.CIDR): net.IP", |values| Ok(Value::Ip(cidr(values, 0)?.address))),
    (".prefixLength(net.CIDR): int", |values| Ok(Value::Int(cidr(values, 0)?.prefix.into()))),
    (".masked(net.CIDR): net.CIDR", |values| {
        let range = cidr(values, 0)?;
        Ok(Value::Cidr(Cidr { address: masked(range.address, range.prefix), prefix: range.prefix }))
    }),
];

fn ip(values: &[Value<'_>]) -> Result<IpAddr, EvalError> {
    match values.first() {
        Some(Value::Ip(address)) => Ok(*address),
        _ => Err(no_such_overload()),
    }
}

fn cidr(values: &[Value<'_>], index: usize) -> Result<Cidr, EvalError> {
    match values.get(index) {
        Some(Value::Cidr(range)) => Ok(*range),
        _ => Err(no_such_overload()),
    }
}

/// An address without zone; addresses of version 4 in the form of version 6 are refused.
fn address(given: &str) -> Result<IpAddr, EvalError> {
    let refused = |reason: &str| {
        failed(format!("IP Address {given:?} parse error during conversion from string: {reason}"))
    };
    match given.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(refused("IPv4-mapped IPv6 address is not allowed"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(refused("unable to parse IP")),
    }
}

fn range(given: &str) -> Result<Cidr, EvalError> {
    let refused = || {
        failed(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({given:?}): invalid CIDR"
        ))
    };
    let (start, prefix) = given.split_once('/').ok_or_else(refused)?;
    let address = address(start).map_err(|_| refused())?;
    let whole = !prefix.is_empty()
        && prefix.chars().all(|c| c.is_ascii_digit())
        && (prefix == "0" || !prefix.starts_with('0'));
    let prefix: u8 = prefix.parse().ok().filter(|_| whole).ok_or_else(refused)?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return Err(refused());
    }
    Ok(Cidr { address, prefix })
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

fn contains(range: Cidr, address: IpAddr) -> bool {
    range.address.is_ipv4() == address.is_ipv4()
        && masked(range.address, range.prefix) == masked(address, range.prefix)
}

fn covers(range: Cidr, other: Cidr) -> bool {
    range.prefix <= other.prefix && contains(range, other.address)
}
